//! The timers of an event source.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// A time limit, or no limit.
#[derive(Debug)]
pub(super) struct Limit(Option<(Duration, Pin<Box<Sleep>>)>);

impl Limit {
    /// Starts a limit of this duration now. `None` is a limit that never passes.
    pub(super) fn of(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| (limit, Box::pin(sleep(limit)))))
    }

    /// Ready with the limit's duration once it has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some((limit, sleep)) = &mut self.0 else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(*limit)
    }

    /// Starts the limit again from now.
    fn restart(&mut self) {
        if let Some((limit, sleep)) = &mut self.0 {
            let now = Instant::now();
            sleep.as_mut().reset(now.checked_add(*limit).unwrap_or(now));
        }
    }
}

/// Notices when a connection has been silent for too long.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Limit,
    is_waiting: bool,
}

impl Watchdog {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit: Limit::of(limit), is_waiting: false }
    }

    /// Records that the connection has delivered a frame.
    pub(super) fn note_frame(&mut self) {
        self.is_waiting = false;
    }

    /// Records that a read was pending. Ready with the limit's duration once reads have been pending for that long.
    ///
    /// The time counts from the first pending read after a frame, so an owner that takes long over an event does not
    /// make its connection silent.
    pub(super) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.limit.restart();
        }
        self.limit.poll(cx)
    }
}
