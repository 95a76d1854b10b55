//! A server, or a proxy in front of it, closes idle connections.

use std::time::{Duration, Instant};

use resilient_sse::StreamState;

use crate::{
    servers::stage::Stage,
    support::redis::{Options, RedisServer},
};

/// Well over the server's limit, so that all connections are closed between two beats.
const STALE: Duration = Duration::from_secs(9);
const SWEEP: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_orphans_are_found_where_idle_connections_are_closed() {
    let server = RedisServer::with(&Options::default().line("timeout 1"));
    let stage = Stage::new();
    let node = async || stage.node(&server.url(), |hub| hub.stale_after(STALE).sweep_every(SWEEP)).await;
    let [first, second] = [node().await, node().await];
    let silent = stage.client(&first.generation, "silent").attached().await;
    second.until_trusting().await;
    // The node hangs and sends nothing more.
    first.pause(true);
    let begun = Instant::now();
    second.until_state("silent", StreamState::Orphaned).await;
    assert!(begun.elapsed() < STALE + 2 * SWEEP, "{:?}", begun.elapsed());
    assert_eq!(second.sse.health().store_errors, 0, "no request was sacrificed to find a connection closed");
    let killed: usize = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(killed < 3, "{killed} connections were left");
    assert_eq!(second.recover("silent").await["status"], "orphaned");
    drop(silent);
}
