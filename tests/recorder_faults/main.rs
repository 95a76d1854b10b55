//! Guarantees G2 and G7: what a store that fails does to streams, and what it does not.
//!
//! A producer makes numbered events on a schedule, on the paused clock, while its store is slow,
//! hangs, refuses, loses replies or forgets. A client notes when each event came.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ahead;
mod bounds;
mod durability;
mod endings;
mod forgotten;
mod linger;
mod outages;
mod refused;
mod said_again;
mod shares;
mod support;
mod unavailable;
