#![doc = include_str!("clients.md")]
// This module makes decisions without any I/O. Each function takes the known facts and the current time, and returns
// what to do. It depends on no runtime, no HTTP and no store, so that each rule can be tested on its own.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod cursor;
pub(crate) mod replay;
pub(crate) mod trust;
