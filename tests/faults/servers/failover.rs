//! A replica takes over that lacks some acknowledged data.

use resilient_sse::StreamState;

use crate::{
    servers::stage::{Stage, key, quick},
    support::redis::{Pair, Proxy, Sentinels},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_tail_that_is_lost_is_a_gap() {
    let pair = Pair::start();
    let proxy = Proxy::start(pair.master.address());
    let stage = Stage::new();
    let [first, second] = [stage.node(&proxy.url(), quick).await, stage.node(&proxy.url(), quick).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    live.hears(20).await;
    let early = stage.client(&second.generation, "a").cut(5).await;
    let follower = stage.client(&second.generation, "a").attached().await;
    second.until_trusting().await;

    pair.detach_replica();
    first.until_recording().await;
    // This client reads the events that will be lost, and continues after them.
    let lucky = stage.client(&second.generation, "a").cut(live.heard()).await;
    let opened = stage.client(&first.generation, "late").attached().await;
    opened.hears(10).await;
    first.until_recording().await;
    proxy.point_at(pair.replica.address());
    pair.promote_with_lost_tail();
    for node in [&first, &second] {
        node.sweeps(3).await;
    }
    first.until_recording().await;
    for id in ["a", "silent", "late"] {
        assert_eq!(first.info(id).await.unwrap().state, StreamState::Active, "{id}");
    }

    stage.finish();
    let [live, silent, opened] = [live.done().await, silent.done().await, opened.done().await];
    for client in [&live, &silent, &opened] {
        client.has_all();
        stage.check_delays(client, 1);
    }
    let early = early.stay().await;
    assert!(early.misses(&live) > 0 && early.witness.gaps == 1, "{} missed", early.misses(&live));
    let lucky = lucky.stay().await;
    assert!(lucky.misses(&live) < early.misses(&live));
    // Clients that follow all along may have read everything before it was lost.
    follower.done().await;
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    assert_eq!(stage.runs(), 3);
    stage.verdict(&[&first, &second], true).await;
}

/// The end was acknowledged and delivered, and then lost. It is stored again, and the stream is not taken for an
/// orphan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_a_close_that_is_lost_is_sent_again() {
    let pair = Pair::start();
    let proxy = Proxy::start(pair.master.address());
    let stage = Stage::new();
    let node = stage.node(&proxy.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached_once().await;
    let other = stage.client(&node.generation, "b").attached().await;
    live.hears(20).await;
    let early = stage.client(&node.generation, "a").cut(5).await;
    pair.detach_replica();
    stage.finish_one("a");
    let live = live.done().await;
    live.has_all();
    assert_eq!(node.info("a").await.unwrap().state, StreamState::Completed);
    proxy.point_at(pair.replica.address());
    pair.promote_with_lost_tail();
    node.until_state("a", StreamState::Completed).await;
    node.sweeps(8).await;
    let ended = node.sse.completions().completion(&key("a")).await.unwrap().unwrap();
    assert_eq!(ended.ending.state, StreamState::Completed);
    assert_eq!(node.recover("a").await["terminalEventType"], "completed");
    let early = early.stay().await;
    assert!(early.witness.gaps <= 1);
    stage.finish();
    other.done().await.has_all();
    assert_eq!(node.sse.health().orphaned, 0);
    stage.verdict(&[&node], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_sentinels_promote_a_replica_without_the_tail() {
    let servers = Sentinels::start();
    let stage = Stage::new();
    let node = stage.node(&servers.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached().await;
    let ending = stage.client(&node.generation, "ending").attached_once().await;
    live.hears(20).await;
    let early = stage.client(&node.generation, "a").cut(5).await;
    node.until_trusting().await;
    servers.detach_replica();
    node.until_recording().await;
    stage.finish_one("ending");
    let ending = ending.done().await;
    ending.has_all();
    servers.promote_with_lost_tail();
    node.until_recording().await;
    node.until_state("ending", StreamState::Completed).await;
    node.sweeps(8).await;
    assert_eq!(node.info("a").await.unwrap().state, StreamState::Active);
    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 1);
    let early = early.stay().await;
    assert!(early.misses(&live) > 0 && early.witness.gaps == 1, "{} missed", early.misses(&live));
    let health = node.sse.health();
    assert_eq!((health.lost, health.orphaned), (0, 0));
    stage.verdict(&[&node], true).await;
}
