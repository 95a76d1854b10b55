//! The server's clock is set.

use resilient_sse::{RedisStore, StreamState, test_util::FaultStore};

use crate::{
    servers::stage::{STALE, Stage, for_a_while, quick, until},
    support::redis::RedisServer,
};

const HOUR_MS: i64 = 3_600_000;

/// The store's answers show a clock that is set ahead. The scripts' clock is not changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_clock_that_is_set_makes_no_orphans() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let mut nodes = Vec::new();
    let mut stores = Vec::new();
    for _ in 0..2 {
        let store = FaultStore::new(RedisStore::builder(&server.url()).unwrap().connect().await.unwrap());
        nodes.push(stage.node_on(store.clone(), quick));
        stores.push(store);
    }
    let live = stage.client(&nodes[0].generation, "a").attached().await;
    let silent = stage.client(&nodes[0].generation, "silent").attached().await;
    let feed = stage.client(&nodes[1].feed, "feed").attached().await;
    live.hears(10).await;
    let early = stage.client(&nodes[1].generation, "a").cut(5).await;
    for ahead in [HOUR_MS, -HOUR_MS, 0] {
        for node in &nodes {
            node.until_trusting().await;
        }
        for store in &stores {
            store.answer_ahead(ahead);
        }
        until("they distrust the clock", async || nodes.iter().all(|node| node.sse.health().frozen)).await;
        for_a_while(STALE / 2).await;
        for node in &nodes {
            node.sweeps(2).await;
            let health = node.sse.health();
            assert_eq!((health.orphaned, health.ended["expired"]), (0, 0), "{ahead} ms ahead");
        }
        for id in ["a", "silent", "feed"] {
            assert_eq!(nodes[0].info(id).await.unwrap().state, StreamState::Active, "{id}, {ahead} ms ahead");
        }
    }
    stage.finish();
    let live = live.done().await;
    for client in [&live, &silent.done().await, &feed.done().await] {
        client.has_all();
        stage.check_delays(client, 0);
    }
    let early = early.stay().await;
    assert_eq!((early.misses(&live), early.witness.gaps), (0, 0));
    assert_eq!(stage.runs(), 3);
    stage.verdict(&[&nodes[0], &nodes[1]], false).await;
}
