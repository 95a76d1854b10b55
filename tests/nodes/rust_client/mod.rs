//! The Rust client against two nodes, each a process of its own, on one Redis. Connections and nodes fail on the way.

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

    /// Starts the nodes, and waits until both trust the store. From then on their guardians look for orphans.
    async fn trusting(options: &[&str]) -> Self {
        let nodes = Self::start(options);
        for node in [&nodes.a, &nodes.b] {
            trusting(node).await;
        }
        nodes
    }
}

/// Starts a node on this Redis.
fn node(redis: &RedisServer, options: &[&str]) -> Server {
    Server::start(&[&["--store", &redis.url()], options].concat())
}
