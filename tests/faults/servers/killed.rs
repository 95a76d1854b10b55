//! The server dies, and comes back with all of its data or with none.

use std::time::Duration;

use resilient_sse::{Owner, StreamId, StreamKey, StreamState};

use crate::{
    servers::stage::{STALE, Stage, for_a_while, quick},
    support::redis::{Options, RedisServer},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_server_that_kept_its_log_has_lost_nothing() {
    let server = RedisServer::with(&Options::durable());
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    let feed = stage.client(&second.feed, "feed").attached().await;
    live.hears(10).await;
    let early = stage.client(&second.generation, "a").cut(10).await;
    for node in [&first, &second] {
        node.until_trusting().await;
    }

    server.kill();
    for_a_while(STALE + Duration::from_secs(1)).await;
    let during = live.heard();
    live.hears(5).await;
    assert!(during > 40, "it went on");
    server.restart();
    for node in [&first, &second] {
        node.until_recording().await;
        node.sweeps(3).await;
    }
    for id in ["a", "silent", "feed"] {
        assert_eq!(first.info(id).await.unwrap().state, StreamState::Active, "{id}");
    }

    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 1);
    for other in [silent.done().await, feed.done().await] {
        other.has_all();
        stage.check_delays(&other, 1);
    }
    let early = early.stay().await;
    assert_eq!((early.misses(&live), early.witness.gaps), (0, 0));
    assert_eq!(second.recover("a").await["status"], "completed");
    assert_eq!(stage.runs(), 3);
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    stage.verdict(&[&first, &second], false).await;
    assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_server_that_restarts_empty_is_told_of_what_lives() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    let feed = stage.client(&first.feed, "feed").attached().await;
    live.hears(20).await;
    let early = [
        stage.client(&second.generation, "a").cut(5).await,
        stage.client(&second.generation, "silent").cut(1).await,
        stage.client(&second.feed, "feed").cut(5).await,
    ];
    second.until_trusting().await;

    server.kill();
    for_a_while(Duration::from_millis(700)).await;
    server.restart();
    // The clients reconnect at once, before any stream is registered again, and must not get 404.
    let [early_a, early_silent, early_feed] = early.map(crate::servers::client::Client::staying);
    first.until_recording().await;
    for id in ["a", "silent", "feed"] {
        first.until_state(id, StreamState::Active).await;
    }
    for node in [&first, &second] {
        node.sweeps(3).await;
    }

    stage.finish();
    let [live, silent, feed] = [live.done().await, silent.done().await, feed.done().await];
    for client in [&live, &silent, &feed] {
        client.has_all();
        stage.check_delays(client, 1);
    }
    let [early_a, early_silent, early_feed] =
        [early_a.done().await, early_silent.done().await, early_feed.done().await];
    assert!(early_a.misses(&live) > 0 && early_a.witness.gaps == 1, "{} missed", early_a.misses(&live));
    assert!(early_feed.misses(&feed) > 0 && early_feed.witness.gaps == 1);
    assert_eq!((early_silent.misses(&silent), early_silent.witness.gaps), (0, 0));
    assert_eq!(stage.runs(), 3, "nothing ran twice");
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    stage.verdict(&[&first, &second], true).await;
    assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
}

/// Nothing is left of a stream that had ended before the store was emptied. A new stream of the same name does not
/// continue the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_a_cursor_from_before_is_no_place_in_a_run_from_after() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let node = stage.node(&server.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached_once().await;
    live.hears(20).await;
    let early = stage.client(&node.generation, "a").cut(5).await;
    node.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap().unwrap();
    live.done().await;
    // Otherwise the node would repeat the end to the empty server at some time, and a request would get it.
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    node.sse.completions().delete(&key).await.unwrap();

    server.restart();
    node.until_answered().await;
    let again = stage.client(&node.generation, "a").attached().await;
    again.hears(30).await;
    let early = early.staying();
    early.hears(30).await;
    stage.finish();
    again.done().await.has_all();
    let early = early.done().await;
    assert_eq!((early.witness.gaps, early.witness.restarts), (1, 1));
    assert_eq!(early.witness.names[5..7], ["gap", "restart"]);
    stage.verdict(&[&node], true).await;
}
