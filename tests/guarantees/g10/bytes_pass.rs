//! G10: responses that are not protected pass untouched. Event streams among them are counted and marked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use resilient_sse::{
    BodyError, Identity, ResilientSseBody, ResilientSseLayer, StreamId,
    test_util::{TestHub, collect},
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::bodies::{Broken, resuming};

/// A body of given frames, with trailers, an exact size, and optionally an error at its end.
#[derive(Clone, Debug)]
struct Raw {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    fails: bool,
}

impl Raw {
    fn new() -> Self {
        let frames = ["data: a", "\n\n", "", "data: b\r\n\r\nrest"].map(|text| Bytes::from_static(text.as_bytes()));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        Self { frames: frames.into(), trailers: Some(trailers), fails: false }
    }
}

impl Body for Raw {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(data) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::take(&mut self.fails) {
            return Poll::Ready(Some(Err(Broken)));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().map(|frame| frame.len() as u64).sum())
    }
}

/// Returns the layer's response to an inner response with these headers and this status.
async fn answer(
    layer: ResilientSseLayer,
    method: Method,
    status: StatusCode,
    headers: &'static [(&'static str, &'static str)],
) -> Response<ResilientSseBody<Raw>> {
    let inner = service_fn(move |_: Request<()>| async move {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Ok::<_, Infallible>(response.body(Raw::new()).unwrap())
    });
    let request = Request::builder().method(method).uri("/s/a").body(()).unwrap();
    ServiceBuilder::new().layer(layer).service(inner).oneshot(request).await.unwrap()
}

/// The frames are the inner body's, and so are the hints before each.
async fn assert_untouched(mut body: ResilientSseBody<Raw>) {
    let mut inner = Raw::new();
    loop {
        assert_eq!(body.is_end_stream(), inner.is_end_stream());
        assert_eq!(body.size_hint().exact(), inner.size_hint().exact());
        let (outer, inner) = (body.frame().await, inner.frame().await);
        match (outer, inner) {
            (None, None) => break,
            (Some(Ok(outer)), Some(Ok(inner))) => {
                assert_eq!(outer.data_ref(), inner.data_ref());
                assert_eq!(outer.trailers_ref(), inner.trailers_ref());
            }
            frames => panic!("{frames:?}"),
        }
    }
    assert!(body.frame().await.is_none(), "g11: fused");
}

fn path(hub: &TestHub) -> ResilientSseLayer {
    hub.sse.generation().id(StreamId::path("/s/{id}"))
}

