//! G5: a stream whose node died is found in time, handled once, and ends like its job.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use resilient_sse::{
    BoxError, Builder, Disconnect, Event, JobStatus, StreamId, StreamInfo, StreamState, test_util::Fault,
};

use crate::{
    client::Client,
    stage::Stage,
    support::handlers::{App, Handler, Script, app},
};

const STALE: Duration = Duration::from_secs(30);
const SWEEP: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// Three nodes. The first one dies with a stream of two events. The app is the second node's.
async fn node_dies(disconnect: Disconnect, setup: impl Fn(Builder) -> Builder) -> (Stage, App, Handler, Client) {
    let mut stage = Stage::nodes(3, setup);
    let (script, gate) = Script::events(5).gated();
    gate.send_replace(2);
    let handler = Handler::new(move |call| {
        let _open = &gate;
        call.context.as_ref().unwrap().metadata("job", "7").unwrap();
        call.stream(&script)
    });
    let layer = |node: usize| stage.hubs[node].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
    let apps = [app(layer(0), &handler), app(layer(1), &handler)];
    stage.advance(STALE + SWEEP).await;
    let mut client = stage.client(&apps[0], "/a");
    client.connect().await;
    client.read(2).await;
    stage.advance(SECOND).await;
    client.dies_with_its_node();
    stage.hubs.remove(0);
    let [_, second] = apps;
    client.app = second.clone();
    (stage, second, handler, client)
}

#[tokio::test(start_paused = true)]
async fn g5_an_orphan_is_found_in_time_by_one_guardian_and_followers_see_it_at_once() {
    for disconnect in [Disconnect::DETACH, Disconnect::Cancel] {
        let (mut stage, _, handler, mut client) = node_dies(disconnect, |hub| hub).await;
        client.connect().await;
        stage.advance(STALE - SECOND * 12).await;
        assert_eq!(stage.state(&client).await, Some(StreamState::Active), "it may still live");
        let mut waited = STALE - SECOND * 12;
        while client.read_ready().await == 0 {
            stage.advance(SECOND).await;
            waited += SECOND;
            assert!(waited <= STALE + SWEEP, "not found in time");
        }
        client.read_to_end().await;
        assert_eq!(client.witness.names.last().unwrap(), "orphaned");
        assert_eq!(client.witness.data.last().unwrap(), r#"{"reason":"node_lost"}"#);
        let closed: Vec<_> = stage.hubs.iter().map(|hub| hub.sse.health().orphaned).collect();
        assert_eq!(closed.iter().sum::<u64>(), 1, "{closed:?}");
        assert_eq!(handler.calls(), 1);
        stage.verdict().await;
    }
}

/// A sweep whose reply is lost has leased the streams that it found, but not for longer than necessary. Without a job
/// probe that is the stale threshold, however long a probe could take.
#[tokio::test(start_paused = true)]
async fn g5_a_lost_reply_to_a_sweep_delays_no_orphan_for_longer_than_the_threshold() {
    let (mut stage, _, _, mut client) = node_dies(Disconnect::DETACH, |hub| hub.probe_limit(SECOND * 200)).await;
    client.connect().await;
    stage.store.fail_on("due", Fault::LoseReply);
    stage.advance(STALE + SWEEP).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active), "found, and nobody knows");
    stage.store.heal();
    stage.advance(STALE + SWEEP).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Orphaned));
    client.read_to_end().await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_an_interruptible_orphan_is_interrupted_and_its_followers_are_admitted_anew() {
    let (mut stage, _, handler, mut client) = node_dies(Disconnect::Interrupt, |hub| hub).await;
    client.connect().await;
    stage.advance(STALE + SWEEP).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Interrupted));
    client.read_to_end().await;
    assert_eq!((client.witness.data.len(), client.witness.ended), (2, None));
    assert_eq!(handler.calls(), 1);
    client.connect().await;
    client.read(2).await;
    assert_eq!((handler.calls(), client.witness.restarts), (2, 1));
    client.leave();
    assert_eq!(stage.hubs.iter().map(|hub| hub.sse.health().orphaned).sum::<u64>(), 0);
    stage.verdict().await;
}

type Answer = fn(u64) -> Result<JobStatus, BoxError>;

