//! Registering a running producer again.

use std::time::Duration;

use super::{Fence, Open};

/// A request to register a running producer that the store forgot.
#[derive(Clone, Debug)]
pub struct Reopen {
    /// The producer's registration.
    ///
    /// `create` and `limit` are ignored, and the fingerprint is stored without being compared. If `acknowledged` is above
    /// zero, the stream counts as started, even if `started` is not set.
    pub open: Open,
    /// The producer's run.
    pub epoch: u64,
    /// The seq of the last event that the store had acknowledged before it forgot.
    pub acknowledged: u64,
    /// The last id that the inner service gave an event of its own, acknowledged or not.
    pub inner_id: Option<String>,
    /// The last reconnect delay that the inner service set, in milliseconds.
    pub inner_retry: Option<u64>,
    /// How long ago the run began. If the conversation's pointer is lost, it is put back with this as the turn's
    /// [`Place::since`](crate::store::Place::since).
    pub since: Duration,
}

/// The outcome of [`Reopen`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reopened {
    /// The caller is the stream's producer.
    Registered,
    /// The caller is no longer the stream's producer.
    Fenced(Fence),
}
