//! G9: no one else's stream, on any route, by any verb.

use std::sync::{Arc, Mutex};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{Access, AnswerBody, Event, Owner, StreamId, StreamSpec, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::bodies::{App, Client, Step, Watch, app, numbers, send, then};

fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

/// Users are named by a header that a trusted proxy sets.
fn hub() -> TestHub {
    TestHub::with(|builder| builder.owner(|parts| Owner::new(parts.headers.get("x-user")?.to_str().ok()?).ok()))
        .unwrap()
}

fn by(user: &str, uri: &str) -> Request<()> {
    Request::get(uri).header("x-user", user).body(()).unwrap()
}

fn after(user: &str, uri: &str, cursor: &str) -> Request<()> {
    Request::get(uri).header("x-user", user).header("last-event-id", cursor).body(()).unwrap()
}

/// Returns the status, the body, and all headers that do not differ from moment to moment.
async fn answer(response: http::Response<AnswerBody>) -> (StatusCode, Vec<(String, String)>, String) {
    let (parts, body) = response.into_parts();
    let mut headers: Vec<_> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
    headers.sort();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn recover(hub: &TestHub, request: Request<()>) -> http::Response<AnswerBody> {
    hub.sse.recover().id(StreamId::path("/s/{id}/recover")).oneshot(request).await.unwrap()
}

fn generation(hub: &TestHub, watch: &Watch) -> App {
    app(hub.sse.generation().id(StreamId::path("/s/{id}")), watch, then(numbers(2), Step::Hang))
}

#[tokio::test(start_paused = true)]
async fn g9_a_foreign_stream_is_a_missing_one_on_recover() {
    let hub = hub();
    let watch = Watch::default();
    let app = generation(&hub, &watch);
    let mut client = Client::new(send(&app, by("ada", "/s/a")).await.into_body());
    client.drain();
    assert_eq!(recover(&hub, by("ada", "/s/a/recover")).await.status(), 200);
    let events = |user: &str, id: &str| {
        let mut request = by(user, &format!("/s/{id}/recover"));
        request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        request
    };
    let missing = answer(recover(&hub, by("eve", "/s/none/recover")).await).await;
    assert_eq!((missing.0, &*missing.2), (StatusCode::NOT_FOUND, r#"{"status":"not_found"}"#));
    let cursor = client.last_id();
    for foreign in [
        by("eve", "/s/a/recover"),
        events("eve", "a"),
        events("eve", "none"),
        after("eve", "/s/a/recover", &cursor),
        by("eve", &format!("/s/a/recover?after={cursor}")),
    ] {
        assert_eq!(answer(recover(&hub, foreign).await).await, missing);
    }
}

#[tokio::test(start_paused = true)]
async fn g9_a_foreign_stream_cannot_be_stopped_or_seen_by_handles() {
    let mut hub = hub();
    let watch = Watch::default();
    let app = generation(&hub, &watch);
    let mut client = Client::new(send(&app, by("ada", "/s/a")).await.into_body());
    client.drain();
    let id = StreamId::new("a").unwrap();
    assert!(hub.sse.streams().stop(&owner("eve"), &id).await.unwrap().is_none());
    assert!(hub.sse.streams().stop(&Owner::ANONYMOUS, &id).await.unwrap().is_none());
    assert!(hub.sse.streams().list(&owner("eve")).await.unwrap().is_empty());
    assert!(hub.sse.streams().list(&Owner::ANONYMOUS).await.unwrap().is_empty());
    hub.step().await;
    assert_eq!(watch.alive(), 1);
    assert!(hub.sse.streams().stop(&owner("ada"), &id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn g9_a_foreign_user_on_the_stream_route_gets_a_stream_of_his_own() {
    let hub = hub();
    let watch = Watch::default();
    let app = generation(&hub, &watch);
    let mut ada = Client::new(send(&app, by("ada", "/s/a")).await.into_body());
    ada.drain();
    let mut eve = Client::new(send(&app, by("eve", "/s/a")).await.into_body());
    eve.drain();
    assert_eq!(watch.made(), 2, "a run of her own");
    assert_eq!(eve.data(), ["0", "1"]);
    // With a cursor of another owner's stream, the stream looks like one that has expired.
    let mallory = send(&app, after("mallory", "/s/a", &ada.last_id())).await;
    assert_eq!(mallory.status(), StatusCode::NOT_FOUND);
    assert_eq!(watch.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn g9_a_cursor_that_names_another_owner_s_stream_says_nothing() {
    let hub = hub();
    let watch = Watch::default();
    let steps = then(numbers(2), Step::Hang);
    let made_up = app(hub.sse.generation(), &watch, steps.clone());
    let mut ada = Client::new(send(&made_up, by("ada", "/")).await.into_body());
    ada.drain();
    let cursor = ada.last_id();
    assert!(cursor.contains('.'), "{cursor}");
    assert_eq!(send(&made_up, after("eve", "/", &cursor)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(watch.made(), 1, "her work is not done for his cursor");

    let feed = app(hub.sse.layer(), &watch, steps.clone());
    let mut ada = Client::new(send(&feed, by("ada", "/")).await.into_body());
    ada.drain();
    let mut eve = Client::new(send(&feed, after("eve", "/", &ada.last_id())).await.into_body());
    eve.drain();
    assert_eq!(watch.made(), 3, "a run of her own");
    assert_eq!(eve.names(), ["gap", "message", "message"]);
    let stolen = String::from_utf8(eve.bytes.clone()).unwrap();
    assert!(!stolen.contains(ada.last_id().split('.').next().unwrap()), "never echoed: {stolen}");

    let named = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, steps);
    let mut eve = Client::new(send(&named, after("eve", "/s/b", &cursor)).await.into_body());
    eve.drain();
    assert_eq!(eve.names(), ["gap", "message", "message"], "a cursor of another stream");
    assert!(!String::from_utf8(eve.bytes.clone()).unwrap().contains(&cursor));
}

#[tokio::test(start_paused = true)]
async fn g9_a_foreign_user_on_the_relay_waits_as_for_an_unopened_stream() {
    let hub = hub();
    let spec = StreamSpec::new(owner("ada"), StreamId::new("a").unwrap());
    let mut job = hub.sse.publisher().open(spec).await.unwrap();
    let cursor = job.send(Event::new("secret")).await.unwrap().to_string();
    let relay = |request| async { hub.sse.relay().oneshot(request).await.unwrap() };
    let foreign = relay(by("eve", "/a")).await;
    let missing = relay(by("eve", "/none")).await;
    assert_eq!(foreign.status(), missing.status());
    let (mut foreign, mut missing) = (Client::new(foreign.into_body()), Client::new(missing.into_body()));
    foreign.drain();
    missing.drain();
    assert_eq!((foreign.names(), foreign.ended), (missing.names(), missing.ended));
    assert_eq!(relay(after("eve", "/a", &cursor)).await.status(), 404);
    assert_eq!(relay(after("eve", "/none", &cursor)).await.status(), 404);
    job.send(Event::new("more")).await.unwrap();
    foreign.drain();
    assert!(foreign.data().is_empty());
    let mut own = Client::new(relay(by("ada", "/a")).await.into_body());
    own.drain();
    assert_eq!(own.data(), ["secret", "more"]);
}

#[tokio::test(start_paused = true)]
async fn g9_whom_the_hook_denies_gets_404_as_any_consumer() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let hub = TestHub::with(|builder| {
        builder.anonymous().authorize(move |access: Access| {
            seen.lock().unwrap().push(access.key.id.to_string());
            let allowed = access.headers.contains_key("x-pass");
            async move { allowed }
        })
    })
    .unwrap();
    let watch = Watch::default();
    let app = generation(&hub, &watch);
    let pass = |uri: &str| Request::get(uri).header("x-pass", "1").body(()).unwrap();
    let plain = |uri: &str| Request::get(uri).body(()).unwrap();
    let mut client = Client::new(send(&app, pass("/s/a")).await.into_body());
    client.drain();
    let missing = answer(recover(&hub, pass("/s/none/recover")).await).await;
    let denied = answer(recover(&hub, plain("/s/a/recover")).await).await;
    assert_eq!(denied, missing, "denied and missing look the same");
    let mut events = plain("/s/a/recover");
    events.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    assert_eq!(answer(recover(&hub, events).await).await, missing);
    assert_eq!(send(&app, plain("/s/a")).await.status(), 404, "a follower");
    let resumed = Request::get("/s/a").header("last-event-id", client.last_id()).body(()).unwrap();
    assert_eq!(send(&app, resumed).await.status(), 404, "a resumption");
    assert_eq!(hub.sse.relay().oneshot(plain("/a")).await.unwrap().status(), 404);
    assert_eq!(send(&app, plain("/s/new")).await.status(), 404, "a producer");
    assert_eq!(watch.made(), 1);
    assert!(asked.lock().unwrap().len() >= 7);
}

#[tokio::test(start_paused = true)]
async fn recovery_says_which_methods_it_answers() {
    let hub = TestHub::new();
    for (method, status) in
        [("OPTIONS", 204), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("HEAD", 404), ("GET", 404)]
    {
        let request = Request::builder().method(method).uri("/s/a/recover").body(()).unwrap();
        let response = recover(&hub, request).await;
        assert_eq!(response.status(), status, "{method}");
        if status != 404 {
            assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recovery_after_a_cursor_of_another_stream_hides_nothing() {
    let hub = hub();
    let watch = Watch::default();
    let app = generation(&hub, &watch);
    let mut client = Client::new(send(&app, by("ada", "/s/a")).await.into_body());
    client.drain();
    for after in ["e9999999999999-1", "other.e1-1", "other.e9999999999999-1"] {
        let response = recover(&hub, by("ada", &format!("/s/a/recover?after={after}"))).await;
        assert_eq!(response.status(), 200);
        let (_, _, body) = answer(response).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["events"].as_array().unwrap().len(), 2, "{after}: {body}");
    }
}
