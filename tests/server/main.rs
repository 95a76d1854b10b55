//! The example server as a process, over real sockets: what a newcomer starts first works as it says.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod chats;
mod cursors;
mod drains;
mod heads;
mod jobs;
mod lifecycle;
mod page;
mod process;
mod publish;
mod readers;
mod refusals;
mod streams;
