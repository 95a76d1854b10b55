//! Conversations: turns, what overlaps, what is resumed and stopped, and what a crash leaves undone.
#![cfg(feature = "test-util")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "redis")]
#[path = "../redis_servers/mod.rs"]
mod redis_servers;

mod crashes;
mod explored;
mod kept;
mod late;
mod named;
mod overlaps;
mod races;
mod resumes;
mod stage;
mod stops;
mod storms;
mod turns;
mod wire;
