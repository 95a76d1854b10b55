//! The library's guarantees across nodes, with example servers as processes, on real Redis servers.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod clusters;
mod hooks;
mod jobs;
mod kills;
mod line;
mod outages;
mod races;
mod resume;
mod rust_client;
mod sentinels;
mod soak;
mod stops;
mod stores;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::example::{Server, eventually};

/// Arguments of a node that looks for orphans often.
const QUICK: [&str; 4] = ["--stale", "1.5", "--sweep", "0.5"];

/// A node on a store.
fn node(store: &str, options: &[&str]) -> Server {
    Server::start(&[&["--store", store], options].concat())
}

/// A figure of a node's health.
async fn figure(node: &Server, name: &str) -> u64 {
    let (_, health) = node.json("/healthz").await;
    let figure = &health[name];
    // An event that has not happened yet has no figure.
    figure.as_u64().or(figure.is_null().then_some(0)).unwrap_or_else(|| panic!("{name}: {health}"))
}

async fn sum(nodes: &[&Server], name: &str) -> u64 {
    let mut sum = 0;
    for node in nodes {
        sum += figure(node, name).await;
    }
    sum
}

/// Waits until a node's guardian has swept and trusts the store.
async fn trusting(node: &Server) {
    eventually(async || {
        let (_, health) = node.json("/healthz").await;
        (health["frozen"] == Value::Bool(false) && health["lastSweep"].is_u64()).then_some(())
    })
    .await;
}

fn addresses(nodes: &[&Server]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.address).collect()
}
