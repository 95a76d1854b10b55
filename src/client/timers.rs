//! The timers of an event source.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// A time limit, or none.
#[derive(Debug)]
pub(super) struct Limit(Option<(Duration, Pin<Box<Sleep>>)>);

impl Limit {
    /// Begins now.
    pub(super) fn of(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| (limit, Box::pin(sleep(limit)))))
    }

    /// Ready with the limit when it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some((limit, sleep)) = &mut self.0 else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(*limit)
    }

    /// Begins anew.
    fn restart(&mut self) {
        if let Some((limit, sleep)) = &mut self.0 {
            let now = Instant::now();
            sleep.as_mut().reset(now.checked_add(*limit).unwrap_or(now));
        }
    }
}

/// Notices that a connection is silent for too long.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Limit,
    is_waiting: bool,
}

impl Watchdog {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit: Limit::of(limit), is_waiting: false }
    }

    /// Something has come.
    pub(super) fn heard(&mut self) {
        self.is_waiting = false;
    }

    /// Nothing is there to be read. Ready with the limit where that has been so for too long.
    ///
    /// The time counts from the first such poll on: an owner that takes long over an event does not make its connection silent.
    pub(super) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.limit.restart();
        }
        self.limit.poll(cx)
    }
}
