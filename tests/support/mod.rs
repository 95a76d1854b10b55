//! Helpers that several suites share: servers, proxies, inner bodies, clients, clocks, and the checker.
#![allow(dead_code, reason = "each suite uses its part of it")]

pub mod bench;
pub mod bodies;
pub mod checker;
pub mod example;
pub mod handlers;
pub mod logged;
pub mod random;
pub mod redis;
pub mod rig;
pub mod yielding;
