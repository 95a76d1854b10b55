//! The tests of `RedisStore` that concern the server, on Valkey: the same files as in `tests/stores` and
//! `tests/faults`.
//!
//! `support::redis` starts Valkey in a test crate of this name.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../stores/redis_store/mod.rs"]
mod redis_store;
#[path = "../faults/servers/mod.rs"]
mod servers;

/// Asserts that these tests run on Valkey.
#[test]
fn the_server_is_valkey_9() {
    let version = support::redis::RedisServer::start().info("valkey_version");
    assert!(version.as_ref().is_some_and(|version| version.starts_with("9.")), "{version:?}");
}
