//! The full name of a stream: its owner and its id.

use super::{Owner, StreamId};

/// What a store files a stream under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Whose stream it is.
    pub owner: Owner,
    /// Its name among the owner's streams.
    pub id: StreamId,
}

impl StreamKey {
    /// Puts owner and id together.
    #[must_use]
    pub fn new(owner: Owner, id: StreamId) -> Self {
        Self { owner, id }
    }
}
