//! An estimate of the server's clock: the last time that the server sent, plus the time since then.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::runtime::sync::lock;

#[derive(Default)]
pub(super) struct Clock(Mutex<Option<(Instant, u64)>>);

impl Clock {
    /// Records the time that the server sent, in unix milliseconds.
    pub(super) fn set(&self, store_ms: u64) {
        *lock(&self.0) = Some((Instant::now(), store_ms));
    }

    /// Returns the estimated time of the server, in unix milliseconds. Before the server has sent a time, it is the
    /// time of this process.
    pub(super) fn now(&self) -> u64 {
        match *lock(&self.0) {
            Some((at, store_ms)) => store_ms.saturating_add(millis(at.elapsed())),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
        }
    }
}

/// The longest duration that is stored, in milliseconds: about 2,000 years. Numbers in Lua scripts are exact up to
/// 2^53, so the sum of a time and this duration is exact.
pub(super) const LONGEST: u64 = 1 << 46;

/// Converts a duration to milliseconds, at most [`LONGEST`].
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(LONGEST)
}
