//! G5: a process that drains.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{Builder, Disconnect, DrainReport, Event, JobStatus, StreamId, StreamState};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    client::Client,
    stage::Stage,
    support::{
        checker::Cursor,
        handlers::{App, Handler, Script, app},
    },
};

const SECOND: Duration = Duration::from_secs(1);

struct Drain {
    stage: Stage,
    apps: [App; 2],
    handler: Handler,
    gate: watch::Sender<u64>,
    client: Client,
}

/// The first of two nodes drains, while its client has read two of five events.
async fn drain(disconnect: Disconnect, setup: impl Fn(Builder) -> Builder) -> Drain {
    let mut stage = Stage::nodes(2, setup);
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let apps = [0, 1].map(|node: usize| {
        let layer = stage.hubs[node].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
        app(layer, &handler)
    });
    let mut client = stage.client(&apps[0], "/a");
    client.connect().await;
    gate.send_replace(2);
    client.read(2).await;
    stage.hubs[0].shut_down_on(std::future::ready(()));
    stage.step().await;
    assert!(stage.hubs[0].sse.health().draining);
    Drain { stage, apps, handler, gate, client }
}

impl Drain {
    fn report(&self) -> DrainReport {
        self.stage.hubs[0].report().expect("it is down")
    }

    fn counts(&self) -> (usize, usize, usize, usize, usize) {
        let report = self.report();
        assert_eq!(report.unrecorded_bytes, 0);
        (report.running, report.finished, report.interrupted, report.closed, report.unsettled)
    }
}

