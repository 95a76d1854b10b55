//! Tests of stores: the contract on every store that ships, the memory store beside a model, and the particulars of Redis.
//! `tests/valkey` runs `redis_store` on Valkey.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod conformance;
mod model;
#[cfg(feature = "redis")]
mod redis_store;
#[cfg(feature = "redis-tls")]
mod redis_tls;
