//! The guarantees G1 to G6 and the table of admissions, each in scenarios that one checker judges.
#![cfg(feature = "test-util")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod checker;
mod client;
mod stage;

mod g1_cursors;
mod g1_emptied;
mod g1_nodes;
mod g1_policies;
mod g1_resume;
mod g1_runs;
mod g2_durability;
mod g3_endings;
mod g3_failover;
mod g3_hooks;
mod g3_terminal;
mod g4_fencing;
mod g4_races;
mod g5_drain;
mod g5_orphans;
mod g5_real;
mod g5_trust;
mod stops;
