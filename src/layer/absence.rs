//! How long nobody has read a stream whose work goes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::unattended::Listed;
use crate::{
    config::UNATTENDED,
    hub::Core,
    recorder::Lane,
    stream::{Reason, reason},
    telemetry::Counted,
};

/// How often a body without readers on its own node looks whether there are some on others.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the work of a stream that nobody reads ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nobody has read it for as long as its route allows.
    TooLong,
    /// Too many streams of the process are read by nobody.
    TooMany,
}

impl Unread {
    /// The reason with which a stream fails for that.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::TooLong => reason::DETACH_TIMEOUT,
            Self::TooMany => reason::DETACH_LIMIT,
        }
    }
}

/// The readers of a stream whose work goes on without the request that began it.
pub(super) struct Attendance {
    core: Arc<Core>,
    lane: Arc<Lane>,
    /// While nobody reads on this node.
    absence: Option<Absence>,
}

/// A time in which nobody reads on the node that produces a stream.
#[derive(Default)]
struct Absence {
    /// When the last reader left; `None` while there are readers on another node.
    since: Option<Instant>,
    /// When to look next; at once while there is none.
    look: Option<Pin<Box<Sleep>>>,
    counted: Option<Counted>,
    listed: Option<Listed>,
}

impl Attendance {
    /// Starts watching the readers of a stream that a task drives on.
    pub(super) fn new(core: &Arc<Core>, lane: &Arc<Lane>) -> Self {
        let absence = if core.is_read(lane) { None } else { Some(Absence::begin(core)) };
        Self { core: Arc::clone(core), lane: Arc::clone(lane), absence }
    }

    /// Whether nobody reads the stream, on any node.
    pub(super) fn is_unread(&self) -> bool {
        self.absence.as_ref().is_some_and(|absence| absence.since.is_some())
    }

    /// Ready once nobody has read for `limit`, or one stream too many is read by nobody.
    ///
    /// Readers of this node wake the lane's drive. Readers on other nodes are only found by asking the store.
    pub(super) fn poll_unread(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<Unread> {
        if self.lane.readers.any() {
            self.absence = None;
            return Poll::Pending;
        }
        self.absence.get_or_insert_with(Absence::default).poll(cx, &self.core, &self.lane, limit)
    }
}

impl Absence {
    /// The last reader has just left.
    fn begin(core: &Core) -> Self {
        Self { since: Some(Instant::now()), counted: Some(counted(core)), ..Self::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>, core: &Core, lane: &Arc<Lane>, limit: Duration) -> Poll<Unread> {
        while self.is_evicted() || self.look.as_mut().is_none_or(|look| look.as_mut().poll(cx).is_ready()) {
            let now = Instant::now();
            let next = if core.is_read_elsewhere(lane) {
                (self.since, self.counted, self.listed) = (None, None, None);
                now + LOOK_EVERY
            } else {
                if let Some(unread) = self.go_on(now, core, lane, limit) {
                    return Poll::Ready(unread);
                }
                self.next_look(now, limit)
            };
            match &mut self.look {
                Some(look) => look.as_mut().reset(next),
                None => self.look = Some(Box::pin(sleep_until(next))),
            }
        }
        Poll::Pending
    }

    fn is_evicted(&self) -> bool {
        self.listed.as_ref().is_some_and(Listed::is_evicted)
    }

    /// Counts the time without readers on. Returns the reason if a limit has passed.
    fn go_on(&mut self, now: Instant, core: &Core, lane: &Arc<Lane>, limit: Duration) -> Option<Unread> {
        let since = *self.since.get_or_insert(now);
        self.counted.get_or_insert_with(|| counted(core));
        if now - since >= limit {
            return Some(Unread::TooLong);
        }
        if now - since >= UNATTENDED {
            self.listed.get_or_insert_with(|| core.unattended.list(lane, since));
        }
        self.is_evicted().then_some(Unread::TooMany)
    }

    fn next_look(&self, now: Instant, limit: Duration) -> Instant {
        let since = self.since.unwrap_or(now);
        let end = since.checked_add(limit).unwrap_or(now + LOOK_EVERY);
        let listing = if self.listed.is_none() { since + UNATTENDED } else { end };
        (now + LOOK_EVERY).min(end).min(listing)
    }
}

/// Counts one more stream that runs on without any reader.
fn counted(core: &Core) -> Counted {
    Counted::new(&core.telemetry, |telemetry| &telemetry.detached)
}
