//! How long a body that is driven on waits for slow readers of its own node (guarantee G8).

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::absence::LOOK_EVERY;
use crate::recorder::Lane;

/// Waits for readers that the body would otherwise overtake by more than the log holds.
///
/// If another reader has caught up, the body waits at most `stall` in total, until the slow ones have come near. Otherwise
/// it waits as a plain body does, and where its route has a limit, for at most that long while the slowest reader does not
/// move. A reader that does not catch up in time gets a `gap`.
#[derive(Default)]
pub(crate) struct Patience {
    wait: Option<Wait>,
    /// For how long others were held up.
    held_up: Duration,
}

/// For how long a body waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Where another reader has caught up.
    pub(crate) stall: Duration,
    /// Where none has. `None` is no limit.
    pub(crate) alone: Option<Duration>,
}

struct Wait {
    /// When the readers were last looked at.
    looked: Instant,
    /// The place of the slowest reader, and when it last moved.
    slowest: u64,
    still_since: Instant,
    look: Pin<Box<Sleep>>,
}

impl Patience {
    /// Ready with how many events may be made now.
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
            // Before the look: a reader that moves afterwards wakes this task.
            readers.wait_for(bounds.floor);
            let seen = readers.look(&bounds);
            let now = Instant::now();
            let others = self.wait.is_some() && (seen.caught_up || is_read_elsewhere());
            self.count(now, others);
            if seen.all_near {
                self.held_up = Duration::ZERO;
            } else if self.held_up >= limits.stall {
                // Also one that has just moved: each of its steps would buy it another wait.
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

    /// Counts the time since the last look, if others were held up in it.
    fn count(&mut self, now: Instant, others: bool) {
        if let Some(wait) = &mut self.wait {
            let since = now - std::mem::replace(&mut wait.looked, now);
            self.held_up += if others { since } else { Duration::ZERO };
        }
    }

    /// For how long the body may go on waiting.
    fn time_left(&mut self, now: Instant, slowest: u64, others: bool, limits: Limits) -> Duration {
        let begin = || Wait { looked: now, slowest, still_since: now, look: Box::pin(sleep_until(now)) };
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
        wait.look.as_mut().reset(now + left.min(LOOK_EVERY));
        wait.look.as_mut().poll(cx)
    }
}
