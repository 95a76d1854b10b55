//! A stop stops the stream that it names, and nothing else.

use http::{Method, Request, StatusCode};
use resilient_sse::{StreamId, StreamState};

use crate::{
    conversations::stage::{SECOND, Stage, ada, endless, turn},
    support::handlers::Waiting,
};

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_running_stream_from_any_node() {
    for node in [0, 1] {
        for query in [false, true] {
            let mut stage = Stage::nodes(2);
            let mut asked = turn(&stage.chat(0, &endless())).await;
            asked.read(2).await;
            let query = if query { format!("?stream={}", asked.id()) } else { String::new() };
            assert_eq!(stage.stop(node, &query).await, StatusCode::ACCEPTED);
            stage.advance(SECOND).await;
            assert_eq!(stage.stands(&asked.id()).await, (StreamState::Cancelled, "stopped".to_owned()));
            assert_eq!(stage.stop(node, &query).await, StatusCode::NOT_FOUND, "none runs");
            assert!(asked.whole().await.ended);
            let current = stage.sse(node).streams().current(&ada(), &StreamId::new("c").unwrap()).await.unwrap();
            assert_eq!(current.unwrap().state, StreamState::Cancelled);
            stage.verdict().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_stop_is_harmless() {
    let mut stage = Stage::nodes(2);
    assert_eq!(stage.stop(0, "").await, StatusCode::NOT_FOUND);
    let handler = endless();
    let chat = stage.chat(0, &handler);
    let mut old = turn(&chat).await;
    old.read(1).await;
    let mut new = turn(&chat).await;
    new.read(1).await;
    stage.advance(SECOND).await;
    for query in [old.id(), "no-such".to_owned(), "a%20b".to_owned(), String::new()] {
        assert_eq!(stage.stop(1, &format!("?stream={query}")).await, StatusCode::NOT_FOUND, "{query}");
    }
    stage.advance(SECOND).await;
    assert_eq!((stage.running().await, stage.pointer().await), (vec![new.id()], vec![new.id()]));
    new.read(2).await;
    drop((old, new));
    stage.verdict().await;
}

/// A turn that has not begun does not replace the turn before it yet, so a stop means both.
#[tokio::test(start_paused = true)]
async fn a_stop_before_the_next_turn_has_begun() {
    for only_old in [false, true] {
        let mut stage = Stage::nodes(1);
        let mut old = turn(&stage.chat(0, &endless())).await;
        old.read(1).await;
        let waits = Waiting::default();
        let pending = waits.behind(stage.sse(0).generation().conversation(StreamId::path("/chat/{id}")));
        let pending = tokio::spawn(async move { turn(&pending).await.whole().await });
        stage.advance(SECOND).await;
        let query = if only_old { format!("?stream={}", old.id()) } else { String::new() };
        assert_eq!(stage.stop(0, &query).await, StatusCode::ACCEPTED);
        stage.advance(SECOND).await;
        assert_eq!(stage.stands(&old.id()).await.1, "stopped");
        assert_eq!(waits.is_stopped(), !only_old);
        if only_old {
            pending.abort();
        } else {
            assert_eq!(pending.await.unwrap().names(), ["cancelled"]);
        }
        drop(old);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_delete_and_post() {
    let stage = Stage::nodes(1);
    let ask = async |method: Method| {
        let asked = turn(&stage.chat(0, &endless())).await;
        let request = Request::builder().method(method).uri("/chat/c/stream").body(()).unwrap();
        let stop = stage.sse(0).stop().conversation(StreamId::path("/chat/{id}/stream"));
        let response = tower::ServiceExt::oneshot(stop, request).await.unwrap();
        let named = response.headers().get("x-stream-id").map(|id| id.to_str().unwrap() == asked.id());
        let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
        (response.status().as_u16(), named, allow)
    };
    let methods = Some("DELETE, POST, OPTIONS".to_owned());
    assert_eq!(ask(Method::DELETE).await, (202, Some(true), None));
    assert_eq!(ask(Method::POST).await, (202, Some(true), None));
    assert_eq!(ask(Method::OPTIONS).await, (204, None, methods.clone()));
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        assert_eq!(ask(method).await, (405, None, methods.clone()));
    }
    stage.verdict().await;
}

/// The store has lost everything. A stream of this node is stopped, and another node does not claim that nothing runs.
#[tokio::test(start_paused = true)]
async fn a_stop_after_the_store_was_emptied() {
    let mut stage = Stage::nodes(2);
    let mut asked = turn(&stage.chat(0, &endless())).await;
    asked.read(2).await;
    stage.advance(12 * SECOND).await;
    stage.hubs[0].store.forget();
    assert_eq!(stage.stop(1, "").await, StatusCode::SERVICE_UNAVAILABLE, "it may be about to register again");
    assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
    stage.advance(10 * SECOND).await;
    assert_eq!(stage.running().await.len(), 0);
    assert_eq!(asked.whole().await.names().last(), Some(&"cancelled"));
    stage.verdict().await;
}

/// One of two streams cannot be stopped: the answer names the one that was stopped.
#[tokio::test(start_paused = true)]
async fn a_stop_that_is_denied_for_one_stream_stops_the_other() {
    let mut stage = Stage::with(1, |hub| {
        hub.authorize(|access| async move { access.method != Method::DELETE || access.key.id.as_str() != "new" })
    });
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    let key = StreamId::header(http::HeaderName::from_static("idempotency-key")).or_generate();
    let layer = stage.sse(0).layer().id(key).conversation(StreamId::path("/chat/{id}"));
    let waits = Waiting::default();
    let pending = waits.behind(layer);
    let mut request = crate::conversations::stage::post("/chat/c");
    request.headers_mut().insert("idempotency-key", "new".parse().unwrap());
    let pending = tokio::spawn(async move { crate::conversations::stage::send(&pending, request).await });
    stage.advance(SECOND).await;
    assert_eq!(stage.stop(0, "").await, StatusCode::ACCEPTED);
    stage.advance(SECOND).await;
    assert_eq!(stage.stands(&old.id()).await.1, "stopped");
    assert!(!waits.is_stopped());
    pending.abort();
    drop(old);
    stage.verdict().await;
}
