#![doc = include_str!("clients.md")]
// The floor's own: the decisions, without any I/O. Every function takes what is known, and `now`, and says what to do. It knows no
// runtime, no HTTP and no store, so that its rules can be tested one by one.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod cursor;
pub(crate) mod replay;
pub(crate) mod trust;
