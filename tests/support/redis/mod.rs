//! Real Redis processes for tests: one server, a pair, a Cluster, Sentinels, and a proxy with faults before any of them.
//!
//! Each process listens on ports of 127.0.0.1 that nothing else here uses, works in a folder of its own, and ends
//! with its handle. Servers are Redis 7 or later (`redis-server` on the path), or Valkey 9 (from `.ci/valkey`) in test crates
//! whose names begin with `valkey`.
//!
//! All calls here block their thread until what they say is so, and panic where it is not so in time. A test in
//! which something else must run meanwhile, as a client under load during a failover, wants tokio's multi-thread
//! flavour, whose own tasks go on beside a blocked test.
#![allow(dead_code, unused_imports, reason = "each test crate uses its part of it")]
#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::must_use_candidate, reason = "tests")]
#![allow(clippy::needless_pass_by_value, reason = "what is taken is used up")]

mod acl;
mod admin;
mod cluster;
mod folder;
mod options;
mod pair;
mod patience;
mod port;
mod process;
mod proxy;
mod sentinels;
mod server;
mod slot_move;
mod tls;
mod topology;

pub use self::{
    acl::acl_user,
    admin::Ttl,
    cluster::RedisCluster,
    options::Options,
    pair::Pair,
    patience::{PATIENCE, eventually},
    proxy::{End, Proxy},
    sentinels::Sentinels,
    server::RedisServer,
    slot_move::SlotMove,
    tls::Tls,
};
