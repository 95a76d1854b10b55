//! Leaving a stream without a producer.

use super::Fence;
use crate::model::id::StreamKey;

/// A request to note that a stream has no producer now. A later request may open a new run.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// The stream to interrupt.
    pub key: StreamKey,
    /// The run to interrupt.
    pub epoch: u64,
    /// The seq of the last event that was made, recorded or not. `None`: the last one recorded.
    pub last: Option<u64>,
    /// Interrupt the stream only if its deadline is still this one.
    pub if_deadline: Option<u64>,
}

/// The outcome of [`Interrupt`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupted {
    /// The stream is interrupted, by this request or an earlier one.
    Done,
    /// A newer run exists, or the stream has ended.
    Fenced(Fence),
    /// The deadline has moved: the producer lives.
    Moved,
    /// The store does not hold the stream, or only an older run.
    Missing,
}