#[tokio::test(start_paused = true)]
async fn g5_drain_lets_clients_of_detachable_streams_go_and_finishes_the_work() {
    let mut d = drain(Disconnect::DETACH, |hub| hub).await;
    assert_eq!(d.client.read_to_end().await, 0, "let go at once, without a terminal event");
    assert_eq!((d.client.witness.ended, d.handler.alive()), (None, 1));
    d.client.app = d.apps[1].clone();
    d.client.connect().await;
    d.gate.send_replace(6);
    d.client.read_to_end().await;
    d.client.has_all(5).await;
    d.stage.step().await;
    assert_eq!(d.counts(), (1, 1, 0, 0, 0));
    assert_eq!(d.handler.calls(), 1);
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_refuses_new_work_and_still_tells_what_has_ended() {
    let mut d = drain(Disconnect::DETACH, |hub| hub).await;
    // A request for new work gets 200, `retry:` and the end, even if the stream runs here.
    for uri in ["/new", "/a"] {
        let mut client = d.stage.client(&d.apps[0], uri);
        assert_eq!(client.connect().await, StatusCode::OK);
        assert_eq!(client.read_to_end().await, 0);
    }
    let unnamed = app(d.stage.sse().generation(), &d.handler);
    let mut client = d.stage.client(&unnamed, "/").unnamed();
    client.connect_with(Some("junk"), Cursor::Foreign).await;
    assert_eq!(client.read_to_end().await, 0);
    assert_eq!(d.handler.calls(), 1, "whose answer would be a stream for certain is not run at all");
    let any = http::Request::get("/").header("accept", "*/*").body(()).expect("a request");
    let answer = unnamed.clone().oneshot(any).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(d.handler.calls(), 2, "any other is run to learn what it answers, and dropped");
    let events = http::Request::get("/").header("accept", "text/event-stream").body(()).expect("a request");
    let answer = unnamed.clone().oneshot(events).await.expect("an answer");
    let told = resilient_sse::test_util::collect(answer.into_body()).await;
    assert!(told.retry.is_some() && told.events.is_empty());
    assert_eq!(d.handler.calls(), 2, "whose answer would be a stream for certain is not run at all");
    assert_eq!((d.handler.alive(), d.stage.store.inner().len()), (1, 1));
    d.client.read_to_end().await;
    d.gate.send_replace(6);
    d.stage.step().await;
    d.client.finish().await;
    d.client.has_all(5).await;
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_fails_work_that_is_not_done_in_time() {
    let mut d = drain(Disconnect::DETACH, |hub| hub).await;
    d.client.read_to_end().await;
    d.stage.advance(SECOND * 24).await;
    assert_eq!((d.handler.alive(), d.stage.hubs[0].report()), (1, None));
    d.stage.advance(SECOND * 2).await;
    assert_eq!((d.handler.alive(), d.counts()), (0, (1, 0, 0, 1, 0)));
    d.client.app = d.apps[1].clone();
    d.client.finish().await;
    assert_eq!(d.client.witness.names, ["message", "message", "failed"]);
    assert_eq!(d.client.witness.data[2], r#"{"reason":"shutdown"}"#);
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_asks_the_probe_for_work_that_is_not_done_in_time() {
    let done = || JobStatus::Completed(Event::new("42").named("done"));
    let mut d = drain(Disconnect::DETACH, move |hub| hub.job_probe(move |_| async move { done() })).await;
    d.client.read_to_end().await;
    d.stage.advance(SECOND * 26).await;
    assert_eq!((d.handler.alive(), d.counts()), (0, (1, 0, 0, 1, 0)));
    d.client.app = d.apps[1].clone();
    d.client.finish().await;
    assert_eq!(d.client.witness.names, ["message", "message", "done"]);
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_leaves_a_job_that_runs_elsewhere_to_another_node() {
    let mut d = drain(Disconnect::DETACH, |hub| hub.job_probe(|_| async { JobStatus::Running })).await;
    d.client.read_to_end().await;
    d.stage.advance(SECOND * 26).await;
    assert_eq!((d.report().left, d.counts()), (1, (1, 0, 0, 0, 0)));
    assert_eq!(d.handler.alive(), 0, "the process is down: its body is gone");
    assert_eq!(d.stage.state(&d.client).await, Some(StreamState::Active));
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_interrupts_what_may_run_again() {
    let mut d = drain(Disconnect::Interrupt, |hub| hub).await;
    d.gate.send_replace(3);
    assert_eq!(d.client.read_ready().await, 1, "its client is served on");
    d.stage.advance(SECOND * 26).await;
    d.client.read_to_end().await;
    assert_eq!((d.client.witness.ended, d.handler.alive()), (None, 0));
    assert_eq!(d.counts(), (1, 0, 1, 0, 0));
    assert_eq!(d.stage.state(&d.client).await, Some(StreamState::Interrupted));
    d.client.app = d.apps[1].clone();
    d.gate.send_replace(6);
    d.client.finish().await;
    assert_eq!((d.handler.calls(), d.client.witness.restarts), (2, 1));
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_fails_what_may_not_run_again_though_it_ends_with_its_client() {
    let mut d = drain(Disconnect::Cancel, |hub| hub).await;
    d.stage.advance(SECOND * 26).await;
    d.client.read_to_end().await;
    assert_eq!((d.handler.alive(), d.counts()), (0, (1, 0, 0, 1, 0)));
    if d.client.witness.ended.is_none() {
        d.client.app = d.apps[1].clone();
        d.client.finish().await;
    }
    assert_eq!(d.client.witness.names, ["message", "message", "failed"]);
    assert_eq!(d.handler.calls(), 1, "never run twice");
    d.stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_drain_of_an_idle_node_is_over_at_once() {
    let mut stage = Stage::new();
    stage.hubs[0].shut_down_on(std::future::ready(()));
    stage.step().await;
    assert_eq!(stage.hubs[0].report(), Some(DrainReport::default()));
}

#[tokio::test(start_paused = true)]
async fn g5_drain_lets_followers_go() {
    let mut stage = Stage::nodes(2, |hub| hub);
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let apps = [0, 1].map(|node: usize| app(stage.hubs[node].sse.generation().id(StreamId::path("/{id}")), &handler));
    let mut producer = stage.client(&apps[0], "/a");
    let mut follower = stage.client(&apps[1], "/a");
    producer.connect().await;
    gate.send_replace(2);
    producer.read(2).await;
    follower.connect().await;
    follower.read(2).await;
    stage.hubs[1].shut_down_on(std::future::ready(()));
    stage.step().await;
    assert_eq!(follower.read_to_end().await, 0);
    follower.app = apps[0].clone();
    follower.connect().await;
    gate.send_replace(6);
    tokio::join!(producer.read_to_end(), follower.read_to_end());
    follower.has_all(5).await;
    stage.verdict().await;
}
