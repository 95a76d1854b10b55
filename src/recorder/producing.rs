//! A producer as its lane sees it: how it stands, how it goes, and what it can be told.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::stream::{Ended, Ending, Reason, StreamState};

/// Bytes that a lane is charged for its end until that is stored, besides the terminal event's.
const END_COST: usize = 512;

/// Where a producer stands, as far as the store has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is the stream's producer.
    Running,
    /// It is not any more: a newer run began, or may begin.
    Superseded,
    /// The stream has ended. Boxed: most lanes run.
    Ended(Box<Ended>),
}

/// How a producer goes.
#[derive(Clone, Debug)]
pub(crate) enum EndRequest {
    /// For good. Boxed: a producer has one at most, at its end.
    Close(Box<Ending>),
    /// For now.
    Interrupt,
}

impl EndRequest {
    /// Bytes that it is charged while it waits for the store.
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

    /// An ending that the library supplies.
    pub(crate) fn supplied(state: StreamState, reason: Reason) -> Self {
        Self::close(Ending::supplied(state, reason))
    }
}

/// The code that makes events: what a lane can tell it.
pub(crate) trait Producing: Send + Sync {
    /// The stream ended or went to another producer: the inner code is to be dropped, unless it is
    /// to be served to its end. Called on the executor.
    fn halted(self: Arc<Self>);

    /// The process goes down: where the work outlives its client, that is let go. Called on the executor.
    fn release(self: Arc<Self>);

    /// The inner code is to be dropped, however the stream stands. Called on the executor.
    fn discard(self: Arc<Self>);

    /// Whether the stream never finishes, so that nothing is gained by waiting for its end.
    fn is_endless(&self) -> bool {
        false
    }
}
