//! `RedisStore` keeps to the contract on Valkey, too.
#![cfg(all(feature = "redis", feature = "test-util"))]

mod redis_servers;
#[path = "redis_conformance/mod.rs"]
mod valkey;

/// What this crate's tests say, and those of the others whose names begin with `valkey`.
#[test]
fn the_server_is_valkey_9() {
    let version = redis_servers::RedisServer::start().info("valkey_version");
    assert!(version.as_ref().is_some_and(|version| version.starts_with("9.")), "{version:?}");
}
