//! G11: cancelling or panicking harms no other stream.

mod after_last;
mod cancel;
mod cancel_publishing;
mod fused;
mod panics;
mod stops;
mod withdrawals;
