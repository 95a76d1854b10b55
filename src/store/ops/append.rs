//! Recording a producer's events.

use super::Fence;
use crate::model::{id::StreamKey, metadata::Metadata, stream::Frame};

/// A batch of contiguous events of one producer, stored as one entry of the log.
///
/// A batch without events reports the rest: that the producer has started, metadata, the last id and reconnect delay of
/// the inner service.
///
/// A log is cut between batches, so a producer keeps them small: at most a sixteenth of the events and bytes that the log
/// may hold, unless a single event is larger.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream to append to.
    pub key: StreamKey,
    /// The producer's run.
    pub epoch: u64,
    /// Whether the producer has begun to answer: see [`StreamInfo::started`](crate::StreamInfo::started).
    ///
    /// A batch with events starts the stream too. Metadata alone does not: such a registration can still be withdrawn.
    pub starts: bool,
    /// The seq of the first event.
    pub first: u64,
    /// The events.
    pub events: Frame,
    /// The last id in the batch that the inner service gave an event of its own.
    pub inner_id: Option<String>,
    /// The last reconnect delay, in milliseconds, that the inner service set in or before the batch.
    pub inner_retry: Option<u64>,
    /// Metadata to keep with the stream. A key that is there already is replaced; a pair that would take keys and values
    /// beyond 4 KiB is left out.
    pub metadata: Metadata,
}

impl Append {
    /// The seq of the last event, or of the one before `first` if the batch is empty.
    pub(crate) fn last(&self) -> u64 {
        (self.first + self.events.count).saturating_sub(1)
    }
}

/// The outcome of one [`Append`]. Any outcome but `Stored` has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// The store holds the whole batch.
    Stored,
    /// The caller is no longer the stream's producer.
    Fenced(Fence),
    /// The store does not hold the stream, or only an older run of it. The producer then
    /// [reopens](crate::Store::reopen) it.
    Gone,
    /// This stream cannot be written now, for a reason that does not concern other streams: a key of another type is in
    /// the way, the Cluster node that holds it is away, or the log holds a part of the batch.
    ///
    /// The producer sends the batch again, unchanged.
    Refused,
}
