//! Which stream a request names: templates, methods, metadata (guarantees G8, G9).

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{Event, Identity, Owner, StreamId, StreamKey, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::bodies::{
    Client, Step, Watch, app, chunk, events, numbers, request, resuming, send, serving, then,
};

fn key(id: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

fn by(method: Method, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_no_stream_s_passes_whatever_its_suffix() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.generation().id(StreamId::path("/chat/{id}")).recover_suffix("/recover");
    let app = app(layer, &watch, numbers(1));
    for method in [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE] {
        let made = watch.made();
        let response = send(&app, by(method.clone(), "/orders/5/recover")).await;
        assert_eq!((response.status(), watch.made()), (StatusCode::OK, made + 1), "{method}");
        assert!(!response.headers().contains_key("x-stream-id"));
    }
    let (made, response) = (watch.made(), send(&app, request("/chat/5/recover")).await);
    assert_eq!((response.status(), watch.made()), (StatusCode::NOT_FOUND, made), "that one is recovery's");
}

#[tokio::test(start_paused = true)]
async fn recovery_under_a_suffix_answers_head_and_options_too() {
    let hub = TestHub::new();
    let watch = Watch::default();
    // The route makes its streams by POST only, and recovery answers GET.
    let template = StreamId::path("/chat/{id}").only(Method::POST);
    let layer = hub.sse.generation().id(template).recover_suffix("/recover");
    let app = app(layer, &watch, then(numbers(1), Step::Hang));
    let _running = send(&app, by(Method::POST, "/chat/5")).await;
    for (method, status) in [
        (Method::GET, StatusCode::OK),
        (Method::HEAD, StatusCode::OK),
        (Method::OPTIONS, StatusCode::NO_CONTENT),
        (Method::POST, StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let response = send(&app, by(method.clone(), "/chat/5/recover")).await;
        assert_eq!(response.status(), status, "{method}");
        if status == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "application/json");
        } else {
            assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS");
        }
    }
    assert_eq!(watch.made(), 1, "none of them reaches the inner service");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "/chat/{chat_id}")]
async fn a_template_that_would_protect_nothing_panics_where_it_is_made() {
    let hub = TestHub::new();
    let _ = hub.sse.generation().id(StreamId::path("/chat/{chat_id}"));
}

