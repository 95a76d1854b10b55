//! A key of another type stands where one of a stream's should be.

use resilient_sse::StreamState;

use crate::{
    servers::stage::{STALE, Stage, quick},
    support::redis::RedisServer,
};

/// A foreign key in a log's place is removed, and the stream is registered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_string_in_a_logs_place() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let other = stage.client(&first.generation, "b").attached().await;
    live.hears(20).await;
    let early = stage.client(&second.generation, "a").cut(5).await;
    server.command(&["SET", "sse:events:{a}", "in the way"]);
    live.hears(20).await;
    first.until_recording().await;
    let health = first.sse.health();
    assert_eq!((health.breaker, health.frozen), ("closed", health.frozen));
    assert_eq!(first.info("a").await.unwrap().state, StreamState::Active);
    stage.finish();
    let [live, other] = [live.done().await, other.done().await];
    for client in [&live, &other] {
        client.has_all();
        stage.check_delays(client, 0);
    }
    let early = early.stay().await;
    assert!(early.misses(&live) > 0 && early.witness.gaps == 1, "{} missed", early.misses(&live));
    let late = stage.client(&second.generation, "b").stay().await;
    assert_eq!(late.has_all(), other.has_all());
    let health = first.sse.health();
    assert_eq!((health.lost, health.orphaned), (0, 0));
    stage.verdict(&[&first, &second], true).await;
    assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
}

/// A foreign key in the place of a stream's state is replaced as soon as its node inspects the stream, which each beat
/// does for some streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_string_in_the_states_place() {
    let server = RedisServer::start();
    let stage = Stage::new();
    // With a short lifetime every second beat inspects the stream.
    let setup = |hub| quick(hub).lifetime(STALE * 8);
    let [first, second] = [stage.node(&server.url(), setup).await, stage.node(&server.url(), setup).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    let other = stage.client(&first.generation, "b").attached().await;
    live.hears(20).await;
    let early = stage.client(&second.generation, "a").cut(5).await;
    second.until_trusting().await;
    for id in ["a", "silent"] {
        server.command(&["SET", &format!("sse:stream:{{{id}}}"), "in the way"]);
    }
    for id in ["a", "silent"] {
        first.until_state(id, StreamState::Active).await;
    }
    for node in [&first, &second] {
        node.sweeps(2).await;
        let health = node.sse.health();
        assert_eq!((health.breaker, health.orphaned), ("closed", 0));
    }
    first.until_recording().await;
    stage.finish();
    let [live, silent, other] = [live.done().await, silent.done().await, other.done().await];
    for client in [&live, &silent, &other] {
        client.has_all();
        stage.check_delays(client, 0);
    }
    let early = early.stay().await;
    assert!(early.misses(&live) > 0 && early.witness.gaps == 1, "{} missed", early.misses(&live));
    let late = stage.client(&second.generation, "b").stay().await;
    assert_eq!(late.has_all(), other.has_all());
    let health = first.sse.health();
    assert_eq!((health.lost, health.orphaned), (0, 0));
    stage.verdict(&[&first, &second], true).await;
    assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
}

/// An end that finds a string in its stream's place is stored all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_an_end_lands_where_a_string_was() {
    for key in ["sse:stream:{a}", "sse:events:{a}", "sse:completion:{a}"] {
        let server = RedisServer::start();
        let stage = Stage::new();
        let node = stage.node(&server.url(), quick).await;
        let live = stage.client(&node.generation, "a").attached_once().await;
        let other = stage.client(&node.generation, "b").attached().await;
        live.hears(20).await;
        let early = stage.client(&node.generation, "a").cut(5).await;
        server.command(&["SET", key, "in the way"]);
        stage.finish_one("a");
        let live = live.done().await;
        live.has_all();
        stage.check_delays(&live, 0);
        node.until_state("a", StreamState::Completed).await;
        assert_eq!(node.recover("a").await["terminalEventType"], "completed", "{key}");
        let early = early.stay().await;
        assert_eq!(early.misses(&live) > 0, early.witness.gaps == 1, "{key}");
        stage.finish();
        let other = other.done().await;
        other.has_all();
        stage.check_delays(&other, 0);
        stage.verdict(&[&node], true).await;
        assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
    }
}