#[tokio::test(start_paused = true)]
async fn g10_a_response_that_is_no_event_stream_passes_untouched() {
    for content_type in ["text/html", "application/json", "text/event-streams", "text/event-stream; charset=latin1"] {
        let hub = TestHub::new();
        for layer in [path(&hub), hub.sse.generation(), hub.sse.feed()] {
            let headers: &'static [_] = Box::leak(Box::new([("content-type", content_type), ("content-length", "21")]));
            let response = answer(layer, Method::GET, StatusCode::OK, headers).await;
            assert_eq!(response.headers().len(), 2, "{:?}", response.headers());
            assert_eq!(response.headers()["content-length"], "21");
            assert_untouched(response.into_body()).await;
        }
        assert_eq!(hub.store.inner().len(), 0, "the registration is withdrawn");
        assert_eq!(hub.sse.health().bypassed, 0, "not an event stream");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_event_streams_that_are_not_protected_are_marked_and_counted_by_reason() {
    const SSE: (&str, &str) = ("content-type", "Text/Event-Stream; charset=UTF-8");
    let hub = TestHub::new();
    let bypass = hub.sse.layer().id(|_: &http::request::Parts| Identity::bypass());
    let ok = StatusCode::OK;
    let encoded: &'static [_] = &[SSE, ("content-encoding", "gzip")];
    let cases = [
        ("encoded", path(&hub), Method::GET, ok, encoded),
        ("encoded", hub.sse.generation(), Method::POST, ok, encoded),
        ("status", path(&hub), Method::GET, StatusCode::PARTIAL_CONTENT, &[SSE]),
        ("status", hub.sse.feed(), Method::GET, StatusCode::INTERNAL_SERVER_ERROR, &[SSE]),
        ("bypass", bypass, Method::GET, ok, &[SSE]),
        ("bypass", hub.sse.layer().id(StreamId::path("/other/{id}")), Method::GET, ok, &[SSE]),
        ("method", path(&hub), Method::PUT, ok, &[SSE]),
        ("method", hub.sse.generation(), Method::DELETE, ok, &[SSE]),
    ];
    for (reason, layer, method, status, headers) in cases {
        let before = hub.sse.health();
        let response = answer(layer, method, status, headers).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-stream-recorded"], "false", "{reason}");
        assert!(response.headers().get("x-stream-id").is_none());
        let after = hub.sse.health();
        assert_eq!(after.bypassed_by[reason], before.bypassed_by[reason] + 1, "{reason}");
        assert_eq!(after.bypassed, before.bypassed + 1);
        assert_untouched(response.into_body()).await;
        assert_eq!(hub.store.inner().len(), 0, "{reason}");
    }
}

/// Makes an event stream with these `Content-Encoding` lines.
async fn encoded(layer: ResilientSseLayer, lines: &[&'static str]) -> Response<ResilientSseBody<Raw>> {
    let encodings = lines.iter().map(|line| ("content-encoding", *line));
    let headers: Vec<_> = [("content-type", "text/event-stream")].into_iter().chain(encodings).collect();
    answer(layer, Method::GET, StatusCode::OK, headers.leak()).await
}

/// Some servers send `identity`, which is no encoding, to keep compression away from their event streams.
#[tokio::test(start_paused = true)]
async fn g10_a_stream_whose_encoding_is_identity_is_recorded() {
    let cases: &[&[&str]] = &[
        &["identity"],
        &["Identity"],
        &[" identity\t"],
        &[""],
        &[" "],
        &["none"],
        &["identity, identity"],
        &["identity,IDENTITY ,"],
        &["identity", "identity"],
        &["", "identity"],
    ];
    for lines in cases {
        for named in [true, false] {
            let hub = TestHub::new();
            let layer = if named { path(&hub) } else { hub.sse.generation() };
            let response = encoded(layer, lines).await;
            assert!(!response.headers().contains_key("x-stream-recorded"), "{lines:?}");
            let id = response.headers()["x-stream-id"].to_str().unwrap().to_owned();
            let seen = collect(response.into_body()).await;
            assert_eq!((seen.names(), seen.ended), (vec!["message", "message", "completed"], true), "{lines:?}");
            assert_eq!(hub.sse.health().bypassed, 0);
            // A client that has only seen the first event gets the rest.
            let recover = hub.sse.recover().id(StreamId::path("/s/{id}"));
            let first = seen.events.iter().find(|event| event.data == "a").unwrap();
            let rest = recover.oneshot(resuming(&format!("/s/{id}"), &first.id)).await.unwrap();
            let rest = collect(rest.into_body()).await;
            assert_eq!((&rest.data()[..1], rest.names().last()), (&["b"][..], Some(&"completed")), "{lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g10_a_stream_with_any_other_encoding_passes_untouched() {
    let cases: &[&[&str]] = &[
        &["gzip"],
        &[" GZIP "],
        &["br"],
        &["identity, gzip"],
        &["gzip,identity"],
        &["identity", "gzip"],
        &["gzip", "identity"],
        &["", "zstd"],
        &["x-identity"],
        &["identity gzip"],
    ];
    let hub = TestHub::new();
    for lines in cases {
        for layer in [path(&hub), hub.sse.generation()] {
            let before = hub.sse.health().bypassed_by["encoded"];
            let response = encoded(layer, lines).await;
            let kept: Vec<_> = response.headers().get_all("content-encoding").iter().collect();
            assert_eq!(&kept, lines);
            assert_eq!(response.headers()["x-stream-recorded"], "false", "{lines:?}");
            assert_eq!(response.headers().len(), lines.len() + 2, "nothing else is added: {:?}", response.headers());
            assert_eq!(hub.sse.health().bypassed_by["encoded"], before + 1, "{lines:?}");
            assert_untouched(response.into_body()).await;
            assert_eq!(hub.store.inner().len(), 0, "{lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g10_head_and_other_methods_pass_without_a_call_to_the_store() {
    let hub = TestHub::new();
    for method in [Method::HEAD, Method::OPTIONS, Method::PATCH] {
        let response =
            answer(path(&hub), method.clone(), StatusCode::OK, &[("content-type", "text/event-stream")]).await;
        assert_eq!(response.headers().get("x-stream-recorded").is_some(), method != Method::HEAD, "{method}");
        assert_untouched(response.into_body()).await;
    }
    assert_eq!(hub.store.stream_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn g10_errors_of_what_passes_are_the_inner_body_s_own() {
    let hub = TestHub::new();
    let inner =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Raw { fails: true, ..Raw::new() })) });
    let app = ServiceBuilder::new().layer(path(&hub)).service(inner);
    let mut body = app.oneshot(Request::get("/s/a").body(()).unwrap()).await.unwrap().into_body();
    for _ in 0..4 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, BodyError::Inner(_)));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "broken");
    assert!(body.frame().await.is_none(), "an error is the last frame");
}

#[tokio::test(start_paused = true)]
async fn g10_errors_of_the_inner_service_are_its_own_and_withdraw_the_stream() {
    let hub = TestHub::new();
    let inner = service_fn(|_: Request<()>| async { Err::<Response<Raw>, _>(Broken) });
    for layer in [path(&hub), hub.sse.generation()] {
        let app = ServiceBuilder::new().layer(layer).service(inner);
        let error = app.oneshot(Request::get("/s/a").body(()).unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "broken");
        assert_eq!(hub.store.inner().len(), 0);
    }
}
