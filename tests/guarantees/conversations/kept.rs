//! Headers of the first response that later clients receive too.

use http::{HeaderName, Request, Response, header::LOCATION};
use resilient_sse::{KeptHeaders, ResilientSse, ResilientSseLayer, StreamId, test_util::collect};
use tower::ServiceExt as _;

use crate::{
    conversations::stage::{SECOND, Stage, post, send, turn},
    support::handlers::{App, Body, Call, Handler, Script, app},
};

const LINK: HeaderName = HeaderName::from_static("x-link");

fn answers(headers: &'static [(&str, &str)]) -> Handler {
    Handler::new(move |call: &Call| {
        let mut response: Response<Body> = call.stream(&Script::events(100));
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    })
}

fn keeps(layer: ResilientSseLayer) -> ResilientSseLayer {
    layer.keep_headers([LOCATION, LINK])
}

fn links(headers: &http::HeaderMap) -> Vec<&str> {
    headers.get_all(LINK).iter().map(|value| value.to_str().unwrap()).collect()
}

const TOLD: &[(&str, &str)] =
    &[("location", "/runs/7"), ("x-link", "one"), ("x-link", "two"), ("x-other", "gone"), ("cache-control", "public")];

/// Follow, replay, resume, recovery and a key repeat them, from any node.
#[tokio::test(start_paused = true)]
async fn kept_headers_are_given_again() {
    let handler = answers(TOLD);
    let named = |sse: &ResilientSse| -> App {
        let layer = keeps(sse.generation())
            .id(StreamId::path("/chat/{id}"))
            .conversation(|_: &http::request::Parts| resilient_sse::Identity::parse("c"));
        app(layer, &handler)
    };
    for node in [0, 1] {
        let mut stage = Stage::nodes(2);
        let first = send(&named(stage.sse(0)), post("/chat/a")).await;
        assert_eq!(first.headers["x-other"], "gone");
        stage.step().await;
        let check = |headers: &http::HeaderMap, what: &str| {
            assert_eq!(
                (&headers[LOCATION], links(headers)),
                (&"/runs/7".parse().unwrap(), vec!["one", "two"]),
                "{what}"
            );
            assert!(!headers.contains_key("x-other"), "{what}");
            assert_eq!(headers["cache-control"], "no-store, no-transform", "{what}");
        };
        let follows = send(&named(stage.sse(node)), post("/chat/a")).await;
        check(&follows.headers, "a follower");
        check(stage.resume(node, None).await.headers(), "a resume");
        let recover = stage.sse(node).recover().id(StreamId::path("/{id}/recover"));
        let request = Request::get("/a/recover").header("accept", "text/event-stream").body(()).unwrap();
        check(recover.oneshot(request).await.unwrap().headers(), "recovery");
        stage.advance(2 * SECOND).await;
        let seen = first.whole().await;
        assert_eq!(seen.names().last(), Some(&"completed"));
        let replayed = send(&named(stage.sse(node)), post("/chat/a")).await;
        check(&replayed.headers, "a replay");
        drop((follows, replayed));
        stage.verdict().await;
    }
}

/// The same on a route that makes up ids, and where the response has none of the headers.
#[tokio::test(start_paused = true)]
async fn kept_headers_of_a_made_up_stream() {
    let stage = Stage::nodes(1);
    for (headers, expected) in [(TOLD, 3), (&[][..], 0)] {
        let app = app(keeps(stage.sse(0).generation()), &answers(headers));
        let mut first = send(&app, post("/")).await;
        let seen = first.read(2).await;
        let KeptHeaders::Kept(kept) = stage.info(&first.id()).await.unwrap().headers else { panic!("not kept") };
        assert_eq!(kept.len(), expected);
        let mut request = post("/");
        request.headers_mut().insert("last-event-id", seen.last_id().parse().unwrap());
        let again = send(&app, request).await;
        assert_eq!((again.id(), links(&again.headers).len()), (first.id(), expected.saturating_sub(1)));
    }
    let plain = turn(&stage.chat(0, &answers(TOLD))).await;
    assert_eq!(stage.info(&plain.id()).await.unwrap().headers, KeptHeaders::None);
    drop(plain);
    stage.verdict().await;
}

/// A follower waits for a slow response, but not for long.
#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_the_headers() {
    for (slow, given) in [(1, true), (30, false)] {
        let mut stage = Stage::nodes(2);
        let inner = tower::service_fn(move |request: Request<()>| async move {
            tokio::time::sleep(slow * SECOND).await;
            let id = request.extensions().get::<resilient_sse::StreamContext>().unwrap().id().to_string();
            let alive = crate::support::handlers::Alive::new(&std::sync::Arc::default());
            let mut response = crate::support::handlers::sse(Script::events(1000).body(id, 1, alive));
            response.headers_mut().insert(LOCATION, "/runs/7".parse().unwrap());
            Ok::<_, std::convert::Infallible>(response)
        });
        let layer = keeps(stage.sse(0).generation()).conversation(StreamId::path("/chat/{id}"));
        let chat: App = tower::util::BoxCloneService::new(tower::ServiceBuilder::new().layer(layer).service(inner));
        let first = tokio::spawn(async move { turn(&chat).await.whole().await });
        stage.step().await;
        let resume = stage.sse(1).resume().conversation(StreamId::path("/chat/{id}/stream"));
        let resumed = tokio::spawn(resume.oneshot(Request::get("/chat/c/stream").body(()).unwrap()));
        let relay = stage.sse(1).relay().id(StreamId::path("/{id}"));
        let named = stage.pointer().await.remove(0);
        let relayed = tokio::spawn(relay.oneshot(Request::get(format!("/{named}")).body(()).unwrap()));
        stage.advance(SECOND / 2).await;
        assert!(!resumed.is_finished() && !relayed.is_finished());
        // The limit applies once, to everything that the follower waits for.
        stage.advance(SECOND * 7 / 4).await;
        assert!(resumed.is_finished() && relayed.is_finished(), "after {slow} s");
        let relayed = relayed.await.unwrap().unwrap();
        assert_eq!(relayed.headers().get(LOCATION).is_some(), given, "a relay, after {slow} s");
        drop(relayed);
        let resumed = resumed.await.unwrap().unwrap();
        assert_eq!(resumed.headers().get(LOCATION).is_some(), given, "after {slow} s");
        stage.advance(50 * SECOND).await;
        assert_eq!(collect(resumed.into_body()).await.names().last(), Some(&"completed"));
        drop(first.await.unwrap());
        stage.verdict().await;
    }
}

