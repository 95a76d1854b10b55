//! A running server is emptied.

use std::time::Duration;

use resilient_sse::{Builder, Event, Owner, StreamId, StreamSpec, StreamState};

use crate::{
    servers::{
        client::Client,
        stage::{Stage, key, quick, until},
    },
    support::redis::RedisServer,
};

/// Clients reconnect before any node has beaten: with all defaults a node beats every 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_whoever_resumes_right_after_a_flush_is_not_turned_away() {
    flushed(|hub| hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_flush_makes_no_orphans() {
    flushed(quick).await;
}

async fn flushed(setup: fn(Builder) -> Builder) {
    let server = RedisServer::start();
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), setup).await, stage.node(&server.url(), setup).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    let feed = stage.client(&first.feed, "silent-feed").attached().await;
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
    let mut job = first.sse.publisher().open(spec).await.unwrap();
    for n in 1..=10 {
        job.send(Event::new(format!("-/job#1:{n}"))).await.unwrap();
    }
    let stateless = StreamId::new("sent").unwrap();
    for n in 1..=3 {
        let event = Event::new(format!("-/sent#1:{n}"));
        first.sse.publisher().send(&Owner::ANONYMOUS, &stateless, event).await.unwrap();
    }
    live.hears(20).await;
    let early = [
        stage.client(&second.generation, "a").cut(5).await,
        stage.client(&second.generation, "silent").cut(1).await,
        stage.client(&second.feed, "silent-feed").cut(1).await,
        stage.client(&second.generation, "job").cut(5).await,
    ];
    let here = stage.client(&first.generation, "silent").cut(1).await;
    let quickly = first.sse.health().last_sweep.is_some();
    if quickly {
        second.until_trusting().await;
    }

    server.flushall();
    let early = early.map(Client::staying);
    let here = here.staying();
    for id in ["a", "silent", "silent-feed", "job"] {
        first.until_state(id, StreamState::Active).await;
    }
    for n in 11..=20 {
        job.send(Event::new(format!("-/job#1:{n}"))).await.unwrap();
    }
    if quickly {
        for node in [&first, &second] {
            node.sweeps(3).await;
        }
    }

    stage.finish();
    job.complete(Event::new("-/job#1:end").named("completed")).await.unwrap();
    let [live, silent, feed] = [live.done().await, silent.done().await, feed.done().await];
    for client in [&live, &silent, &feed] {
        client.has_all();
        stage.check_delays(client, 0);
    }
    let mut ended = Vec::new();
    for client in early {
        ended.push(client.done().await);
    }
    assert!(ended[0].misses(&live) > 0 && ended[0].witness.gaps == 1, "{} missed", ended[0].misses(&live));
    assert_eq!((ended[1].misses(&silent), ended[1].witness.gaps), (0, 0));
    assert_eq!((ended[2].misses(&feed), ended[2].witness.gaps), (0, 0));
    let job: Vec<_> = ended[3].witness.data.iter().map(|data| data.rsplit(':').next().unwrap()).collect();
    assert_eq!(job.first_chunk(), Some(&["1", "2", "3", "4", "5"]));
    assert_eq!((job.last_chunk(), ended[3].witness.gaps), (Some(&["18", "19", "20", "end"]), 1));
    let here = here.done().await;
    assert_eq!((here.misses(&silent), here.witness.gaps), (0, 0));
    // No node can restore a stream without a producer: its events are gone, and new ones make a new stream.
    assert!(first.info("sent").await.is_none());
    let again = first.sse.publisher().send(&Owner::ANONYMOUS, &stateless, Event::new("anew")).await.unwrap();
    let page = first.sse.completions().events(&key("sent"), None, usize::MAX).await.unwrap().unwrap();
    assert_eq!((page.records.len(), page.top), (2, again));
    first.sse.streams().stop(&Owner::ANONYMOUS, &stateless).await.unwrap().unwrap();

    assert_eq!(stage.runs(), 3, "nothing ran twice");
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    stage.verdict(&[&first, &second], true).await;
    assert_eq!(server.keys_without_ttl(), Vec::<String>::new());
}

/// The end that clients saw is the stored end, even if the store was emptied just before or just after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_an_end_lands_in_a_server_that_was_just_flushed() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let node = stage.node(&server.url(), quick).await;
    for round in 0..10_u32 {
        let id = format!("a-{round}");
        let live = stage.client(&node.generation, &id).attached().await;
        live.hears(10).await;
        let early = stage.client(&node.generation, &id).cut(5).await;
        server.flushall();
        tokio::time::sleep(Duration::from_millis(3) * round).await;
        stage.finish_one(&id);
        let live = live.done().await;
        live.has_all();
        stage.check_delays(&live, 0);
        assert_eq!(node.recover(&id).await["status"], "completed");
        let early = early.stay().await;
        assert!(early.misses(&live) > 0 && early.witness.gaps == 1);
    }
    until("nothing is left running", async || node.sse.health().active == 0).await;
    stage.verdict(&[&node], true).await;
}

/// The node where a stream ended repeats that end to an emptied server, but not if the stream was deleted meanwhile on
/// another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_stays_deleted() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    second.until_trusting().await;
    let others: Vec<String> = (0..20).map(|number| format!("public{number}")).collect();
    for id in std::iter::once("private").chain(others.iter().map(String::as_str)) {
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new(id).unwrap());
        let mut job = first.sse.publisher().open(spec).await.unwrap();
        job.send(Event::new("one")).await.unwrap();
        job.complete(Event::new("a secret")).await.unwrap();
    }
    second.sse.registry().delete(&key("private")).await.unwrap();
    let completion = async |id: &str| second.sse.completions().completion(&key(id)).await.unwrap();
    assert_eq!(completion("private").await, None);
    server.flushall();
    for id in &others {
        until("the others' ends are said again", async || completion(id).await.is_some()).await;
    }
    assert_eq!(completion("private").await, None, "it is back");
}
