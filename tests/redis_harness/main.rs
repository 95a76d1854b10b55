//! The harness of Redis processes does what the tests on it rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../redis_servers/mod.rs"]
mod redis_servers;

mod clusters;
mod failovers;
mod faults;
mod servers;