#[tokio::test(start_paused = true)]
async fn one_path_has_one_reading_in_every_service() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(2), Step::Hang));
    let spellings = ["/s/a~b", "/s/a%7Eb", "/s/a%7eb", "/s/%61%7E%62"];
    for path in spellings {
        let response = send(&app, request(path)).await;
        assert_eq!(response.headers()["x-stream-id"], "a~b", "{path}");
        let mut client = Client::new(response.into_body());
        client.drain();
        assert_eq!(client.data(), ["0", "1"], "{path}");
    }
    assert_eq!(watch.made(), 1, "one stream");
    hub.step().await;
    let id = StreamId::new("job~1").unwrap();
    hub.sse.publisher().end(&Owner::ANONYMOUS, &id, Event::new("done")).await.unwrap();
    for path in ["/s/job~1", "/s/job%7E1"] {
        let relay = hub.sse.relay().id(StreamId::path("/s/{id}")).oneshot(request(path)).await.unwrap();
        let mut client = Client::new(relay.into_body());
        client.drain();
        assert_eq!(client.data(), ["done"], "{path}");
        let recover = hub.sse.recover().id(StreamId::path("/s/{id}")).oneshot(request(path)).await.unwrap();
        assert_eq!(recover.status(), 200, "{path}");
    }
    for malformed in ["/s/%", "/s/a%7", "/s/%ff"] {
        let response = send(&app, resuming(malformed, "e1-1")).await;
        assert_eq!(response.status(), 400, "{malformed}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("percent-encoded"), "it names the rule: {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_identifier_keeps_is_held_to_its_limit() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.generation().id(|request: &http::request::Parts| {
        Identity::parse("a").metadata("prompt", request.uri.query().unwrap_or_default())
    });
    let app = app(layer, &watch, then(numbers(1), Step::Hang));
    let asks = |bytes: usize| format!("/?{}", "x".repeat(bytes - "prompt".len()));
    let response = send(&app, request(&asks(4097))).await;
    assert_eq!(response.status(), 400);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("4096"), "it names the limit: {text:?}");
    assert_eq!((watch.made(), hub.sse.registry().stream(&key("a")).await.unwrap()), (0, None), "nothing is stored");

    // An `EventSource` that comes back would give up for good at a 400.
    let back = send(&app, resuming(&asks(60_000), "gibberish")).await;
    assert_eq!(back.status(), 200);
    assert_eq!(hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().metadata, []);
    drop(back);
    hub.sse.registry().delete(&key("a")).await.unwrap();

    let _fits = send(&app, request(&asks(4096))).await;
    let info = hub.sse.registry().stream(&key("a")).await.unwrap();
    assert_eq!(info.unwrap().metadata[0].1.len(), 4090);
}

#[tokio::test(start_paused = true)]
async fn what_a_fingerprint_and_a_kind_keep_counts_too() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let query = |request: &http::request::Parts| request.uri.query().map(str::to_owned);
    let printed = hub.sse.generation().id(StreamId::path("/s/{id}")).fingerprint(query);
    let printed = app(printed, &watch, then(numbers(1), Step::Hang));
    let kinds = hub.sse.generation().id(|request: &http::request::Parts| {
        Identity::parse("kind").kind(request.uri.query().unwrap_or_default().to_owned())
    });
    let kinds = app(kinds, &watch, then(numbers(1), Step::Hang));
    for app in [&printed, &kinds] {
        assert_eq!(send(app, request(&format!("/s/a?{}", "x".repeat(4097)))).await.status(), 400);
        assert_eq!(watch.made(), 0);
    }
    assert_eq!(send(&printed, resuming(&format!("/s/a?{}", "x".repeat(4097)), "e1-1")).await.status(), 422);
    let _fits = send(&printed, request(&format!("/s/a?{}", "x".repeat(4096)))).await;
    assert_eq!(watch.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_beside_a_stream_reaches_its_handler_where_the_template_is_for_get() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let layer = hub.sse.generation().id(StreamId::path("/chat/{id}").only(Method::GET));
    let app = serving(layer, move |request: Request<()>| match *request.method() {
        Method::GET => events(bodies.body(then(numbers(1), Step::Hang))),
        _ => http::Response::new(bodies.body(vec![chunk("{}")])),
    });
    let running = send(&app, request("/chat/42")).await;
    let posted = send(&app, by(Method::POST, "/chat/42")).await;
    assert!(!posted.headers().contains_key("x-stream-id"));
    assert_eq!(posted.into_body().collect().await.unwrap().to_bytes(), "{}");
    assert_eq!(watch.made(), 2);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_forgets_its_key_is_protected_all_the_same() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let name = http::HeaderName::from_static("idempotency-key");
    let layer = hub.sse.generation().id(StreamId::header(name.clone()).or_generate());
    let app = app(layer, &watch, then(numbers(2), Step::Hang));
    let response = send(&app, by(Method::POST, "/")).await;
    let made_up = response.headers()["x-stream-id"].to_str().unwrap().to_owned();
    let mut client = Client::new(response.into_body());
    client.drain();
    let cursor = client.seen[1].id.clone();
    assert!(cursor.starts_with(&format!("{made_up}.e")), "{cursor}");
    drop(client);
    let mut again = Client::new(send(&app, resuming("/", &cursor)).await.into_body());
    again.drain();
    assert_eq!((again.data(), watch.made()), (vec!["1"], 1), "its cursor names it");

    let mut keyed = by(Method::POST, "/");
    keyed.headers_mut().insert(&name, "answer-1".parse().unwrap());
    assert_eq!(send(&app, keyed).await.headers()["x-stream-id"], "answer-1");
}

#[tokio::test(start_paused = true)]
async fn two_slow_requests_that_answer_json_both_get_it() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let inner = tower::service_fn(move |_: Request<()>| {
        let bodies = bodies.clone();
        async move {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            let response = http::Response::builder().header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(bodies.body(vec![chunk("{}")])).unwrap())
        }
    });
    let layer = hub.sse.generation().id(StreamId::path("/s/{id}"));
    let app = tower::ServiceBuilder::new().layer(layer).service(inner);
    let (first, second) = tokio::join!(app.clone().oneshot(request("/s/a")), app.clone().oneshot(request("/s/a")));
    for response in [first.unwrap(), second.unwrap()] {
        assert_eq!(response.headers()["content-type"], "application/json");
    }
    assert_eq!(watch.made(), 2);
}
