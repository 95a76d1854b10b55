//! What a log holds.

use bytes::Bytes;

use super::Ended;
use crate::model::id::EventId;

/// Events of one run as they go over the wire, one after the other, each whole and with its id, without holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// How many events these are.
    pub count: u64,
    /// The events.
    pub bytes: Bytes,
}

impl Frame {
    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id; of several events the last one's.
    pub id: EventId,
    /// When it was recorded, by the store's clock, in unix milliseconds.
    pub at: u64,
    /// What it is.
    pub kind: RecordKind,
}

impl Record {
    /// The id of its first event; of what is no event its own.
    #[must_use]
    pub fn first(&self) -> EventId {
        match &self.kind {
            RecordKind::Events(frame) => {
                EventId::new(self.id.epoch, self.id.seq.saturating_sub(frame.count.saturating_sub(1)))
            }
            RecordKind::Run { .. } | RecordKind::End(_) => self.id,
        }
    }

    /// The run that it belongs to. An end has the id of the run that would come next: that is what fences.
    pub(crate) fn run(&self) -> u64 {
        match &self.kind {
            RecordKind::Events(_) | RecordKind::Run { .. } => self.id.epoch,
            RecordKind::End(ended) => ended.last.epoch,
        }
    }
}

/// What an entry of a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Events, up to a batch of them.
    Events(Frame),
    /// A run begins; readers skip it, but learn where the run before it ended.
    Run {
        /// The last event that the run before made, recorded or not.
        previous: Option<EventId>,
    },
    /// The stream ended.
    End(Box<Ended>),
}