/// The producer begins in time, and its headers are stored late. The wait for them is part of the same two seconds.
#[tokio::test(start_paused = true)]
async fn a_follower_waits_once_for_the_start_and_the_headers() {
    let mut stage = Stage::nodes(2);
    let inner = tower::service_fn(move |request: Request<()>| async move {
        tokio::time::sleep(SECOND * 3 / 2).await;
        let id = request.extensions().get::<resilient_sse::StreamContext>().unwrap().id().to_string();
        let alive = crate::support::handlers::Alive::new(&std::sync::Arc::default());
        Ok::<_, std::convert::Infallible>(crate::support::handlers::sse(Script::events(1000).body(id, 1, alive)))
    });
    let layer = keeps(stage.sse(0).generation()).id(StreamId::path("/chat/{id}"));
    let layer = layer.conversation(|_: &http::request::Parts| resilient_sse::Identity::parse("c"));
    let there = {
        let layer = keeps(stage.sse(1).generation()).id(StreamId::path("/chat/{id}"));
        app(layer.conversation(|_: &http::request::Parts| resilient_sse::Identity::parse("c")), &answers(TOLD))
    };
    let chat: App = tower::util::BoxCloneService::new(tower::ServiceBuilder::new().layer(layer).service(inner));
    let first = tokio::spawn(async move { send(&chat, post("/chat/a")).await.read(2).await });
    stage.step().await;
    stage.hubs[0].store.fail_on("open", resilient_sse::test_util::Fault::Refuse);
    let began = tokio::time::Instant::now();
    let resume = stage.sse(1).resume().conversation(StreamId::path("/chat/{id}/stream"));
    let resumed = tokio::spawn(resume.oneshot(Request::get("/chat/c/stream").body(()).unwrap()));
    let mut request = Request::get("/chat/a").body(()).unwrap();
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let followed = tokio::spawn(send(&there, request));
    stage.advance(SECOND * 7 / 4).await;
    assert!(stage.info("a").await.unwrap().started);
    assert!(!resumed.is_finished() && !followed.is_finished());
    stage.advance(SECOND / 2).await;
    assert!(resumed.is_finished() && followed.is_finished(), "after {:?}", began.elapsed());
    drop((resumed, followed, first));
    stage.verdict().await;
}

/// Headers beyond the limit are left out, and the stream goes on.
#[tokio::test(start_paused = true)]
async fn g8_kept_headers_are_bounded() {
    let stage = Stage::nodes(1);
    let handler = Handler::new(|call: &Call| {
        let mut response = call.stream(&Script::events(2));
        response.headers_mut().append(LINK, "x".repeat(4000).parse().unwrap());
        response.headers_mut().append(LINK, "y".repeat(200).parse().unwrap());
        response.headers_mut().append(LINK, "z".parse().unwrap());
        response.headers_mut().insert(LOCATION, http::HeaderValue::from_bytes(b"/\xff").unwrap());
        response
    });
    let first = turn(&stage.chat_with(0, &handler, keeps)).await;
    let KeptHeaders::Kept(kept) = stage.info(&first.id()).await.unwrap().headers else { panic!("not kept") };
    assert_eq!(kept.iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), [4000, 1]);
    assert_eq!(first.whole().await.data().len(), 3);
    stage.verdict().await;
}

#[test]
#[should_panic(expected = "`keep_headers` cannot keep")]
fn what_the_library_sets_cannot_be_kept() {
    let (sse, _) = ResilientSse::builder(resilient_sse::MemoryStore::new()).build().unwrap();
    let _ = sse.generation().keep_headers([http::header::CONTENT_TYPE]);
}

/// After a store has lost everything, the headers are stored again with the stream.
#[tokio::test(start_paused = true)]
async fn kept_headers_come_back_with_their_stream() {
    let mut stage = Stage::nodes(1);
    let handler = Handler::new(|call: &Call| {
        let mut response = call.stream(&Script::events(u64::MAX));
        response.headers_mut().insert(LOCATION, "/runs/7".parse().unwrap());
        response
    });
    let mut asked = turn(&stage.chat_with(0, &handler, keeps)).await;
    asked.read(1).await;
    stage.advance(12 * SECOND).await;
    stage.hubs[0].store.forget();
    stage.advance(30 * SECOND).await;
    let info = stage.info(&asked.id()).await.unwrap();
    assert_eq!(info.headers, KeptHeaders::Kept(vec![("location".to_owned(), "/runs/7".to_owned())]));
    drop(asked);
    stage.verdict().await;
}
