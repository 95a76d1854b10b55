//! Real Redis servers that are killed, hung, emptied, filled and cut off under live streams, and the harness that does it.
//! `tests/valkey` runs `servers` on Valkey.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod harness;
#[cfg(feature = "redis")]
mod servers;
