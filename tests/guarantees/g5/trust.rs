//! G5: no live stream is taken for an orphan.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{Disconnect, StreamId, StreamState, test_util::Fault};
use tokio::sync::watch;

use crate::{
    client::Client,
    stage::Stage,
    support::handlers::{App, Handler, Script, app},
};

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes that trust the store, and a stream of the first node that has sent two of five events.
async fn live(disconnect: Disconnect) -> (Stage, [App; 2], Client, watch::Sender<u64>) {
    live_on(Stage::nodes(2, |hub| hub), disconnect).await
}

async fn live_on(mut stage: Stage, disconnect: Disconnect) -> (Stage, [App; 2], Client, watch::Sender<u64>) {
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let apps = [0, 1].map(|node: usize| {
        let layer = stage.hubs[node].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
        app(layer, &handler)
    });
    stage.advance(SECOND * 60).await;
    assert!(stage.hubs.iter().all(|hub| !hub.sse.health().frozen));
    let mut client = stage.client(&apps[0], "/a");
    client.connect().await;
    gate.send_replace(2);
    client.read(2).await;
    (stage, apps, client, gate)
}

/// The stream lives, and its client gets all of it.
async fn lives_on(mut stage: Stage, mut client: Client, gate: &watch::Sender<u64>) {
    stage.advance(SECOND * 120).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    gate.send_replace(6);
    client.read_to_end().await;
    client.has_all(5).await;
    assert!(stage.hubs.iter().all(|hub| hub.sse.health().orphaned == 0));
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_guardian_whose_beats_fail_claims_nothing() {
    for fault in [Fault::Refuse, Fault::Hang, Fault::LoseReply, Fault::Delay(SECOND * 20)] {
        let (mut stage, _, client, gate) = live(Disconnect::Cancel).await;
        stage.store.fail_on("beat", fault);
        stage.advance(SECOND * 120).await;
        assert!(stage.hubs.iter().all(|hub| hub.sse.health().frozen), "{fault:?}");
        assert_eq!(stage.state(&client).await, Some(StreamState::Active), "{fault:?}");
        // The node's own beats land again. Every other living node gets a whole threshold to beat.
        stage.store.heal();
        stage.advance_only(&[1], SECOND * 29).await;
        assert_eq!(stage.state(&client).await, Some(StreamState::Active), "{fault:?}");
        lives_on(stage, client, &gate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_store_that_was_hung_for_minutes_makes_no_orphans() {
    let (mut stage, _, client, gate) = live(Disconnect::Cancel).await;
    stage.store.fail(Fault::Hang);
    stage.advance(SECOND * 180).await;
    stage.store.heal();
    stage.advance_only(&[1], SECOND * 29).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    lives_on(stage, client, &gate).await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_guardian_that_was_paused_claims_nothing_at_once() {
    let (mut stage, _, client, gate) = live(Disconnect::Cancel).await;
    tokio::time::advance(SECOND * 300).await;
    stage.advance_only(&[1], SECOND * 29).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    lives_on(stage, client, &gate).await;
}

#[tokio::test(start_paused = true)]
async fn g5_a_new_guardian_claims_nothing_at_once() {
    let (mut stage, _, client, gate) = live(Disconnect::Cancel).await;
    stage.advance_only(&[], SECOND * 60).await;
    stage.add(|hub| hub);
    stage.advance_only(&[2], SECOND * 29).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    lives_on(stage, client, &gate).await;
}

#[tokio::test(start_paused = true)]
async fn g5_an_emptied_store_is_told_anew_of_what_lives() {
    let (mut stage, apps, mut client, gate) = live(Disconnect::DETACH).await;
    client.leave();
    stage.forget();
    // The second node learns of the loss with its next beat, before the first node has registered its stream again.
    stage.advance_only(&[1], SECOND * 11).await;
    assert!(stage.hubs[1].sse.health().frozen);
    client.app = apps[1].clone();
    assert_eq!(client.connect().await, StatusCode::OK, "never 404: it may be about to register again");
    assert_eq!(client.read_to_end().await, 0);
    stage.advance(SECOND * 11).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    client.connect().await;
    gate.send_replace(6);
    client.read_to_end().await;
    client.has_all(5).await;
    stage.verdict().await;
}

/// The clock is set between a guardian's beat, every 10 s, and its sweep. By the new clock all live streams are overdue
/// and beyond their lifetime.
#[tokio::test(start_paused = true)]
async fn g5_a_store_whose_clock_jumps_makes_no_orphans() {
    const HOUR_MS: i64 = 3_600_000;
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        for jumps in [vec![HOUR_MS], vec![HOUR_MS, -HOUR_MS], vec![-HOUR_MS, HOUR_MS]] {
            let stage = Stage::nodes(2, |hub| hub.sweep_every(SECOND * 25));
            let (mut stage, _, client, gate) = live_on(stage, disconnect).await;
            stage.advance(SECOND * 12).await;
            let sweeps = stage.store.calls("due");
            for jump in jumps {
                assert!(stage.hubs.iter().all(|hub| !hub.sse.health().frozen), "they trust the store");
                stage.store.shift_clock(jump);
                stage.advance(SECOND * 5).await;
                assert_eq!(stage.state(&client).await, Some(StreamState::Active));
                let health = stage.hubs[0].sse.health();
                assert_eq!((health.ended["orphaned"], health.ended["expired"]), (0, 0));
                // Until they trust it again, just before the next sweep.
                stage.advance(SECOND * 45).await;
            }
            assert!(stage.store.calls("due") >= sweeps + 2, "they swept in between");
            lives_on(stage, client, &gate).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_client_that_never_reads_is_no_reason() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        let (mut stage, _, client, gate) = live(disconnect).await;
        gate.send_replace(4);
        stage.advance(SECOND * 300).await;
        assert_eq!(stage.state(&client).await, Some(StreamState::Active));
        lives_on(stage, client, &gate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_stop_reaches_the_producer_from_any_node() {
    for (disconnect, detached) in
        [(Disconnect::DETACH, true), (Disconnect::DETACH, false), (Disconnect::Interrupt, false)]
    {
        for node in [0, 1] {
            let mut stage = Stage::nodes(2, |hub| hub);
            let (script, _gate) = Script::events(5).gated();
            let handler = Handler::plays(script);
            let layer = stage.hubs[0].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
            let first = app(layer, &handler);
            let layer = stage.hubs[1].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
            let second = app(layer, &handler);
            let mut client = stage.client(&first, "/a");
            let mut follower = stage.client(&second, "/a");
            client.connect().await;
            follower.connect().await;
            stage.step().await;
            if detached {
                client.leave();
            }
            let (owner, id) = (client.key().owner.clone(), client.key().id.clone());
            let streams = stage.hubs[node].sse.streams();
            assert_eq!(streams.list(&owner).await.unwrap().len(), 1);
            let ended = streams.stop(&owner, &id).await.unwrap().unwrap();
            assert_eq!((ended.ending.state, ended.ending.reason.as_deref()), (StreamState::Cancelled, Some("stopped")));
            // At once: no time passes.
            follower.read_to_end().await;
            stage.step().await;
            assert_eq!(handler.alive(), 0);
            if !detached {
                client.read_to_end().await;
                assert_eq!(client.witness.names, ["cancelled"]);
            }
            assert_eq!(follower.witness.names, ["cancelled"]);
            assert_eq!(streams.stop(&owner, &id).await.unwrap(), Some(ended), "the first end counts");
            assert_eq!(streams.stop(&owner, &StreamId::new("other").unwrap()).await.unwrap(), None);
            let closed: u64 = stage.hubs.iter().map(|hub| hub.sse.health().ended["cancelled"]).sum();
            assert_eq!(closed, 1);
            stage.verdict().await;
        }
    }
}

/// A host that wants no stream to be taken for an orphan sets the longest possible threshold.
#[tokio::test(start_paused = true)]
async fn g5_a_threshold_without_end_takes_no_stream_for_an_orphan() {
    let longest = Duration::MAX;
    let mut stage = Stage::nodes(2, |hub| hub.stale_after(longest).lifetime(longest));
    stage.advance(SECOND * 60).await;
    let (script, gate) = Script::events(5).gated();
    let app = app(stage.sse().generation().id(StreamId::path("/{id}")), &Handler::plays(script));
    let mut client = stage.client(&app, "/a");
    client.connect().await;
    gate.send_replace(2);
    client.read(2).await;
    // The node's guardian is not polled.
    stage.advance_only(&[1], SECOND * 500).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Active));
    gate.send_replace(6);
    client.read_to_end().await;
    client.has_all(5).await;
    stage.verdict().await;
}
