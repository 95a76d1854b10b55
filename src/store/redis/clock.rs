//! An estimate of the server's clock: its last known time, plus the time since.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::runtime::sync::lock;

#[derive(Default)]
pub(super) struct Clock(Mutex<Option<(Instant, u64)>>);

impl Clock {
    /// Notes the time of the server, in unix milliseconds.
    pub(super) fn set(&self, store_ms: u64) {
        *lock(&self.0) = Some((Instant::now(), store_ms));
    }

    /// The estimated time of the server, in unix milliseconds.
    pub(super) fn now(&self) -> u64 {
        match *lock(&self.0) {
            Some((at, store_ms)) => store_ms.saturating_add(millis(at.elapsed())),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
        }
    }
}

/// The longest duration that is stored, about 2,000 years in milliseconds. Numbers in scripts are exact up to 2^53, so sums of
/// a time and this are exact.
pub(super) const LONGEST: u64 = 1 << 46;

/// A duration in milliseconds, at most [`LONGEST`].
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(LONGEST)
}
