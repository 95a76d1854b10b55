//! What a node's beats have found out so far.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::id::NodeId;

/// A node that has not beaten for this long is forgotten.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// What the beats of one node have found out.
pub(in super::super) struct Pulse {
    /// The number of the last beat that was sent.
    pub(super) sent: u64,
    /// What is known of each part of the indexes.
    pub(super) parts: Vec<PartPulse>,
    /// How often a beat showed that the store had lost acknowledged data.
    pub(super) losses: u64,
    /// The run ids of the servers that the last beat was sent to.
    pub(super) run: String,
    /// When a beat was last sent.
    pub(super) last: Option<Instant>,
    pub(super) stale: Duration,
    /// Until when each beat looks at every stream: another node may have taken streams over unnoticed.
    pub(super) suspicious: Instant,
}

#[derive(Clone, Copy, Default)]
pub(super) struct PartPulse {
    /// The number of the last beat that the part acknowledged, and when that was. The node's own key there has this number or a
    /// higher one.
    pub(super) acknowledged: Option<(u64, Instant)>,
    /// When the part last refused a beat, or did not answer. For a whole stale threshold after that, an overdue stream there is
    /// no evidence that its node died.
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
