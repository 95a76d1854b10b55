//! The server forgets its scripts.

use resilient_sse::{Event, Owner, StreamId, StreamState};

use crate::{
    servers::stage::{Stage, key, quick, until},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_scripts_that_are_flushed_are_no_outage() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let node = stage.node(&server.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached().await;
    live.hears(10).await;
    server.script_flush();
    let feed = stage.client(&node.feed, "feed");
    let feed = feed.cut(5).await;
    node.until_state("feed", StreamState::Interrupted).await;
    server.script_flush();
    let feed = feed.staying();
    feed.hears(5).await;
    server.script_flush();
    let (owner, id) = (Owner::ANONYMOUS, StreamId::new("sent").unwrap());
    node.sse.publisher().send(&owner, &id, Event::new("one")).await.unwrap();
    server.script_flush();
    node.sse.publisher().send(&owner, &id, Event::new("two")).await.unwrap();
    node.sweeps(2).await;
    for n in 0..10 {
        server.script_flush();
        stage.client(&node.generation, "a").cut(3 + n).await;
    }
    server.script_flush();
    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 0);
    let feed = feed.done().await;
    assert_eq!((feed.witness.gaps, feed.witness.restarts), (0, 1));
    server.script_flush();
    node.sse.streams().stop(&owner, &id).await.unwrap().unwrap();
    let page = node.sse.completions().events(&key("sent"), None, usize::MAX).await.unwrap().unwrap();
    assert_eq!(page.records.len(), 4, "the run, two events, the end: {:?}", page.records);
    server.script_flush();
    node.sse.completions().delete(&key("sent")).await.unwrap();
    until("it is gone", async || node.info("sent").await.is_none()).await;
    let health = node.sse.health();
    assert_eq!((health.lost, health.orphaned, health.store_errors), (0, 0, 0));
    stage.verdict(&[&node], false).await;
}
