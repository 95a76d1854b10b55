//! The server is full, and evicts nothing.

use std::time::Duration;

use resilient_sse::StreamState;

use crate::{
    servers::stage::{STALE, Stage, for_a_while, quick, until},
    support::redis::{Options, RedisServer},
};

/// Fills the server until it accepts nothing more.
fn fill(server: &RedisServer) {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut number = 0;
    for size in [100_000, 1000, 10] {
        let junk = "x".repeat(size);
        loop {
            let mut some = redis::pipe();
            for _ in 0..50 {
                number += 1;
                some.cmd("SET").arg(format!("junk:{number}")).arg(&junk).ignore();
            }
            if some.query::<()>(&mut connection).is_err() {
                break;
            }
        }
    }
    // The memory of its clients' buffers varies.
    let used: u64 = server.info("used_memory").unwrap().parse().unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", &(used - 500_000).to_string()]);
    let error = server.try_command(&["SET", "junk:more", "x"]).unwrap_err();
    assert_eq!(error.code(), Some("OOM"));
}

fn free(server: &RedisServer) {
    let keys = server.keys();
    let junk = keys.iter().map(String::as_str).filter(|key| key.starts_with("junk:"));
    server.command(&["DEL"].into_iter().chain(junk).collect::<Vec<_>>());
}

/// `read`: whether a client reads meanwhile, which a full server allows.
async fn a_full_server(read: bool) {
    let server = RedisServer::with(&Options::bounded("8mb"));
    let stage = Stage::new();
    let [first, second] = [stage.node(&server.url(), quick).await, stage.node(&server.url(), quick).await];
    let live = stage.client(&first.generation, "a").attached().await;
    let silent = stage.client(&first.generation, "silent").attached().await;
    live.hears(10).await;
    let early = stage.client(&second.generation, "a").cut(5).await;
    for node in [&first, &second] {
        node.until_trusting().await;
    }

    fill(&server);
    until("beats fail", async || first.sse.health().frozen && second.sse.health().frozen).await;
    let full_since = first.sse.health().recorded;
    let mut reads = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..(STALE + Duration::from_secs(2)).as_millis() / 50 {
        reads.tick().await;
        if read {
            // The answer does not matter.
            let _ = first.sse.completions().completion(&crate::servers::stage::key("a")).await;
        }
    }
    let health = first.sse.health();
    assert!(health.frozen && health.recorded <= full_since + 5, "{} recorded", health.recorded - full_since);

    free(&server);
    first.until_recording().await;
    for node in [&first, &second] {
        node.sweeps(2).await;
    }
    for id in ["a", "silent"] {
        assert_eq!(first.info(id).await.unwrap().state, StreamState::Active, "{id}");
    }
    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 1);
    silent.done().await.has_all();
    let early = early.stay().await;
    assert_eq!((early.misses(&live), early.witness.gaps), (0, 0));
    for node in [&first, &second] {
        let health = node.sse.health();
        assert_eq!((health.lost, health.orphaned), (0, 0));
    }
    stage.verdict(&[&first, &second], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_full_server_makes_no_orphans_and_loses_nothing() {
    a_full_server(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_a_full_server_that_still_answers_readers_holds_up_once() {
    a_full_server(true).await;
}

/// Ends are stored in a full server too, since they take little memory and free more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g3_an_end_lands_in_a_full_server_once_it_is_reached() {
    let server = RedisServer::with(&Options::bounded("8mb"));
    let stage = Stage::new();
    let node = stage.node(&server.url(), quick).await;
    let live = stage.client(&node.generation, "a").attached_once().await;
    live.hears(10).await;
    fill(&server);
    for_a_while(Duration::from_secs(1)).await;
    stage.finish();
    let live = live.done().await;
    live.has_all();
    stage.check_delays(&live, 1);
    free(&server);
    node.until_state("a", StreamState::Completed).await;
    let late = stage.client(&node.generation, "a").stay().await;
    assert_eq!(late.has_all(), live.has_all());
    stage.verdict(&[&node], false).await;
}
