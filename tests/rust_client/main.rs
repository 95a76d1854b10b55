//! The Rust client over real sockets: two nodes, real processes, on one Redis, and what happens to connections between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod every_byte;
mod front;
mod http_clients;
mod network;
mod nodes;
mod reader;
mod requests;
mod voices;

use serde_json::Value;

use crate::support::{
    example::{Server, eventually},
    redis::RedisServer,
};

/// Looks for orphans often.
const QUICK: [&str; 4] = ["--stale", "1.5", "--sweep", "0.5"];

/// Two nodes on one Redis.
struct Nodes {
    a: Server,
    b: Server,
    redis: RedisServer,
}

impl Nodes {
    fn start(options: &[&str]) -> Self {
        let redis = RedisServer::start();
        let [a, b] = [(); 2].map(|()| node(&redis, options));
        Self { a, b, redis }
    }

    /// The same, once both nodes trust the store: their guardians look for orphans.
    async fn trusting(options: &[&str]) -> Self {
        let nodes = Self::start(options);
        for node in [&nodes.a, &nodes.b] {
            trusting(node).await;
        }
        nodes
    }
}

/// A node on a store.
fn node(redis: &RedisServer, options: &[&str]) -> Server {
    Server::start(&[&["--store", &redis.url()], options].concat())
}

/// Waits until a node's guardian has looked around, and trusts the store.
async fn trusting(node: &Server) {
    eventually(async || {
        let (_, health) = node.json("/healthz").await;
        (health["frozen"] == Value::Bool(false) && health["lastSweep"].is_u64()).then_some(())
    })
    .await;
}
