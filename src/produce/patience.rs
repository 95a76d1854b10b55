//! The wait of a driven body for slow readers on its own node (guarantee G8).

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::absence::LOOK_EVERY;
use crate::recorder::Lane;

/// The wait for readers that would otherwise miss events, because the log trims them.
///
/// If another reader has caught up, the body waits at most `stall` in total, until the slow readers are near. Otherwise
/// it waits as a plain body does. If its route has a limit, it then waits at most that long while the slowest reader
/// does not move. A reader that does not catch up in time gets a `gap`.
#[derive(Default)]
pub(crate) struct Patience {
    wait: Option<Wait>,
    /// How long the wait has held up readers that had caught up.
    held_up: Duration,
}

/// The limits of a body's wait for slow readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The limit if another reader has caught up.
    pub(crate) stall: Duration,
    /// The limit if no reader has caught up. `None` means no limit.
    pub(crate) alone: Option<Duration>,
}

struct Wait {
    /// When the readers were last checked.
    checked_at: Instant,
    /// The place of the slowest reader.
    slowest: u64,
    /// When the slowest reader last moved.
    still_since: Instant,
    /// The timer of the next check.
    next_check: Pin<Box<Sleep>>,
}

impl Patience {
    /// Returns how many events may be made now.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        lane: &Lane,
        limits: Limits,
        is_read_elsewhere: impl Fn() -> bool,
    ) -> Poll<usize> {
        let readers = &lane.readers;
        let bounds = lane.bounds();
        if self.wait.is_none()
            && let Some(room) = bounds.room(readers.lowest())
        {
            return Poll::Ready(room);
        }
        loop {
            // Set before the check, so that a reader that moves afterwards wakes this task.
            readers.wait_for(bounds.floor);
            let seen = readers.read_places(&bounds);
            let now = Instant::now();
            let others = self.wait.is_some() && (seen.caught_up || is_read_elsewhere());
            self.count(now, others);
            if seen.all_near {
                self.held_up = Duration::ZERO;
            } else if self.held_up >= limits.stall {
                // This passes by even a reader that has just moved. Otherwise each of its steps would prolong the wait.
                readers.pass_by(bounds.half);
                self.held_up = Duration::ZERO;
                continue;
            }
            if let Some(room) = bounds.room(seen.slowest) {
                readers.wait_for(0);
                self.wait = None;
                return Poll::Ready(room);
            }
            let left = self.time_left(now, seen.slowest, others, limits);
            if left.is_zero() {
                readers.pass_by(bounds.floor);
                self.held_up = Duration::ZERO;
            } else if self.sleep(cx, now, left).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Adds the time since the last check, if other readers were held up in it.
    fn count(&mut self, now: Instant, others: bool) {
        if let Some(wait) = &mut self.wait {
            let since = now - std::mem::replace(&mut wait.checked_at, now);
            self.held_up += if others { since } else { Duration::ZERO };
        }
    }

    /// Returns how long the body may still wait.
    fn time_left(&mut self, now: Instant, slowest: u64, others: bool, limits: Limits) -> Duration {
        let begin = || Wait { checked_at: now, slowest, still_since: now, next_check: Box::pin(sleep_until(now)) };
        let wait = self.wait.get_or_insert_with(begin);
        if wait.slowest != slowest {
            (wait.slowest, wait.still_since) = (slowest, now);
        }
        let still = now - wait.still_since;
        let alone = limits.alone.map_or(Duration::MAX, |alone| alone.saturating_sub(still));
        let stall = limits.stall.saturating_sub(self.held_up);
        if others { alone.min(stall) } else { alone }
    }

    fn sleep(&mut self, cx: &mut Context<'_>, now: Instant, left: Duration) -> Poll<()> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(()) };
        wait.next_check.as_mut().reset(now + left.min(LOOK_EVERY));
        wait.next_check.as_mut().poll(cx)
    }
}
