//! The entries of a log.

use bytes::Bytes;

use super::Ended;
use crate::model::id::EventId;

/// Consecutive events of one run in their wire form, each whole and with its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The number of events.
    pub count: u64,
    /// The wire form of the events, one after the other.
    pub bytes: Bytes,
}

impl Frame {
    /// Whether the frame has no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The id of the entry; for several events, the id of the last one.
    pub id: EventId,
    /// When the entry was recorded, by the store's clock, in unix milliseconds.
    pub at: u64,
    /// The content of the entry.
    pub kind: RecordKind,
}

impl Record {
    /// Returns the id of the first event; for an entry without events, the id of the entry.
    #[must_use]
    pub fn first(&self) -> EventId {
        match &self.kind {
            RecordKind::Events(frame) => {
                EventId::new(self.id.epoch, self.id.seq.saturating_sub(frame.count.saturating_sub(1)))
            }
            RecordKind::Run { .. } | RecordKind::End(_) => self.id,
        }
    }

    /// Returns the epoch that the entry belongs to. The id of an end has the epoch after its run's, which fences the
    /// run.
    pub(crate) fn run(&self) -> u64 {
        match &self.kind {
            RecordKind::Events(_) | RecordKind::Run { .. } => self.id.epoch,
            RecordKind::End(ended) => ended.last.epoch,
        }
    }
}

/// The content of a log's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// One event or several events that were recorded together.
    Events(Frame),
    /// The start of a run. Readers take the end of the previous run from it and deliver nothing.
    Run {
        /// The last event that the previous run produced, recorded or not.
        previous: Option<EventId>,
    },
    /// The end of the stream.
    End(Box<Ended>),
}
