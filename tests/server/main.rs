//! The example server as a process, over real sockets: it works as its page says.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod chats;
mod cursors;
mod drains;
mod heads;
mod jobs;
mod lifecycle;
mod page;
mod publish;
mod readers;
mod refusals;
mod streams;
