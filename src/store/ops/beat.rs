//! Signs of life of a node and its streams.

use std::{sync::Arc, time::Duration};

use crate::model::id::{NodeId, StreamKey};

/// A node's sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The node that lives.
    pub node: NodeId,
    /// The node's streams and their runs.
    ///
    /// If the streams are the same as in an earlier beat, this is the same list (`Arc::ptr_eq`), so that a store may keep
    /// what it derived from it. A store need not write each stream each time: it may take a stream that its node no longer
    /// lists for alive for up to seven times the stale threshold, as long as the node beats.
    pub streams: Arc<[(StreamKey, u64)]>,
    /// How long after this beat the streams are overdue (the stale threshold).
    pub stale: Duration,
    /// How long a stream lives after its producer was last heard of. A store with expiring keys renews them to this.
    pub lifetime: Duration,
}

/// The outcome of a [`Beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Beaten {
    /// The store's clock, in unix milliseconds.
    pub now: u64,
    /// A number for the run of the store. It changes when the store restarts or is emptied.
    pub run: u128,
    /// The indexes in [`Beat::streams`] of the streams that are no longer this node's.
    pub lost: Vec<usize>,
    /// The indexes in [`Beat::streams`] of the streams whose part of the store did not take the beat. The node lists them
    /// again soon.
    pub missed: Vec<usize>,
    /// The parts of the store ([`Store::part`](crate::Store::part)) that refused some or all of the beat.
    pub refused_by: Vec<u64>,
    /// The parts of the store that are known to have taken all of it.
    pub taken_by: Vec<u64>,
}

impl Beaten {
    /// The outcome of a beat that the whole store took, at this time of its clock, in this run of the store. Stores add what
    /// was lost, missed or refused: see the fields. Without parts `taken_by` is `[0]`.
    #[must_use]
    pub fn new(now: u64, run: u128) -> Self {
        Self { now, run, lost: Vec::new(), missed: Vec::new(), refused_by: Vec::new(), taken_by: vec![0] }
    }
}
