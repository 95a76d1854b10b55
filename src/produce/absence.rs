//! Measures how long a stream whose work goes on has had no reader.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    model::{
        config::UNATTENDED,
        stream::{Reason, reason},
    },
    node::Node,
    recorder::{Lane, unattended::Listed},
    telemetry::Counted,
};

/// How often a body without readers on its own node checks for readers on others.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The reason for ending the work of a stream that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The stream has had no reader for as long as its route allows.
    TooLong,
    /// Too many streams of the process have no reader.
    TooMany,
}

impl Unread {
    /// Returns the reason with which the stream fails.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::TooLong => reason::DETACH_TIMEOUT,
            Self::TooMany => reason::DETACH_LIMIT,
        }
    }
}

/// Watches the readers of a stream whose work goes on without the request that began it.
pub(crate) struct Attendance {
    node: Arc<Node>,
    lane: Arc<Lane>,
    /// Set while the stream has no reader on this node.
    absence: Option<Absence>,
}

/// A period without readers on the node that produces a stream.
#[derive(Default)]
struct Absence {
    /// When the last reader left. `None` while there are readers on another node.
    since: Option<Instant>,
    /// The timer of the next check for readers on other nodes. `None` before the first check.
    next_check: Option<Pin<Box<Sleep>>>,
    counted: Option<Counted>,
    listed: Option<Listed>,
}

impl Attendance {
    /// Starts watching the readers of a stream that a task drives on.
    pub(crate) fn new(node: &Arc<Node>, lane: &Arc<Lane>) -> Self {
        let absence = if node.is_read(lane) { None } else { Some(Absence::begin(node)) };
        Self { node: Arc::clone(node), lane: Arc::clone(lane), absence }
    }

    /// Whether nobody reads the stream, on any node.
    pub(crate) fn is_unread(&self) -> bool {
        self.absence.as_ref().is_some_and(|absence| absence.since.is_some())
    }

    /// Completes when the stream has had no reader for `limit`, or when too many streams have no reader.
    ///
    /// Readers on this node wake the lane's drive. Readers on other nodes are found by asking the store.
    pub(crate) fn poll_unread(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Unread> {
        if self.lane.readers.any() {
            self.absence = None;
            return Poll::Pending;
        }
        self.absence.get_or_insert_with(Absence::default).poll(cx, &self.node, &self.lane, limit)
    }
}

impl Absence {
    /// Begins an absence at the moment when the last reader left.
    fn begin(node: &Node) -> Self {
        Self { since: Some(Instant::now()), counted: Some(counted(node)), ..Self::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>, node: &Node, lane: &Arc<Lane>, limit: Duration) -> Poll<Unread> {
        while self.is_evicted() || self.next_check.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_ready()) {
            let now = Instant::now();
            let next = if node.is_read_elsewhere(lane) {
                (self.since, self.counted, self.listed) = (None, None, None);
                now + LOOK_EVERY
            } else {
                if let Some(unread) = self.go_on(now, node, lane, limit) {
                    return Poll::Ready(unread);
                }
                self.time_of_next_check(now, limit)
            };
            match &mut self.next_check {
                Some(timer) => timer.as_mut().reset(next),
                None => self.next_check = Some(Box::pin(sleep_until(next))),
            }
        }
        Poll::Pending
    }

    fn is_evicted(&self) -> bool {
        self.listed.as_ref().is_some_and(Listed::is_evicted)
    }

    /// Continues the absence. Returns the reason to end the work if a limit has passed.
    fn go_on(&mut self, now: Instant, node: &Node, lane: &Arc<Lane>, limit: Duration) -> Option<Unread> {
        let since = *self.since.get_or_insert(now);
        self.counted.get_or_insert_with(|| counted(node));
        if now - since >= limit {
            return Some(Unread::TooLong);
        }
        if now - since >= UNATTENDED {
            self.listed.get_or_insert_with(|| node.unattended.list(lane, since));
        }
        self.is_evicted().then_some(Unread::TooMany)
    }

    fn time_of_next_check(&self, now: Instant, limit: Duration) -> Instant {
        let since = self.since.unwrap_or(now);
        let end = since.checked_add(limit).unwrap_or(now + LOOK_EVERY);
        let listing = if self.listed.is_none() { since + UNATTENDED } else { end };
        (now + LOOK_EVERY).min(end).min(listing)
    }
}

/// Counts a stream that runs without any reader in the telemetry, until the result is dropped.
fn counted(node: &Node) -> Counted {
    Counted::new(&node.telemetry, |telemetry| &telemetry.detached)
}
