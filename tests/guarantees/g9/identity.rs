//! G9: the host names the owner of a request. Ids and cursors are only names.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use resilient_sse::{Builder, MemoryStore, Owner, ResilientSse, ResilientSseLayer, StreamId, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::bodies::{Client, Watch, app, events, numbers, send, serving};
use crate::support::logged::Logged;

/// A hub as a host builds it, whose owner rule is the default.
fn by_the_default_rule(setup: impl FnOnce(Builder) -> Builder) -> ResilientSse {
    let (sse, guardian) = setup(ResilientSse::builder(MemoryStore::new())).build().unwrap();
    tokio::spawn(guardian);
    sse
}

#[tokio::test(start_paused = true)]
async fn g9_an_owner_rule_that_finds_nobody_answers_401_and_says_so_once_a_minute() {
    let logged = Logged::new();
    // The default rule reads an extension that an authentication outside of the layer has set.
    let sse = by_the_default_rule(|builder| builder.challenge("Bearer realm=\"answers\""));
    let watch = Watch::default();
    let stream = |layer: ResilientSseLayer| {
        let watch = watch.clone();
        serving(layer, move |mut request: Request<()>| {
            // An authentication inside of the layer would set it too late.
            request.extensions_mut().insert(Owner::new("ada").unwrap());
            events(watch.body(numbers(2)))
        })
    };
    let request = |uri: &str| Request::get(uri).body(()).unwrap();
    let refused = |parts: &http::response::Parts| {
        assert_eq!(parts.status, 401);
        assert_eq!(parts.headers["www-authenticate"], "Bearer realm=\"answers\"");
        assert_eq!(parts.headers["x-content-type-options"], "nosniff");
        assert_eq!(parts.headers["cache-control"], "no-store, no-transform");
    };
    for layer in [
        sse.generation().id(StreamId::path("/s/{id}")),
        sse.generation().id(StreamId::path("/s/{id}")).recover_suffix("/recover"),
    ] {
        refused(&send(&stream(layer), request("/s/a")).await.into_parts().0);
    }
    let app = stream(sse.generation().id(StreamId::path("/s/{id}")).recover_suffix("/recover"));
    refused(&send(&app, request("/s/a/recover")).await.into_parts().0);
    refused(&sse.recover().oneshot(request("/a/recover")).await.unwrap().into_parts().0);
    refused(&sse.relay().oneshot(request("/a")).await.unwrap().into_parts().0);
    assert_eq!(watch.made(), 0, "the inner service is not reached");

    let said = usize::from(cfg!(feature = "tracing"));
    assert_eq!(logged.errors().len(), said, "whoever is not signed in cannot fill the log");
    tokio::time::sleep(Duration::from_secs(61)).await;
    refused(&send(&app, request("/s/a")).await.into_parts().0);
    let errors = logged.errors();
    assert_eq!(errors.len(), said);
    assert!(errors.iter().all(|error| error.contains("requests=5") && error.contains("path=\"/s/a\"")), "{errors:?}");

    let mut known = request("/s/a");
    known.extensions_mut().insert(Owner::new("ada").unwrap());
    assert_eq!(send(&app, known).await.status(), 200, "authentication outside");
    assert_eq!(logged.errors(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn g9_nobody_is_asked_for_an_owner_before_an_event_stream_comes_of_the_request() {
    let sse = by_the_default_rule(|builder| builder);
    let watch = Watch::default();
    let bodies = watch.clone();
    let app = serving(sse.layer(), move |request: Request<()>| match request.uri().path() {
        "/login" => {
            http::Response::builder().header("content-type", "text/html").body(bodies.body(numbers(1))).unwrap()
        }
        _ => events(bodies.body(numbers(1))),
    });
    let login = send(&app, Request::get("/login").body(()).unwrap()).await;
    assert_eq!(
        (login.status(), &login.headers()["content-type"]),
        (http::StatusCode::OK, &"text/html".parse().unwrap())
    );
    let stream = send(&app, Request::get("/stream").body(()).unwrap()).await;
    assert_eq!((stream.status(), watch.made()), (http::StatusCode::UNAUTHORIZED, 2));
    assert_eq!(sse.registry().active_count().await.unwrap(), 0);
    // A cursor that names a stream asks for that stream, so its owner is checked before any handler runs.
    let named = format!("{}.e1-1", StreamId::random());
    let request = Request::get("/stream").header("last-event-id", named).body(()).unwrap();
    assert_eq!((send(&app, request).await.status(), watch.made()), (http::StatusCode::UNAUTHORIZED, 2));
}

#[tokio::test(start_paused = true)]
async fn a_challenge_that_no_header_can_hold_is_no_setting() {
    let error = TestHub::with(|builder| builder.challenge("Bearer\r\nX: y")).unwrap_err();
    assert!(error.to_string().contains("`challenge`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn g9_anonymous_streams_are_a_choice_and_no_client_s_word_is_an_identity() {
    let sse = by_the_default_rule(|builder| builder);
    let watch = Watch::default();
    let app = app(sse.generation().id(StreamId::path("/s/{id}")), &watch, numbers(1));
    for header in ["x-user", "x-user-id", "authorization", "x-owner", "x-forwarded-user"] {
        let request = Request::get("/s/a").header(header, "ada").body(()).unwrap();
        assert_eq!(send(&app, request).await.status(), 401, "{header}");
    }
    let anonymous = TestHub::new();
    let app = crate::support::bodies::app(anonymous.sse.generation(), &watch, numbers(1));
    assert_eq!(send(&app, Request::get("/s/a").body(()).unwrap()).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn g9_no_id_or_cursor_puts_anything_into_a_response() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let header = http::HeaderName::from_static("x-id");
    let app = app(hub.sse.generation().id(StreamId::header(header.clone())), &watch, numbers(1));
    let long = "a".repeat(129);
    for id in ["a\tb", "a b", "a/../b", "..%0d%0aX: y", "\u{e9}", "a:b", "a{b}", "", long.as_str()] {
        let value = http::HeaderValue::from_bytes(id.as_bytes()).unwrap();
        let response = send(&app, Request::get("/").header(&header, value).body(()).unwrap()).await;
        assert_eq!(response.status(), 400, "{id:?}");
        assert!(response.headers().get("x-stream-id").is_none());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.lines().count() == 1 && (id.is_empty() || !text.contains(id)), "{text}");
    }
    assert_eq!(watch.made(), 0);
    for cursor in ["e1-1\tdata: x", "<script>", "e999-1;x", "$$", "\u{ff}\u{fe}"] {
        let value = http::HeaderValue::from_bytes(cursor.as_bytes()).unwrap();
        let request = Request::get("/").header(&header, "good").header("last-event-id", value).body(()).unwrap();
        let response = send(&app, request).await;
        assert_eq!(response.status(), 200, "never 400 with a cursor");
        let mut client = Client::new(response.into_body());
        client.drain();
        assert!(!String::from_utf8(client.bytes.clone()).unwrap().contains(cursor), "{cursor} is echoed");
        assert_eq!(client.names()[0], "gap");
    }
}

#[tokio::test(start_paused = true)]
async fn g9_made_up_ids_are_random() {
    let (hub, _guardian) =
        resilient_sse::ResilientSse::builder(resilient_sse::MemoryStore::new()).anonymous().build().unwrap();
    let watch = Watch::default();
    let app = app(hub.generation(), &watch, numbers(1));
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1000 {
        let response = send(&app, Request::get("/").body(()).unwrap()).await;
        let id = response.headers()["x-stream-id"].to_str().unwrap().to_owned();
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
        assert!(ids.insert(id));
    }
}
