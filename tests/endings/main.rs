//! How a body ends (guarantee G12): for each way to end, in each voice, what the client gets over HTTP/1.1 and HTTP/2, and
//! when the error comes.
#![cfg(feature = "test-util")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod arrival;
mod client;
mod expected;
#[path = "../bounds/logged.rs"]
mod logged;
mod old_http;
mod stage;
mod ways;
