//! The Rust client over real sockets: two nodes, real processes, on one Redis, and what happens to connections between.

mod corpus;
mod every_byte;
mod front;
mod http_clients;
mod network;
mod nodes;
mod reader;
mod requests;
mod voices;

use crate::{
    support::{example::Server, redis::RedisServer},
    trusting,
};

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
