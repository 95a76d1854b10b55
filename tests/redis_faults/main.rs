//! Guarantees G1 to G7 on real Redis servers that are killed, hung, emptied, filled, cut off and replaced.
//!
//! Nodes are hubs in this process, each with its guardian; a producer makes numbered events on a schedule; clients note
//! when each event came. Every scenario ends in a verdict over what clients saw, what the store holds, and the counters.
#![cfg(all(feature = "redis", feature = "test-util"))]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::needless_pass_by_value, reason = "what is closed is gone")]

#[allow(dead_code, reason = "it uses its part of it")]
#[path = "../guarantees/checker.rs"]
mod checker;
#[path = "../common/mod.rs"]
mod common;
#[path = "../redis_servers/mod.rs"]
mod redis_servers;

mod client;
mod stage;

mod asleep;
mod clock;
mod cut_off;
mod distance;
mod emptied;
mod failover;
mod full;
mod halves;
mod idle;
mod killed;
mod network;
mod scripts;
mod unanswered;
mod wrong_type;
