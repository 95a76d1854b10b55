//! The full name of a stream: its owner and its id.

use super::{Owner, StreamId};

/// The key under which a store keeps a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The owner of the stream.
    pub owner: Owner,
    /// The stream's name among the owner's streams.
    pub id: StreamId,
}

impl StreamKey {
    /// Creates the key of an owner's stream.
    #[must_use]
    pub fn new(owner: Owner, id: StreamId) -> Self {
        Self { owner, id }
    }
}
