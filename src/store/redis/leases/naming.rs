//! Putting streams under a lease.

use super::{
    held::{Held, Listed, Under},
    table::Leases,
};
use crate::{model::id::NodeId, runtime::sync::lock};

impl Leases {
    /// Begins to put streams under a lease: those that must be named, stand under no lease, or have their turn. Their old leases
    /// are forgotten; the new one is remembered once a server has acknowledged it.
    pub(in super::super) fn name(
        &self,
        node: &NodeId,
        lease: u64,
        streams: &[Listed],
        must: impl Fn(&Listed) -> bool,
    ) -> Naming<'_> {
        let mut nodes = lock(&self.nodes);
        let held = nodes.entry(node.clone()).or_insert_with(Held::new);
        let is_named = |index: &usize| must(&streams[*index]) || held.is_due(streams[*index]);
        let named: Vec<usize> = (0..streams.len()).filter(is_named).collect();
        let mut suspects = Vec::new();
        for index in &named {
            let hash = streams[*index].hash;
            held.take(hash);
            suspects.extend(held.suspects.remove(&hash).map(|_| *index));
        }
        Naming { leases: self, node: node.clone(), lease, named, suspects, is_answered: false }
    }
}

/// Streams that are being put under a lease. If this is dropped before [`answered`](Self::answered), the lease is spoiled.
pub(in super::super) struct Naming<'a> {
    leases: &'a Leases,
    node: NodeId,
    lease: u64,
    /// The indexes of these streams.
    pub(in super::super) named: Vec<usize>,
    /// The indexes of those that did not stand under their last lease: another node may have taken them over.
    pub(in super::super) suspects: Vec<usize>,
    is_answered: bool,
}

impl Naming<'_> {
    /// Notes that a server has put these streams under the lease.
    pub(in super::super) fn put(&self, streams: impl Iterator<Item = Listed>) {
        let mut nodes = lock(&self.leases.nodes);
        let Some(held) = nodes.get_mut(&self.node) else { return };
        for stream in streams {
            held.take(stream.hash);
            held.streams.insert(stream.hash, Under { lease: self.lease, epoch: stream.epoch, part: stream.part });
            *held.counts.entry((stream.part, self.lease)).or_default() += 1;
        }
    }

    /// Notes that the servers have answered for all of them.
    pub(in super::super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        if let Some(held) = lock(&self.leases.nodes).get_mut(&self.node) {
            let of_it = held.leases.iter_mut().filter(|lease| lease.number == self.lease);
            of_it.for_each(|lease| lease.is_spoiled = true);
        }
    }
}
