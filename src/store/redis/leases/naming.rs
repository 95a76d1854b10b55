//! Putting streams under a lease.

use super::{
    held::{Held, Listed, Under},
    table::Leases,
};
use crate::{model::id::NodeId, runtime::sync::lock};

impl Leases {
    /// Begins to put streams under a lease: those of the listed ones that must be named, that stand under none, and that have
    /// their turn. What is remembered of them is forgotten until a server has acknowledged them.
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

/// Streams that are being put under a lease.
pub(in super::super) struct Naming<'a> {
    leases: &'a Leases,
    node: NodeId,
    lease: u64,
    /// By index.
    pub(in super::super) named: Vec<usize>,
    /// Those that did not stand where they should: they may be another's.
    pub(in super::super) suspects: Vec<usize>,
    is_answered: bool,
}

impl Naming<'_> {
    /// A server has put these streams under the lease.
    pub(in super::super) fn put(&self, streams: impl Iterator<Item = Listed>) {
        let mut nodes = lock(&self.leases.nodes);
        let Some(held) = nodes.get_mut(&self.node) else { return };
        for stream in streams {
            held.take(stream.hash);
            held.streams.insert(stream.hash, Under { lease: self.lease, epoch: stream.epoch, part: stream.part });
            *held.counts.entry((stream.part, self.lease)).or_default() += 1;
        }
    }

    /// It is known of all of them what became of that.
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
