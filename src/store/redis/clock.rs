//! The store's clock, as far as its last word and the time since tell.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::runtime::sync::lock;

#[derive(Default)]
pub(super) struct Clock(Mutex<Option<(Instant, u64)>>);

impl Clock {
    /// The store said what time it is, in unix milliseconds.
    pub(super) fn heard(&self, store_ms: u64) {
        *lock(&self.0) = Some((Instant::now(), store_ms));
    }

    pub(super) fn now(&self) -> u64 {
        match *lock(&self.0) {
            Some((at, store_ms)) => store_ms.saturating_add(millis(at.elapsed())),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
        }
    }
}

/// Some 2,000 years in milliseconds, longer than anything lasts: what scripts count with is exact up to 2^53.
pub(super) const LONGEST: u64 = 1 << 46;

/// In milliseconds, at most [`LONGEST`].
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(LONGEST)
}
