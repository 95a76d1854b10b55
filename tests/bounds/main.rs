//! Bounds, leaks, owners, bytes and cancellation (guarantees G6, G8, G9, G10, G11), publisher and relay.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod after_last;
mod behind;
mod bench;
mod bytes_pass;
mod cancel;
mod cancel_publishing;
mod cursors;
mod drains;
mod endings;
mod framing;
mod fused;
mod identity;
mod kept;
mod late_guardian;
mod leaks;
mod let_go;
mod logged;
mod names;
mod owners;
mod panics;
mod publishing;
mod readers;
mod recovery;
mod rejections;
mod relay;
mod settings;
mod slow;
mod stopping;
mod support;
mod touched;
mod unattended;
mod unrecorded;
mod vectors;
mod wakes;
mod withdrawals;
mod yielding;
