//! The table of admissions: which requests reach the store, which are withdrawn, and which are refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderName, Method, Request, StatusCode};
use resilient_sse::ResilientSseLayer;
use resilient_sse::StreamId;
use tokio::sync::Notify;
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};

use crate::{
    stage::Stage,
    support::{
        checker::Cursor,
        handlers::{Body, Finish, Handler, Script, app, plain},
    },
};

#[tokio::test(start_paused = true)]
async fn g6_generate_asks_the_store_for_event_streams_only() {
    let stage = Stage::new();
    let handler = Handler::new(|call| match call.request.uri().path() {
        "/json" => plain(200, "application/json", "{}"),
        "/missing" => plain(404, "text/plain", "no"),
        "/missing-stream" => plain(404, "text/event-stream", "data: no\n\n"),
        _ => call.stream(&Script::events(1)),
    });
    let app = app(stage.sse().generation(), &handler);
    let mut calls = 0;
    for (method, uri, status) in [
        (Method::GET, "/json", 200),
        (Method::POST, "/json", 200),
        (Method::GET, "/missing", 404),
        (Method::GET, "/missing-stream", 404),
        (Method::OPTIONS, "/", 200),
        (Method::HEAD, "/", 200),
        (Method::PUT, "/", 200),
        (Method::DELETE, "/", 200),
    ] {
        let request = Request::builder().method(method.clone()).uri(uri).body(()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        calls += 1;
        assert_eq!((response.status().as_u16(), handler.calls()), (status, calls), "{method} {uri}");
        assert!(!response.headers().contains_key("x-stream-id"));
        assert_eq!(stage.store.stream_calls(), 0, "{method} {uri}");
    }
    let mut client = stage.client(&app, "/").unnamed();
    client.finish().await;
    assert!(stage.store.stream_calls() > 0);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g6_a_path_that_names_nothing_is_bypassed() {
    let stage = Stage::new();
    let handler = Handler::events(1);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let response = app.oneshot(Request::get("/other").body(()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["x-stream-recorded"], "false");
    assert_eq!((stage.store.stream_calls(), stage.sse().health().bypassed_by["bypass"]), (0, 1));
    drop(response);
    stage.verdict().await;
}

type Fallible = BoxCloneService<Request<()>, http::Response<resilient_sse::ResilientSseBody<Body>>, &'static str>;

/// An app whose first call waits for the test's instruction and follows it. All other calls stream two events.
fn first_waits(
    layer: ResilientSseLayer,
    first: fn() -> Result<http::Response<Body>, &'static str>,
) -> (Fallible, Arc<Notify>, Arc<AtomicU64>) {
    let (go, calls) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let (gate, counter) = (Arc::clone(&go), Arc::clone(&calls));
    let inner = service_fn(move |_: Request<()>| {
        let (gate, call) = (Arc::clone(&gate), counter.fetch_add(1, Ordering::SeqCst));
        async move {
            if call == 0 {
                gate.notified().await;
                return first();
            }
            let alive = crate::support::handlers::Alive::new(&Arc::default());
            Ok(crate::support::handlers::sse(Script::events(2).body("-/a#2".to_owned(), 1, alive)))
        }
    });
    let layer = layer.id(StreamId::path("/chat/{id}"));
    (BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner)), go, calls)
}

#[tokio::test(start_paused = true)]
async fn g6_a_refusal_leaves_nothing_and_whoever_waits_becomes_the_producer() {
    let refused: fn() -> Result<_, _> = || Ok(plain(422, "application/json", "{}"));
    for first in [refused, || Err("the handler failed")] {
        let stage = Stage::new();
        let (app, go, calls) = first_waits(stage.sse().generation(), first);
        let request = || Request::get("/chat/a").body(()).unwrap();
        let mut first = Box::pin(app.clone().oneshot(request()));
        let mut second = Box::pin(app.clone().oneshot(request()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none(), "it waits for the first one's answer");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        go.notify_one();
        assert_ne!(first.await.map(|response| response.status()), Ok(StatusCode::OK));
        let seen = resilient_sse::test_util::collect(second.await.unwrap().into_body()).await;
        assert_eq!(seen.names(), ["message", "message", "completed"]);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g6_a_refusal_that_nobody_waits_for_leaves_nothing_at_once() {
    let mut stage = Stage::new();
    let handler = Handler::new(|_| plain(422, "application/json", "{}"));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    assert_eq!(client.connect().await, 422);
    assert_eq!((stage.store.inner().len(), stage.sse().health().active), (0, 0));
    // The next sweep removes the entry that keeps the next run's epoch apart from the withdrawn one's.
    stage.advance(Duration::from_secs(31)).await;
    assert!(stage.store.inner().is_empty());
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g6_a_request_that_is_dropped_while_its_handler_works_is_withdrawn() {
    let stage = Stage::new();
    let (app, _go, calls) = first_waits(stage.sse().layer(), || Err("never asked"));
    let request = || Request::get("/chat/a").body(()).unwrap();
    let mut first = Box::pin(app.clone().oneshot(request()));
    let mut second = Box::pin(app.clone().oneshot(request()));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    let seen = resilient_sse::test_util::collect(second.await.unwrap().into_body()).await;
    assert_eq!((seen.names().len(), calls.load(Ordering::SeqCst)), (3, 2));
    stage.verdict().await;
}

/// On a `Detach` route the time before the handler answers is covered too.
#[tokio::test(start_paused = true)]
async fn g11_a_handler_whose_request_is_dropped_works_on_where_the_work_outlives_its_client() {
    let mut stage = Stage::new();
    let (app, go, calls) = first_waits(stage.sse().generation(), || {
        let alive = crate::support::handlers::Alive::new(&Arc::default());
        Ok(crate::support::handlers::sse(Script::events(2).body("-/a#1".into(), 1, alive)))
    });
    let request = || Request::get("/chat/a").header("accept", "text/event-stream").body(()).unwrap();
    let mut first = Box::pin(app.clone().oneshot(request()));
    assert!(first.as_mut().now_or_never().is_none());
    drop(first);
    stage.advance(Duration::from_secs(5)).await;
    let second = tokio::spawn(app.clone().oneshot(request()));
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it waits for the handler that runs");
    go.notify_one();
    let seen = resilient_sse::test_util::collect(second.await.unwrap().unwrap().into_body()).await;
    assert_eq!(seen.names(), ["message", "message", "completed"]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    stage.verdict().await;
}

/// That time also counts against the limits: a handler that does not answer holds nobody up and does not run for ever.
#[tokio::test(start_paused = true)]
async fn g6_a_handler_that_nobody_waits_for_is_dropped_when_its_time_is_over() {
    let mut stage = Stage::new();
    let at_most = Duration::from_secs(60);
    let layer = stage.sse().generation().on_disconnect(resilient_sse::Disconnect::Detach { at_most });
    let (app, go, _) = first_waits(layer, || Err("never asked"));
    let mut first = Box::pin(app.clone().oneshot(Request::get("/chat/a").body(()).unwrap()));
    assert!(first.as_mut().now_or_never().is_none());
    drop(first);
    stage.advance(at_most - Duration::from_secs(1)).await;
    assert_eq!((Arc::strong_count(&go), stage.sse().health().active), (3, 1));
    stage.advance(Duration::from_secs(2)).await;
    assert_eq!((Arc::strong_count(&go), stage.sse().health().active), (2, 0), "the handler is gone");
    let key = resilient_sse::StreamKey::new(resilient_sse::Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let ended = stage.sse().completions().completion(&key).await.unwrap().unwrap();
    assert_eq!(ended.ending.reason, Some(resilient_sse::reason::DETACH_TIMEOUT));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g6_whoever_waits_too_long_for_an_answer_follows() {
    let stage = Stage::new();
    let (app, go, calls) = first_waits(stage.sse().generation(), || {
        Ok(crate::support::handlers::sse(Script::events(2).body(
            "-/a#1".into(),
            1,
            crate::support::handlers::Alive::new(&Arc::default()),
        )))
    });
    let request = || Request::get("/chat/a").header("accept", "text/event-stream").body(()).unwrap();
    let first = tokio::spawn(app.clone().oneshot(request()));
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    let second = app.clone().oneshot(request()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    go.notify_one();
    let first = tokio::spawn(resilient_sse::test_util::collect(first.await.unwrap().unwrap().into_body()));
    let second = resilient_sse::test_util::collect(second.into_body()).await;
    assert_eq!(first.await.unwrap().data(), second.data());
    assert_eq!((second.names().len(), calls.load(Ordering::SeqCst)), (3, 1));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g8_an_owner_has_so_many_streams_and_no_more() {
    let stage = Stage::new();
    let (script, gate) = Script::events(2).gated();
    let handler = Handler::plays(script);
    let app = app(stage.sse().generation().id(StreamId::path("/{id}")).max_streams(2), &handler);
    let mut clients: Vec<_> = (0..3).map(|n| stage.client(&app, &format!("/c{n}")).user("ada")).collect();
    assert_eq!(clients[0].connect().await, 200);
    assert_eq!(clients[1].connect().await, 200);
    assert_eq!(clients[2].connect().await, 429);
    assert_eq!(handler.calls(), 2);
    let request = Request::get("/c2").header("x-user", "ada").body(()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    // Other owners, followers and requests with a cursor are not counted.
    let mut other = stage.client(&app, "/c0").user("bob");
    assert_eq!(other.connect().await, 200);
    let mut follower = stage.client(&app, "/c0").user("ada");
    assert_eq!(follower.connect().await, 200);
    assert_eq!(clients[2].connect_with(Some("junk"), Cursor::Foreign).await, 200);
    gate.send_replace(3);
    let [first, second, third] = &mut clients[..] else { unreachable!() };
    tokio::join!(first.read_to_end(), second.read_to_end(), third.read_to_end());
    tokio::join!(other.read_to_end(), follower.read_to_end());
    // Ended streams do not count.
    let mut fourth = stage.client(&app, "/c4").user("ada");
    fourth.finish().await;
    fourth.has_all(2).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g4_another_request_under_the_same_name_is_refused() {
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(3));
    let print = |parts: &http::request::Parts| Some(parts.headers.get("x-ask")?.to_str().ok()?.to_owned());
    let key = HeaderName::from_static("idempotency-key");
    let app = app(stage.sse().generation().id(StreamId::header(key.clone())).fingerprint(print), &handler);
    let client = |ask: &'static str| {
        let mut client = stage.client(&app, "/a");
        client.method = Method::POST;
        client.headers.insert(key.clone(), "a".parse().unwrap());
        client.headers.insert("x-ask", ask.parse().unwrap());
        client
    };
    let mut first = client("one");
    first.connect().await;
    first.read(1).await;
    let mut same = client("one");
    assert_eq!(same.connect().await, 200);
    assert_eq!(client("two").connect().await, 422);
    tokio::join!(first.read_to_end(), same.read_to_end());
    // The same holds once the stream has ended, and with a cursor, since no reconnect can repair it.
    assert_eq!(client("two").connect().await, 422);
    let cursor = first.witness.cursor().unwrap();
    assert_eq!(client("two").connect_with(Some(&cursor), Cursor::Own).await, 422);
    same.has_all(3).await;
    assert_eq!(handler.calls(), 1);
    stage.verdict().await;
}

/// A node that drains answers from the stream that it holds, and that stream is another request's.
#[tokio::test(start_paused = true)]
async fn g4_another_request_under_the_same_name_is_refused_while_draining_too() {
    for ended in [false, true] {
        let mut stage = Stage::nodes(2, |hub| hub);
        let handler = Handler::plays(Script::events(3).then(if ended { Finish::Eof } else { Finish::Never }));
        let print = |parts: &http::request::Parts| Some(parts.headers.get("x-ask")?.to_str().ok()?.to_owned());
        let apps = [0, 1].map(|node: usize| {
            let layer = stage.hubs[node].sse.generation().id(StreamId::path("/{id}"));
            app(layer.fingerprint(print), &handler)
        });
        let client = |node: usize, ask: &str| {
            let mut client = stage.client(&apps[node], "/a");
            client.headers.insert("x-ask", ask.parse().unwrap());
            client
        };
        let (mut first, mut another, mut same) = (client(1, "one"), client(0, "two"), client(0, "one"));
        first.connect().await;
        first.read(3).await;
        stage.hubs[0].shut_down_on(std::future::ready(()));
        stage.step().await;
        assert!(stage.hubs[0].sse.health().draining);
        assert_eq!(another.connect().await, 422, "ended: {ended}");
        let cursor = first.witness.cursor().unwrap();
        assert_eq!(another.connect_with(Some(&cursor), Cursor::Own).await, 422, "ended: {ended}");
        assert_eq!(same.connect().await, 200);
        assert_eq!(handler.calls(), 1);
        first.leave();
        same.leave();
        stage.sse().streams().stop(&first.key().owner, &first.key().id).await.unwrap();
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g9_names_keep_to_their_rule() {
    let stage = Stage::new();
    let handler = Handler::events(1);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let long = format!("/chat/{}", "a".repeat(128));
    let mut client = stage.client(&app, &long);
    client.finish().await;
    client.has_all(1).await;
    let (store_calls, calls) = (stage.store.stream_calls(), handler.calls());
    for bad in
        [format!("{long}a"), "/chat/a%0d%0aX:y".into(), "/chat/a%20b".into(), "/chat/a:b".into(), "/chat/a@b".into()]
    {
        for cursor in [None, Some("e1700000000000-1")] {
            let mut client = stage.client(&app, &bad);
            assert_eq!(client.connect_with(cursor, Cursor::Foreign).await, 400, "{bad}");
        }
    }
    assert_eq!((stage.store.stream_calls(), handler.calls()), (store_calls, calls));
    assert_eq!(stage.sse().health().rejected, 10);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g9_another_owner_s_stream_is_another_stream() {
    let stage = Stage::new();
    let handler = Handler::plays(Script::events(3).then(Finish::Event("completed")));
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut ada = stage.client(&app, "/chat/a").user("ada");
    let mut bob = stage.client(&app, "/chat/a").user("bob");
    ada.cut(1).await;
    bob.cut(2).await;
    ada.finish().await;
    bob.finish().await;
    ada.has_all(3).await;
    bob.has_all(3).await;
    assert_eq!(handler.calls(), 2);
    stage.verdict().await;
}
