//! The leases of this process' nodes.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::held::{Held, Listed};
use crate::{
    model::id::{NodeId, StreamKey},
    runtime::sync::lock,
};

/// A node that has not beaten for this long is forgotten.
const DAY: Duration = Duration::from_secs(86_400);

/// A lease, and how many streams should stand under it in a part of the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Expected {
    pub(in super::super) lease: u64,
    pub(in super::super) streams: usize,
}

/// The leases of this process' nodes.
#[derive(Default)]
pub(in super::super) struct Leases {
    hasher: RandomState,
    pub(super) nodes: Mutex<HashMap<NodeId, Held>>,
    /// The lists of streams of the last beats, by address, and what was derived from them: a list that has not changed is not
    /// hashed again.
    lists: Mutex<HashMap<usize, List>>,
}

struct List {
    /// Kept, so that no other list gets the same address.
    streams: Arc<[(StreamKey, u64)]>,
    listed: Arc<[Listed]>,
}

/// The leases that a beat renews.
pub(in super::super) struct Renewal {
    pub(in super::super) newest: u64,
    pub(in super::super) parts: HashMap<u16, Vec<Expected>>,
}

impl Leases {
    pub(in super::super) fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Describes the streams that a beat lists, with `of` for each; a list that was described before is not done again.
    pub(in super::super) fn listed(
        &self,
        streams: &Arc<[(StreamKey, u64)]>,
        of: impl Fn(&StreamKey, u64) -> Listed,
    ) -> Arc<[Listed]> {
        let at = streams.as_ptr() as usize;
        if let Some(list) = lock(&self.lists).get(&at).filter(|list| Arc::ptr_eq(&list.streams, streams)) {
            return Arc::clone(&list.listed);
        }
        let listed: Arc<[Listed]> = streams.iter().map(|(key, epoch)| of(key, *epoch)).collect();
        let mut lists = lock(&self.lists);
        lists.retain(|_, list| Arc::strong_count(&list.streams) > 1);
        lists.insert(at, List { streams: Arc::clone(streams), listed: Arc::clone(&listed) });
        listed
    }

    /// Begins a beat. Returns the node's newest lease, and for each part of the indexes the leases to renew: the newest one, and
    /// those that the listed streams stand under.
    pub(in super::super) fn renew(&self, node: &NodeId, stale: Duration, streams: &[Listed]) -> Renewal {
        let mut nodes = lock(&self.nodes);
        nodes.retain(|_, held| held.last.elapsed() < DAY);
        let held = nodes.entry(node.clone()).or_insert_with(Held::new);
        held.last = Instant::now();
        let newest = held.newest(stale);
        let mut leases: Vec<Vec<u64>> = Vec::new();
        for stream in streams {
            let part = usize::from(stream.part);
            if leases.len() <= part {
                leases.resize(part + 1, Vec::new());
            }
            let of_part = &mut leases[part];
            if of_part.is_empty() {
                of_part.push(newest);
            }
            let lease = held.under(*stream).map(|under| under.lease);
            of_part.extend(lease.filter(|lease| !of_part.contains(lease)));
        }
        let expected = |(part, leases): (u16, Vec<u64>)| {
            let leases = leases.into_iter().map(|lease| Expected { lease, streams: held.count(part, lease) });
            (part, leases.collect())
        };
        let parts = (0..).zip(leases).filter(|(_, leases)| !leases.is_empty()).map(expected);
        Renewal { newest, parts: parts.collect() }
    }

    /// How many streams of the node stand under a lease in a part of the indexes, as servers have acknowledged.
    pub(in super::super) fn count(&self, node: &NodeId, part: u16, lease: u64) -> usize {
        lock(&self.nodes).get(node).map_or(0, |held| held.count(part, lease))
    }

    /// Notes that of the streams under a lease only these were found. The others become suspects.
    pub(in super::super) fn retain(&self, node: &NodeId, part: u16, lease: u64, found: &HashSet<u64>) {
        if let Some(held) = lock(&self.nodes).get_mut(node) {
            let round = held.leases.back().map_or(0, |lease| lease.round);
            let mut suspects = Vec::new();
            held.retain(|hash, under| {
                let stays = (under.part, under.lease) != (part, lease) || found.contains(hash);
                suspects.extend((!stays).then_some((*hash, round)));
                stays
            });
            held.suspects.extend(suspects);
        }
    }

    /// Forgets which lease a stream stands under, before a request that may change that.
    pub(in super::super) fn forget(&self, name: &str) {
        let hash = self.hash(name);
        for held in lock(&self.nodes).values_mut() {
            held.take(hash);
        }
    }

    /// Forgets all leases of a node, since its servers are others than before.
    pub(in super::super) fn forget_all(&self, node: &NodeId) {
        if let Some(held) = lock(&self.nodes).get_mut(node) {
            held.leases.clear();
            held.retain(|_, _| false);
        }
    }
}