/// Returns how an orphan ends whose probe answers like this, and how often the probe was asked within ten minutes.
async fn probed(answer: Answer) -> (Stage, Client, u64) {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let (mut stage, _, handler, mut client) = node_dies(Disconnect::DETACH, move |hub| {
        let counter = Arc::clone(&counter);
        hub.job_probe(move |stream: StreamInfo| {
            assert_eq!(stream.metadata, [("job".to_owned(), "7".to_owned())]);
            let asked = counter.fetch_add(1, Ordering::SeqCst) + 1;
            async move { answer(asked) }
        })
    })
    .await;
    client.connect().await;
    stage.advance(SECOND * 280).await;
    assert_eq!(handler.calls(), 1);
    (stage, client, asked.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn g5_the_answer_of_a_job_that_is_done_is_stored() {
    for (answer, state) in [
        ((|_| Ok(JobStatus::Completed(Event::new("42").named("done")))) as Answer, StreamState::Completed),
        (|_| Ok(JobStatus::Failed(Event::new("42").named("done"))), StreamState::Failed),
    ] {
        let (stage, mut client, asked) = probed(answer).await;
        assert_eq!(asked, 1, "one guardian, once");
        client.read_to_end().await;
        assert_eq!(stage.state(&client).await, Some(state));
        assert_eq!(
            (client.witness.names.last().unwrap().as_str(), client.witness.data.last().unwrap().as_str()),
            ("done", "42")
        );
        assert_eq!(client.connect().await, 204);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_job_that_nobody_knows_is_an_orphan() {
    let (stage, mut client, asked) = probed(|_| Ok(JobStatus::Unknown)).await;
    assert_eq!(asked, 1);
    client.read_to_end().await;
    assert_eq!(client.witness.names.last().unwrap(), "orphaned");
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_job_that_runs_is_asked_after_again() {
    let (stage, mut client, asked) = probed(|asked| match asked {
        ..4 => Ok(JobStatus::Running),
        _ => Ok(JobStatus::Completed(Event::new("42").named("done"))),
    })
    .await;
    assert_eq!(asked, 4);
    client.read_to_end().await;
    assert_eq!(client.witness.names.last().unwrap(), "done");
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_job_that_runs_for_longer_than_its_stream_s_lifetime_expires_it() {
    let (mut stage, mut client, _) = probed(|_| Ok(JobStatus::Running)).await;
    stage.advance(SECOND * 400).await;
    client.read_to_end().await;
    assert_eq!(client.witness.names.last().unwrap(), "expired");
    assert_eq!(client.witness.data.last().unwrap(), r#"{"reason":"lifetime"}"#);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_probe_that_fails_or_panics_counts_as_running_for_three_sweeps() {
    for answer in [(|_| Err("the job service is away".into())) as Answer, |_| panic!("as the test wants it")] {
        let (stage, mut client, asked) = probed(answer).await;
        client.read_to_end().await;
        assert_eq!(client.witness.names.last().unwrap(), "orphaned");
        assert!((4..=7).contains(&asked), "by two guardians, of which each counts for itself: {asked}");
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_probe_that_hangs_holds_nobody_up() {
    let (mut stage, app, _, mut client) =
        node_dies(Disconnect::DETACH, |hub| hub.job_probe(|_| pending::<JobStatus>())).await;
    stage.advance(STALE + SWEEP).await;
    // The guardian still beats for a stream of its own, and the probe's time runs out.
    let mut own = stage.client(&app, "/own");
    own.connect().await;
    own.read(2).await;
    stage.advance(SECOND * 240).await;
    assert_eq!(stage.state(&own).await, Some(StreamState::Active));
    client.finish().await;
    assert_eq!(client.witness.names.last().unwrap(), "orphaned");
    stage.sse().streams().stop(&own.key().owner, &own.key().id).await.unwrap();
    own.read_to_end().await;
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_thousand_orphans_are_found_together() {
    let mut stage = Stage::nodes(2, |hub| hub);
    let (script, _gate) = Script::events(1).gated();
    let handler = Handler::plays(script);
    let app = app(stage.sse().generation().id(StreamId::path("/{id}")), &handler);
    stage.advance(STALE + SWEEP).await;
    for n in 0..1000 {
        let mut client = stage.client(&app, &format!("/c{n}"));
        client.connect().await;
        client.dies_with_its_node();
    }
    stage.hubs.remove(0);
    stage.advance(STALE + SWEEP).await;
    assert_eq!(stage.sse().health().orphaned, 1000);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_registration_whose_producer_never_began() {
    // The node died between `open` and the handler's answer. Requests do not wait for it for long.
    let mut stage = Stage::nodes(2, |hub| hub);
    let never = Handler::events(1);
    let blocked = crate::support::handlers::blocked(stage.hubs[0].sse.generation().id(StreamId::path("/{id}")));
    stage.advance(STALE + SWEEP).await;
    let mut first = stage.client(&blocked, "/a");
    first.dies_waiting();
    stage.hubs.remove(0);
    let app = app(stage.sse().generation().id(StreamId::path("/{id}")), &never);
    let mut second = stage.client(&app, "/a");
    second.connect().await;
    stage.advance(STALE + SWEEP).await;
    second.read_to_end().await;
    assert_eq!(second.witness.names, ["orphaned"]);
    stage.verdict().await;
}
