//! Publishing without a registration.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use crate::model::{
    id::{EventId, StreamKey},
    retention::Retention,
    stream::{Ended, StreamState},
};

/// An event from a publisher that holds no registration.
///
/// It opens the stream if the store does not hold it.
///
/// It also begins a new run of a stream that ended as [`StreamState::Expired`] and never had a producer: nobody declared such
/// a stream finished, only nothing was published for its lifetime. The expired end is taken back, with its `on_end` hook if
/// that has not run yet, and readers go on with the new run after a restart. Any other end is final.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The stream to publish to.
    pub key: StreamKey,
    /// What the stream is for, if this request opens it.
    pub kind: Cow<'static, str>,
    /// The event in wire format, up to its id, which the store assigns. With `ends`: the whole block of the terminal event.
    pub block: Bytes,
    /// The rest of the event in wire format, after the id.
    pub after_id: Bytes,
    /// The state in which this event ends the stream. `None`: the stream goes on.
    pub ends: Option<StreamState>,
    /// Makes the request repeatable: a second request with the same key gets the id of the first.
    ///
    /// A stream remembers the keys of its newest 1024 events that came with one, across runs.
    pub idempotency_key: Option<String>,
    /// `Some`: an `on_end` hook must run, and the caller has this long to run it before others may.
    pub hook: Option<Duration>,
    /// How long and how much the store keeps.
    pub retention: Retention,
}

/// The outcome of [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Published {
    /// The store holds the event, under this id.
    Stored(EventId),
    /// The store holds the event, and it ended the stream.
    Ended(Ended),
    /// The stream has a registered producer, and only that may append.
    Conflict,
    /// The stream had ended before.
    EndedBefore(Ended),
}
