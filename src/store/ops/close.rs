//! Ending a stream.

use std::time::Duration;

use crate::model::{
    id::{NodeId, StreamKey},
    stream::{Ended, Ending},
};

/// A request to end a stream.
#[derive(Clone, Debug)]
pub struct Close {
    /// The stream to end.
    pub key: StreamKey,
    /// The run to end. `None`: the newest one, whichever it is.
    pub epoch: Option<u64>,
    /// How the stream ends.
    pub ending: Ending,
    /// The seq of the last event that was made, recorded or not. `None`: the last one recorded.
    pub last: Option<u64>,
    /// End the stream only if its deadline is still this one.
    pub if_deadline: Option<u64>,
    /// `Some`: an `on_end` hook must run, and the caller has this long to run it before others may.
    pub hook: Option<Duration>,
}

/// The outcome of [`Close`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// This request ended the stream.
    Now {
        /// The end that was stored.
        ended: Ended,
        /// The node that produced the stream.
        node: Option<NodeId>,
    },
    /// The stream had ended before, in this way.
    Before(Ended),
    /// A newer run than the one named exists.
    Newer,
    /// The deadline has moved: the producer lives.
    Moved,
    /// The store does not hold the stream, or only an older run than the one named.
    Missing,
}
