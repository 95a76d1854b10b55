//! The guarantees G1 to G12, a folder each, in one process and mostly on the memory store.
//!
//! A test's name begins with the guarantee that it checks. A file lies in the folder of the guarantee that most of its
//! tests check.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod stage;

mod admission;
mod conversations;
mod g1;
mod g10;
mod g11;
mod g12;
mod g2;
mod g3;
mod g4;
mod g5;
mod g6;
mod g7;
mod g8;
mod g9;
mod publishing;
mod stress;
