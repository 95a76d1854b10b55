//! The server hangs: its connections stay, and it answers nothing.

use std::time::Duration;

use resilient_sse::{Builder, Disconnect, Durability, StreamState};

use crate::{
    servers::stage::{Stage, for_a_while, quick},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_server_that_hangs_for_10_s() {
    hangs(quick, Duration::from_secs(10), true).await;
}

/// Longer than the default threshold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_server_that_hangs_for_45_s() {
    hangs(|hub| hub.sweep_every(Duration::from_secs(1)), Duration::from_secs(45), false).await;
}

/// `trusted`: the guardians trust the store when it hangs.
async fn hangs(setup: fn(Builder) -> Builder, time: Duration, trusted: bool) {
    let server = RedisServer::start();
    let stage = Stage::new();
    let before_send = |hub| setup(hub).durability(Durability::BeforeSend);
    let [first, second] = [stage.node(&server.url(), setup).await, stage.node(&server.url(), before_send).await];
    let buffered = stage.client(&first.generation, "buffered").attached().await;
    let careful = stage.client(&second.generation, "careful").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    let feed = stage.client(&second.feed, "feed").attached().await;
    buffered.hears(10).await;
    let early = stage.client(&second.generation, "buffered").cut(5).await;
    let follower = stage.client(&first.generation, "careful").attached().await;
    for node in [&first, &second] {
        if trusted {
            node.until_trusting().await;
        }
    }

    server.stop();
    for_a_while(time).await;
    server.cont();
    for node in [&first, &second] {
        node.until_recording().await;
        node.sweeps(2).await;
    }
    for id in ["buffered", "careful", "silent", "feed"] {
        assert_eq!(first.info(id).await.unwrap().state, StreamState::Active, "{id}");
    }

    stage.finish();
    let [buffered, careful] = [buffered.done().await, careful.done().await];
    for client in [&buffered, &careful, &silent.done().await, &feed.done().await] {
        client.has_all();
        stage.check_delays(client, 1);
    }
    let follower = follower.done().await;
    follower.has_all();
    let early = early.stay().await;
    assert_eq!((early.misses(&buffered), early.witness.gaps), (0, 0));
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    assert_eq!(stage.runs(), 4);
    stage.verdict(&[&first, &second], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_an_end_waits_2_s_for_a_server_that_hangs_and_lands_later() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let node = stage.node(&server.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached_once().await;
    live.hears(10).await;
    let early = stage.client(&node.generation, "a").cut(5).await;
    server.stop();
    for_a_while(Duration::from_millis(200)).await;
    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 1);
    server.cont();
    node.until_state("a", StreamState::Completed).await;
    assert_eq!(node.recover("a").await["terminalEventType"], "completed");
    let early = early.stay().await;
    assert_eq!((early.misses(&live), early.witness.gaps), (0, 0));
    stage.verdict(&[&node], false).await;
}

/// Readers announce themselves through the server, so their silence means nothing while it hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_work_goes_on_for_a_reader_of_another_node_while_the_server_hangs() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let nodes = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    let at_most = Duration::from_secs(1);
    let mut readers = Vec::new();
    for (id, disconnect) in [("cancel", Disconnect::Cancel), ("detach", Disconnect::Detach { at_most })] {
        let [here, there] = nodes.each_ref().map(|node| stage.route(node.sse.layer().on_disconnect(disconnect)));
        let first = stage.client(&here, id).attached_once().await;
        let reader = stage.client(&there, id).attached_once().await;
        reader.hears(10).await;
        first.goes();
        reader.hears(10).await;
        readers.push(reader);
    }

    server.stop();
    // Longer than the time for which a silent reader counts.
    for_a_while(Duration::from_secs(14)).await;
    server.cont();
    for reader in &readers {
        reader.hears(10).await;
    }
    nodes[0].until_recording().await;
    stage.finish();
    for reader in readers {
        let reader = reader.done().await;
        assert_eq!(reader.witness.gaps, 0);
        assert!(reader.witness.ended.is_some(), "{:?}", reader.witness.names);
    }
    assert_eq!(stage.runs(), 2);
    stage.verdict(&[&nodes[0], &nodes[1]], false).await;
}
