//! The events of a lane that wait for the store.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::limits::EntryLimits;
use crate::model::stream::Frame;

/// The greatest capacity that the queue keeps while it is empty.
const FEW: usize = 4;

/// The events of a lane that wait for the store.
#[derive(Default)]
pub(super) struct Pending {
    /// The frames, each with the seq of its first event. There may be holes between them, of events without room.
    frames: VecDeque<(u64, Frame)>,
    pub(super) events: u64,
    pub(super) bytes: usize,
    /// When the oldest event was pushed.
    pub(super) since: Option<Instant>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the seq of the oldest event.
    pub(super) fn first(&self) -> Option<u64> {
        self.frames.front().map(|(first, _)| *first)
    }

    /// Adds the newest events. The last one has the seq `last`.
    pub(super) fn push(&mut self, last: u64, events: Frame) {
        if events.is_empty() {
            return;
        }
        self.events += events.count;
        self.bytes += events.bytes.len();
        if self.frames.capacity() == 0 {
            // Usually a single frame waits at a time, so a capacity of one is enough, and is kept.
            self.frames.reserve_exact(1);
        }
        self.frames.push_back((last + 1 - events.count, events));
    }

    /// Removes and returns the oldest frame.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let (_, oldest) = self.frames.pop_front()?;
        self.events -= oldest.count;
        self.bytes -= oldest.bytes.len();
        if self.frames.is_empty() {
            self.since = None;
            if self.frames.capacity() > FEW {
                self.frames = VecDeque::new();
            }
        }
        Some(oldest)
    }

    /// Removes the oldest events, as many as fit in an entry, and returns them as one frame.
    pub(super) fn take_batch(&mut self, limits: EntryLimits) -> Frame {
        let (mut events, mut bytes, mut frames) = (0, 0, 0);
        let begins = self.first().unwrap_or_default();
        for (first, frame) in &self.frames {
            let more = (events + frame.count, bytes + frame.bytes.len());
            if *first != begins + events || !limits.take(more.0, more.1) {
                break;
            }
            ((events, bytes), frames) = (more, frames + 1);
        }
        // The oldest frame goes whole, however large.
        if frames <= 1 {
            return self.pop().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(bytes);
        for (_, frame) in self.frames.drain(..frames) {
            all.extend_from_slice(&frame.bytes);
        }
        self.events -= events;
        self.bytes -= bytes;
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
            self.since = None;
        }
        Frame { count: events, bytes: Bytes::from(Vec::from(all)) }
    }

    /// Drops all events.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.since = None;
        self.events = 0;
        self.bytes = 0;
    }
}
