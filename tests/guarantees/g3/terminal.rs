//! G3: the terminal event is stored before it is sent, held for the window, and handed to `on_end`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{
    BoxError, EndedStream, MemoryStore, ResilientSse, StreamId, StreamState,
    test_util::{Fault, FaultStore},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    stage::Stage,
    support::handlers::{Finish, Handler, Script, app},
};

const WINDOW: Duration = Duration::from_secs(300);

/// Asks the recovery service.
pub(crate) async fn recovered(sse: &ResilientSse, id: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("/chat/{id}/recover")).body(()).unwrap();
    let response = sse.recover().oneshot(request).await.unwrap();
    let status = response.status();
    let body: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test(start_paused = true)]
async fn g3_the_terminal_event_is_stored_before_it_is_sent() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let mut stage = Stage::on(store, 1, |hub| hub);
    let handler = Handler::events(3);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    client.read(3).await;
    stage.step().await;
    stage.store.fail_on("close", Fault::Refuse);
    tokio::time::advance(Duration::from_millis(20)).await;
    let began = tokio::time::Instant::now();
    for _ in 0..7 {
        assert_eq!(client.read_ready().await, 0, "not stored yet");
        stage.advance(Duration::from_millis(250)).await;
    }
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    // The terminal event waits for two seconds, no longer.
    client.read_to_end().await;
    assert!(began.elapsed() <= Duration::from_millis(2100), "{:?}", began.elapsed());
    assert!(client.witness.ended.is_some());
    // The close is repeated until it is stored.
    stage.store.heal();
    stage.advance(Duration::from_secs(3)).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Completed));
    client.has_all(3).await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_the_end_is_recoverable_for_the_window_and_then_nothing_is_left() {
    let mut stage = Stage::new();
    let handler = Handler::events(3);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    client.read(1).await;
    let (status, body) = recovered(stage.sse(), "a").await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("active")));
    assert_eq!(body["events"].as_array().unwrap().len(), 1);
    client.read_to_end().await;
    stage.advance(WINDOW - Duration::from_secs(1)).await;
    let (status, body) = recovered(stage.sse(), "a").await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("completed")));
    assert_eq!((&body["terminalEventType"], &body["terminalEventData"]), (&json!("completed"), &json!("-/a#1:end")));
    client.has_all(3).await;
    stage.advance(Duration::from_secs(1)).await;
    let (status, body) = recovered(stage.sse(), "a").await;
    assert_eq!((status, body), (StatusCode::NOT_FOUND, json!({"status": "not_found"})));
    stage.advance(Duration::from_secs(30)).await;
    assert!(stage.store.inner().is_empty());
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_the_node_dies_right_after_the_end() {
    let mut stage = Stage::nodes(2, |hub| hub);
    let handler = Handler::events(10);
    let apps: Vec<_> =
        stage.hubs.iter().map(|hub| app(hub.sse.generation().id(StreamId::path("/chat/{id}")), &handler)).collect();
    let mut client = stage.client(&apps[0], "/chat/a");
    client.cut(4).await;
    stage.advance(Duration::from_secs(1)).await;
    stage.hubs.remove(0);
    client.app = apps[1].clone();
    client.finish().await;
    client.has_all(10).await;
    assert_eq!(recovered(stage.sse(), "a").await.1["status"], "completed");
    stage.verdict().await;
}

/// State, events and terminal data.
type Answer = (String, Vec<String>, Option<String>);

/// Counts the runs of an `on_end` hook, and keeps its results.
#[derive(Clone, Default)]
struct Saved {
    runs: Arc<AtomicU64>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Saved {
    /// How often the hook fails before it saves.
    async fn save(self, stream: EndedStream, failures: u64) -> Result<(), BoxError> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        if run == 1 && failures > 1 {
            panic!("the hook panics, as the test wants it");
        }
        if run <= failures {
            return Err("the database is away".into());
        }
        let events = stream.events().await?;
        let state = stream.ended().ending.state.to_string();
        self.answers.lock().unwrap().push((state, events, stream.terminal_data()));
        Ok(())
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }
}

