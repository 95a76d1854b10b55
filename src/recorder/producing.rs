//! The interface between a lane and its producer.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::stream::{Ended, Ending, Reason, StreamState};

/// The bytes that an end is charged until it is stored, besides those of its terminal event.
const END_COST: usize = 512;

/// The status of a producer, according to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The producer is running.
    Running,
    /// The producer is no longer the stream's producer: a newer run began, or may begin.
    Superseded,
    /// The stream has ended. Boxed, because most lanes are running.
    Ended(Box<Ended>),
}

/// The end that a producer requests.
#[derive(Clone, Debug)]
pub(crate) enum EndRequest {
    /// Closes the stream. Boxed, because a producer has at most one.
    Close(Box<Ending>),
    /// Interrupts the stream, which may be run again.
    Interrupt,
}

impl EndRequest {
    /// Returns the bytes that the end is charged while it waits for the store.
    pub(super) fn bytes(&self) -> usize {
        let event = match self {
            Self::Close(ending) => ending.event.as_ref(),
            Self::Interrupt => None,
        };
        END_COST + event.map_or(0, Bytes::len)
    }

    pub(crate) fn close(ending: Ending) -> Self {
        Self::Close(Box::new(ending))
    }

    /// Creates a request to close the stream with an ending that the library supplies.
    pub(crate) fn supplied(state: StreamState, reason: Reason) -> Self {
        Self::close(Ending::supplied(state, reason))
    }
}

/// The code that produces a stream's events, as its lane sees it.
pub(crate) trait Producing: Send + Sync {
    /// Handles that the stream ended or went to another producer: drops the inner code, unless it is to be served to
    /// its end. Called on the executor.
    fn halted(self: Arc<Self>);

    /// Handles the start of a drain: disconnects the client if the work outlives it. Called on the executor.
    fn release(self: Arc<Self>);

    /// Drops the inner code, whatever the state of the stream. Called on the executor.
    fn discard(self: Arc<Self>);

    /// Whether the stream never finishes, so that a drain does not wait for its end.
    fn is_endless(&self) -> bool {
        false
    }
}
