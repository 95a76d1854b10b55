//! What a node's beats have found out.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::id::NodeId;

/// A day: a node that was not heard of for so long is forgotten.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// What a node's beats have found out.
pub(in super::super) struct Pulse {
    /// The number of the last beat that was sent.
    pub(super) sent: u64,
    /// What each part of the indexes has said.
    pub(super) parts: Vec<PartPulse>,
    /// How often the store turned out to have lost what it had acknowledged.
    pub(super) losses: u64,
    /// Which run of the servers the last beat was sent to.
    pub(super) run: String,
    /// When a beat was last sent.
    pub(super) last: Option<Instant>,
    pub(super) stale: Duration,
    /// Until when each stream is looked at: somebody may have taken it over unnoticed.
    pub(super) suspicious: Instant,
}

#[derive(Clone, Copy, Default)]
pub(super) struct PartPulse {
    /// The number of the last beat that it acknowledged, and when: the node's own key says this one, a later one, or one in
    /// between.
    pub(super) acknowledged: Option<(u64, Instant)>,
    /// When it last refused a beat, or did not answer: for a whole stale threshold it says nothing of who is dead.
    pub(super) failed: Option<Instant>,
}

pub(in super::super) type Pulses = HashMap<NodeId, Pulse>;

impl Pulse {
    pub(super) fn new(parts: usize) -> Self {
        Self {
            sent: 0,
            parts: vec![PartPulse::default(); parts],
            losses: 0,
            run: String::new(),
            last: None,
            stale: Duration::ZERO,
            suspicious: Instant::now(),
        }
    }
}
