//! G4: a producer that was declared dead is fenced.

use std::time::Duration;

use resilient_sse::{Disconnect, StreamId, StreamState};
use tokio::sync::watch;

use crate::{
    client::Client,
    stage::Stage,
    support::handlers::{App, Handler, Script, app},
};

/// The first node's guardian is not polled, so the second node takes it for dead. The first node's client has read two
/// events.
async fn declared_dead(disconnect: Disconnect) -> (Stage, [App; 2], Handler, watch::Sender<u64>, Client) {
    let mut stage = Stage::nodes(2, |hub| hub);
    let (script, gate) = Script::events(5).gated();
    let handler = Handler::plays(script);
    let apps = [0, 1].map(|node: usize| {
        let layer = stage.hubs[node].sse.layer().id(StreamId::path("/{id}")).on_disconnect(disconnect);
        app(layer, &handler)
    });
    stage.advance_only(&[1], Duration::from_secs(40)).await;
    let mut client = stage.client(&apps[0], "/a");
    client.connect().await;
    gate.send_replace(2);
    client.read(2).await;
    stage.advance_only(&[1], Duration::from_secs(61)).await;
    (stage, apps, handler, gate, client)
}

#[tokio::test(start_paused = true)]
async fn g4_a_client_attached_to_an_orphaned_stream_is_served_to_its_end() {
    for disconnect in [Disconnect::DETACH, Disconnect::Cancel] {
        let (mut stage, apps, handler, gate, client) = declared_dead(disconnect).await;
        assert_eq!(stage.state(&client).await, Some(StreamState::Orphaned));
        let mut client = client.apart();
        let mut other = stage.client(&apps[1], "/a");
        other.finish().await;
        assert_eq!(other.witness.names, ["message", "message", "orphaned"]);
        gate.send_replace(4);
        client.read(2).await;
        // The first node's guardian learns of the end, which changes nothing for the client.
        stage.advance(Duration::from_secs(40)).await;
        gate.send_replace(6);
        client.read_to_end().await;
        assert_eq!(client.witness.names, ["message", "message", "message", "message", "message", "completed"]);
        assert_eq!((handler.calls(), handler.alive()), (1, 0));
        // None of these events was recorded: the first end counts.
        assert_eq!(stage.state(&client).await, Some(StreamState::Orphaned));
        assert_eq!(client.connect().await, 204);
        assert_eq!(stage.sse().health().recorded, 2);
        stage.verdict().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g4_an_orphaned_stream_whose_client_then_leaves() {
    let (mut stage, _, handler, gate, mut client) = declared_dead(Disconnect::DETACH).await;
    client.leave();
    gate.send_replace(3);
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(handler.alive(), 0, "nobody listens, nothing is recorded: the work ends");
    client.finish().await;
    assert_eq!(client.witness.names, ["message", "message", "orphaned"]);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g4_where_a_newer_run_produces_the_older_body_ends_without_a_terminal_event() {
    let (stage, apps, handler, gate, mut client) = declared_dead(Disconnect::Interrupt).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Interrupted));
    let mut next = stage.client(&apps[1], "/a");
    next.connect().await;
    next.read(2).await;
    gate.send_replace(4);
    client.read_to_end().await;
    assert_eq!((client.witness.names.len(), client.witness.ended), (2, None));
    assert_eq!(handler.alive(), 1, "the older body is dropped");
    // The client reconnects to any node and follows the newer run.
    client.connect().await;
    gate.send_replace(6);
    tokio::join!(client.read_to_end(), next.read_to_end());
    assert_eq!(client.witness.names[2], "restart");
    assert_eq!(client.witness.data[2..], next.witness.data);
    assert_eq!(handler.calls(), 2);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g4_a_producer_that_is_superseded_while_it_waits_is_told() {
    let (mut stage, apps, handler, gate, mut client) = declared_dead(Disconnect::Interrupt).await;
    let mut next = stage.client(&apps[1], "/a");
    next.connect().await;
    // The inner body makes nothing more. The guardian's next beat finds out.
    stage.advance(Duration::from_secs(15)).await;
    assert_eq!(client.read_ready().await, 0);
    client.read_to_end().await;
    assert_eq!((client.witness.ended, handler.alive()), (None, 1));
    gate.send_replace(6);
    next.read_to_end().await;
    client.finish().await;
    assert_eq!(client.witness.restarts, 1);
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g4_a_detached_producer_that_was_declared_dead_ends() {
    let (mut stage, apps, handler, gate, mut client) = declared_dead(Disconnect::DETACH).await;
    client.leave();
    let mut other = stage.client(&apps[1], "/a");
    other.finish().await;
    stage.advance(Duration::from_secs(15)).await;
    assert_eq!(handler.alive(), 0);
    gate.send_replace(6);
    stage.step().await;
    client.finish().await;
    assert_eq!(client.witness.data, other.witness.data);
    stage.verdict().await;
}
