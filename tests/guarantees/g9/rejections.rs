//! The library's refusals and their answers (guarantees G8, G9).

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{Event, Identity, Owner, Rejection, StreamId, StreamSpec, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::{
    bodies::{Client, Step, Watch, app, numbers, request, resuming, send, then},
    logged::Logged,
};

const NAMES: usize = 20;

#[tokio::test(start_paused = true)]
async fn g8_a_limit_is_a_limit_whatever_the_client_says() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let layer = || hub.sse.generation().id(StreamId::path("/s/{id}")).max_streams(1);
    let generation = app(layer(), &watch, then(numbers(1), Step::Hang));
    let feed = app(hub.sse.feed().max_streams(1), &watch, then(numbers(1), Step::Hang));
    for cursor in ["x", "$", "e1-1", "1700000000000-0"] {
        let mut held = Vec::new();
        for n in 0..NAMES {
            let answer = send(&generation, resuming(&format!("/s/{cursor}{n}").replace('$', "live"), cursor)).await;
            assert_ne!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "an `EventSource` would give up");
            held.push(answer);
            held.push(send(&feed, resuming("/", cursor)).await);
        }
        assert!(hub.sse.registry().active_count().await.unwrap() <= 1, "{cursor}");
    }
    let over = send(&generation, request("/s/another")).await;
    assert_eq!((over.status(), &over.headers()["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"5".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn the_host_shapes_every_refusal_and_sees_its_request() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let hub = TestHub::with(|builder| {
        builder.anonymous().on_reject(move |rejection: &Rejection, request: &http::request::Parts, response| {
            heard.lock().unwrap().push((rejection.status().as_u16(), request.uri.to_string()));
            let shaped = format!("{} {}", request.headers["x-lang"].to_str().unwrap(), rejection);
            let (parts, _): (http::response::Parts, bytes::Bytes) = response.into_parts();
            Response::from_parts(parts, shaped.into())
        })
    })
    .unwrap();
    let watch = Watch::default();
    let hang = || then(numbers(1), Step::Hang);
    let named = app(hub.sse.generation().id(StreamId::path("/s/{id}")).max_streams(1), &watch, hang());
    let made_up = app(hub.sse.generation().max_streams(1), &watch, hang());
    let asks =
        |method: Method, uri: &str| Request::builder().method(method).uri(uri).header("x-lang", "de").body(()).unwrap();
    let _running = send(&named, asks(Method::GET, "/s/a")).await;
    let text = |body: bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
    for (uri, status) in [("/s/a%20b", 400), ("/s/b?x=1", 429)] {
        let response = send(&named, asks(Method::GET, uri)).await;
        assert_eq!(response.status().as_u16(), status, "{uri}");
        assert!(text(response.into_body().collect().await.unwrap().to_bytes()).starts_with("de "));
    }
    // Here the inner service already has the request when its answer is refused.
    assert_eq!(send(&made_up, asks(Method::POST, "/made/up")).await.status(), 429);
    let recover = hub.sse.recover();
    for (uri, status) in [("/none/recover", 404), ("/a/recover?limit=0", 400)] {
        assert_eq!(recover.clone().oneshot(asks(Method::GET, uri)).await.unwrap().status().as_u16(), status, "{uri}");
    }
    assert_eq!(hub.sse.relay().oneshot(asks(Method::PUT, "/a")).await.unwrap().status().as_u16(), 405);
    let seen = seen.lock().unwrap();
    let uris = ["/s/a%20b", "/s/b?x=1", "/made/up", "/none/recover", "/a/recover?limit=0", "/a"];
    assert_eq!(*seen, [400, 429, 429, 404, 400, 405].into_iter().zip(uris.map(str::to_owned)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g9_routes_of_two_kinds_that_share_an_id_are_told_apart() {
    let logged = Logged::new();
    let mut hub = TestHub::new();
    let (chats, exports) = (Watch::default(), Watch::default());
    let chat = app(hub.sse.generation().id(StreamId::path("/chat/{id}")), &chats, then(numbers(2), Step::Hang));
    let export = hub.sse.generation().kind("export").id(StreamId::path("/export/{id}"));
    let export = app(export, &exports, then(numbers(2), Step::Hang));
    let mut client = Client::new(send(&chat, request("/chat/42")).await.into_body());
    client.drain();
    for request in [request("/export/42"), resuming("/export/42", &client.last_id())] {
        let response = send(&export, request).await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("`generation`"), "{text:?}");
    }
    assert_eq!((chats.made(), exports.made()), (1, 0));
    let errors = logged.errors();
    let errors: Vec<_> = errors.iter().filter(|error| error.contains("share ids")).collect();
    assert_eq!(errors.len(), usize::from(cfg!(feature = "tracing")), "once a minute: {errors:?}");
    assert!(errors.iter().all(|error| error.contains("stream=\"42\"") && error.contains("route=\"export\"")));

    // Services that only read serve streams of every kind.
    for (method, uri) in [(Method::GET, "/42/recover"), (Method::HEAD, "/42/recover")] {
        let ask = Request::builder().method(method).uri(uri).body(()).unwrap();
        assert_eq!(hub.sse.recover().oneshot(ask).await.unwrap().status(), 200);
    }
    let mut relayed = Client::new(hub.sse.relay().oneshot(request("/42")).await.unwrap().into_body());
    relayed.drain();
    assert_eq!(relayed.data(), ["0", "1"]);
    let id = StreamId::new("42").unwrap();
    assert!(hub.sse.streams().stop(&Owner::ANONYMOUS, &id).await.unwrap().is_some());
    hub.step().await;
    assert_eq!(chats.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn g9_an_identity_s_own_kind_is_what_counts() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let one = hub.sse.generation().id(|_: &http::request::Parts| Identity::parse("a").kind("ai_chat"));
    let two = hub.sse.generation().kind("ai_chat").id(StreamId::path("/{id}"));
    let (one, two) = (app(one, &watch, then(numbers(1), Step::Hang)), app(two, &watch, numbers(1)));
    let _running = send(&one, request("/")).await;
    assert_eq!(send(&two, request("/a")).await.status(), 200);
    assert_eq!(watch.made(), 1);
}

async fn relayed(hub: &TestHub, method: Method, uri: &str) -> Response<resilient_sse::AnswerBody> {
    let ask = Request::builder().method(method).uri(uri).body(()).unwrap();
    hub.sse.relay().oneshot(ask).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_relay_answers_get_and_says_so() {
    let hub = TestHub::new();
    let id = StreamId::new("a").unwrap();
    hub.sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new("1")).await.unwrap();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = relayed(&hub, method.clone(), "/a").await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD, OPTIONS");
    }
    let options = relayed(&hub, Method::OPTIONS, "/a").await;
    assert_eq!(
        (options.status(), &options.headers()["allow"]),
        (StatusCode::NO_CONTENT, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
    let head = relayed(&hub, Method::HEAD, "/a").await;
    assert_eq!(
        (head.status(), &head.headers()["content-type"]),
        (StatusCode::OK, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(hub.sse.health().followers, 0, "a head follows nothing");
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_wait_answers_404() {
    let hub = TestHub::with(|builder| builder.anonymous().relay_wait(std::time::Duration::ZERO)).unwrap();
    assert_eq!(relayed(&hub, Method::GET, "/none").await.status(), StatusCode::NOT_FOUND);
    let waits = hub.sse.relay().wait(std::time::Duration::from_secs(1)).oneshot(request("/none")).await.unwrap();
    assert_eq!(waits.status(), StatusCode::OK, "the relay's own wait counts");
    let _job = hub.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap())).await.unwrap();
    assert_eq!(relayed(&hub, Method::GET, "/a").await.status(), StatusCode::OK, "opened, though nothing was said yet");
}

#[tokio::test(start_paused = true)]
async fn a_relay_does_not_guess_which_part_of_a_path_is_a_name() {
    let logged = Logged::new();
    let hub = TestHub::new();
    for path in ["/exports/7/events", "/exports/7", "/", "//7"] {
        assert_eq!(relayed(&hub, Method::GET, path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let errors = logged.errors();
    assert_eq!(errors.len(), usize::from(cfg!(feature = "tracing")));
    assert!(errors.iter().all(|error| error.contains("Relay::id")), "{errors:?}");
    let told = hub.sse.relay().id(StreamId::path("/exports/{id}/events"));
    assert_eq!(told.oneshot(request("/exports/7/events")).await.unwrap().headers()["x-stream-id"], "7");
}
