//! Guarantee G6: a stream that runs again for ever stays bounded, in entries and in bytes.

use resilient_sse::{
    EventId, RedisStore, StreamKey,
    store::{Append, Interrupt, Interrupted, Open, ReadFrom, Retention, Store as _},
};

use crate::{
    redis_store::steps::{append, connect, events, info, key, open, open_as, page, put, retention, write},
    support::redis::RedisServer,
};

const RUNS: usize = 5_000;
const MAX_EVENTS: usize = 100;
const STREAM: &str = "sse:stream:{YWRh/feed}";
const LOG: &str = "sse:events:{YWRh/feed}";

fn request() -> Open {
    Open { retention: Retention { max_events: MAX_EVENTS, ..retention() }, ..open("feed") }
}

/// Runs the feed repeatedly. Each run made some events, none of which was recorded. Returns the epochs.
async fn run_again(store: &RedisStore, key: &StreamKey, made: u64) -> Vec<u64> {
    let mut epochs = Vec::new();
    for _ in 0..RUNS {
        let epoch = open_as(store, request()).await;
        let interrupt = Interrupt { key: key.clone(), epoch, last: Some(made), if_deadline: None };
        assert_eq!(store.interrupt(interrupt).await.unwrap(), Interrupted::Done);
        epochs.push(epoch);
    }
    epochs
}

fn bytes(server: &RedisServer) -> usize {
    [STREAM, LOG].iter().map(|key| server.ask::<usize>(&["MEMORY", "USAGE", key, "SAMPLES", "0"])).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_five_thousand_runs_without_events_leave_nothing() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let key = key("feed");
    let first = open_as(&store, request()).await;
    write(&store, &key, first, 1, &["1", "2", "3"]).await;
    store.interrupt(Interrupt { key: key.clone(), epoch: first, last: None, if_deadline: None }).await.unwrap();
    run_again(&store, &key, 0).await.truncate(10);
    let (entries, before) = (server.ask::<usize>(&["XLEN", LOG]), bytes(&server));
    assert!(entries <= 8, "{entries} entries");
    let epochs = run_again(&store, &key, 0).await;
    assert_eq!(server.ask::<usize>(&["XLEN", LOG]), entries);
    let after = bytes(&server);
    assert!(after <= before + 4096, "{before} bytes after {RUNS} runs, {after} after as many more");
    assert_eq!(events(&store, &key).await.len(), 3, "what it holds it keeps");
    for epoch in [epochs[0], epochs[RUNS / 2], epochs[RUNS - 1]] {
        assert!(page(&store, &key, ReadFrom::After(EventId::new(epoch, 0))).await.known);
    }
    assert!(!page(&store, &key, ReadFrom::After(EventId::new(first - 1, 0))).await.known);
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_runs_of_which_events_were_lost_count_against_the_bound() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    run_again(&store, &key("feed"), 3).await;
    let entries = server.ask::<usize>(&["XLEN", LOG]);
    assert!(entries <= MAX_EVENTS + 2, "{entries} entries");
    let before = bytes(&server);
    let epochs = run_again(&store, &key("feed"), 3).await;
    let (entries, after) = (server.ask::<usize>(&["XLEN", LOG]), bytes(&server));
    assert!(entries <= MAX_EVENTS + 2, "{entries} entries");
    // A log's first and last block, of 4 KiB each, may be full or not; 5,000 runs that stayed would be hundreds.
    assert!(after <= before + 2 * 4096, "{before} bytes after {RUNS} runs, {after} after as many more");
    let page = page(&store, &key("feed"), ReadFrom::After(EventId::new(epochs[0], 3))).await;
    assert!(page.known, "what was trimmed was known once");

    // Events and markers share the bound.
    let epoch = open_as(&store, request()).await;
    for seq in 1..=2 * MAX_EVENTS as u64 {
        write(&store, &key("feed"), epoch, seq, &[seq.to_string()]).await;
        let entries = server.ask::<usize>(&["XLEN", LOG]);
        assert!(entries <= MAX_EVENTS + 2, "{entries} entries after {seq} events");
    }
    let held = events(&store, &key("feed")).await;
    assert!((MAX_EVENTS - MAX_EVENTS / 16..=MAX_EVENTS).contains(&held.len()), "{}", held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_metadata_of_many_runs_is_that_of_two() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let key = key("feed");
    let mut most = 0;
    for run in 0..200 {
        let epoch = open_as(&store, request()).await;
        let metadata = vec![(format!("run-{run}"), "x".repeat(3000))];
        put(&store, Append { metadata: metadata.clone(), ..append(&key, epoch, 1, &["x"]) }).await;
        assert_eq!(info(&store, &key).await.metadata, metadata);
        store.interrupt(Interrupt { key: key.clone(), epoch, last: None, if_deadline: None }).await.unwrap();
        most = most.max(server.ask::<usize>(&["MEMORY", "USAGE", STREAM, "SAMPLES", "0"]));
    }
    assert!(most < 16 << 10, "{most} bytes");
}