fn hooked(nodes: usize, saved: &Saved, failures: u64) -> Stage {
    Stage::nodes(nodes, |hub| {
        let saved = saved.clone();
        hub.on_end(move |stream| saved.clone().save(stream, failures))
    })
}

#[tokio::test(start_paused = true)]
async fn g3_on_end_runs_until_it_is_acknowledged() {
    for failures in 0..=3 {
        let saved = Saved::default();
        let mut stage = hooked(2, &saved, failures);
        let handler = Handler::events(2);
        let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
        let mut client = stage.client(&app, "/chat/a");
        client.finish().await;
        stage.step().await;
        assert_eq!(saved.runs(), 1, "at once");
        stage.advance(Duration::from_secs(250)).await;
        assert_eq!(saved.runs(), failures + 1, "until it is acknowledged, and not again");
        let events = vec!["-/a#1:1".to_owned(), "-/a#1:2".to_owned()];
        let expected = [("completed".to_owned(), events, Some("-/a#1:end".to_owned()))];
        assert_eq!(*saved.answers.lock().unwrap(), expected);
        stage.verdict().await;
        assert_eq!(saved.runs(), failures + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn g3_on_end_that_never_succeeds_ends_with_the_window() {
    let saved = Saved::default();
    let stage = hooked(1, &saved, u64::MAX);
    let handler = Handler::events(2);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    stage.client(&app, "/chat/a").finish().await;
    stage.verdict().await;
    assert!(saved.runs() >= 5, "{}", saved.runs());
}

#[tokio::test(start_paused = true)]
async fn g3_on_end_runs_on_another_node_where_the_first_died() {
    let saved = Saved::default();
    let mut stage = Stage::nodes(1, |hub| {
        // The process dies in the hook.
        hub.on_end(|_| std::future::pending::<()>())
    });
    let second = saved.clone();
    stage.add(move |hub| {
        let saved = second.clone();
        hub.on_end(move |stream| saved.clone().save(stream, 0))
    });
    let handler = Handler::events(2);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    stage.client(&app, "/chat/a").finish().await;
    stage.step().await;
    stage.hubs.remove(0);
    stage.advance(Duration::from_secs(61)).await;
    assert_eq!(saved.runs(), 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_on_end_runs_for_every_kind_of_end() {
    let saved = Saved::default();
    let mut stage = hooked(1, &saved, 0);
    let (script, _gate) = Script::events(2).gated();
    let handler = Handler::plays(script);
    let app = app(stage.sse().generation().id(StreamId::path("/chat/{id}")), &handler);
    let mut client = stage.client(&app, "/chat/a");
    client.connect().await;
    stage.sse().streams().stop(&client.key().owner, &client.key().id).await.unwrap();
    stage.step().await;
    assert_eq!(saved.answers.lock().unwrap().clone(), [("cancelled".to_owned(), vec![], None)]);
    client.read_to_end().await;
    assert_eq!(handler.alive(), 0);
    stage.verdict().await;
    assert_eq!(saved.runs(), 1);
}

/// The stream is stopped first, so that its answer is not lost silently.
#[tokio::test(start_paused = true)]
async fn g3_on_end_runs_for_a_stream_that_is_deleted_while_it_runs() {
    for (producer, deleting) in [(0, 0), (0, 1)] {
        let saved = Saved::default();
        let mut stage = hooked(2, &saved, 0);
        let handler = Handler::plays(Script::events(2).then(Finish::Never));
        let layer = stage.hubs[producer].sse.generation().id(StreamId::path("/chat/{id}"));
        let app = app(layer, &handler);
        let mut client = stage.client(&app, "/chat/a");
        client.connect().await;
        client.read(2).await;
        stage.hubs[deleting].sse.registry().delete(client.key()).await.unwrap();
        stage.advance(Duration::from_secs(61)).await;
        assert_eq!(handler.alive(), 0);
        let states: Vec<_> = saved.answers.lock().unwrap().iter().map(|(state, ..)| state.clone()).collect();
        assert_eq!(states, ["cancelled"], "deleted on node {deleting}");
        assert_eq!(stage.state(&client).await, None);
        client.leave();
        stage.verdict().await;
        assert_eq!(saved.runs(), 1);
    }
}
