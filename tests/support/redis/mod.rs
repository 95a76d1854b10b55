//! Real Redis processes for tests: a single server, a master with a replica, a Cluster, Sentinels, and a proxy that
//! injects network faults in front of any of them.
//!
//! Each process listens on ports of 127.0.0.1 that no other test uses, has a folder of its own, and is killed when its
//! handle is dropped. Servers are Redis 7 or later (`redis-server` on the path), or Valkey 9 (from `.ci/valkey`) in test
//! crates whose names begin with `valkey`.
//!
//! Every function here blocks its thread until the described state is reached, and panics after [`PATIENCE`]. A test
//! whose tasks must run meanwhile, such as a client under load during a failover, needs tokio's multi-thread runtime.
#![allow(dead_code, unused_imports, reason = "each test crate uses its part of it")]
#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::must_use_candidate, reason = "tests")]
#![allow(clippy::needless_pass_by_value, reason = "taking a value shows that the call consumes it")]

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
