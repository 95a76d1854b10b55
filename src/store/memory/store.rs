//! The memory store itself: its parts, and the order in which their locks are taken.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    clock::{Clock, unix_now},
    owners::Owners,
    pointers::Pointers,
    shard::Shard,
};
#[cfg(feature = "test-util")]
use crate::store::tail::Woken;
use crate::{
    model::id::{NodeId, StreamKey},
    runtime::sync::lock,
    store::NoticesSender,
};

pub(super) const SHARDS: usize = 64;

/// A store in the memory of the process. Clones share one store, and several hubs may use it.
///
/// Its contents end with the process. Its clock is monotonic: it starts at the system's time and does not follow when that is
/// set later. No waker runs under its locks.
///
/// Complexity: appending and reading are O(1) and O(entries read); [`due`](crate::Store::due) is
/// O(streams due), not O(streams).
#[derive(Clone)]
pub struct MemoryStore(pub(super) Arc<Inner>);

/// The parts of the store.
///
/// Wakers are collected under the locks and woken when no lock is held: each method declares its `Woken` before it takes a
/// lock, so that it is dropped after the lock.
pub(super) struct Inner {
    pub(super) run: Mutex<u128>,
    pub(super) clock: Clock,
    pub(super) hasher: RandomState,
    pub(super) shards: [Mutex<Shard>; SHARDS],
    /// Taken before any shard, never after.
    pub(super) owners: Mutex<Owners>,
    /// Taken after any shard, never before.
    pub(super) pointers: Mutex<Pointers>,
    pub(super) nodes: Mutex<HashMap<NodeId, NoticesSender>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store, whose clock starts at the system's time.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(unix_now())
    }

    /// An empty store, whose clock starts at this time, in unix milliseconds: for tests with seeded ids.
    #[must_use]
    pub fn starting_at(unix_ms: u64) -> Self {
        Self(Arc::new(Inner {
            run: Mutex::new(crate::runtime::random::u128()),
            clock: Clock::starting_at(unix_ms),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            owners: Mutex::default(),
            pointers: Mutex::default(),
            nodes: Mutex::default(),
        }))
    }

    /// The number of streams that are held, including those that have ended and those that have expired but were not swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Whether the store holds nothing: no stream, no index entry, no pointer, no tail.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let bare = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            let is_indexed = !(shard.timers.is_empty() && shard.waiting.is_empty() && shard.removed.is_empty());
            shard.entries.is_empty() && !is_indexed
        };
        self.0.shards.iter().all(bare) && lock(&self.0.owners).is_empty() && lock(&self.0.pointers).is_empty()
    }

    /// Loses everything, like a server that restarts without persistence.
    #[cfg(feature = "test-util")]
    pub(crate) fn forget(&self) {
        let mut woken = Woken::default();
        let now = self.now();
        *lock(&self.0.owners) = Owners::default();
        *lock(&self.0.pointers) = Pointers::default();
        *lock(&self.0.run) = crate::runtime::random::u128();
        for shard in &self.0.shards {
            let mut shard = lock(shard);
            shard.timers.clear();
            for (key, entry) in std::mem::take(&mut shard.entries) {
                shard.keep_after_removal(key, &entry, now, &mut woken);
            }
        }
    }

    /// Sets the clock forwards or backwards, by so many milliseconds.
    #[cfg(feature = "test-util")]
    pub(crate) fn shift_clock(&self, by: i64) {
        self.0.clock.shift(by);
    }

    /// Tells every node that the store was away.
    #[cfg(feature = "test-util")]
    pub(crate) fn reconnected(&self) {
        let nodes: Vec<_> = lock(&self.0.nodes).values().cloned().collect();
        nodes.iter().for_each(NoticesSender::reconnected);
    }

    pub(super) fn shard(&self, key: &StreamKey) -> MutexGuard<'_, Shard> {
        let hash = self.0.hasher.hash_one(key);
        lock(&self.0.shards[hash as usize % SHARDS])
    }

    pub(super) fn now(&self) -> u64 {
        self.0.clock.now()
    }

    /// The sender of a node's notices. It is cloned, so that it is used without the lock: it wakes.
    pub(super) fn sender(&self, node: &NodeId) -> Option<NoticesSender> {
        lock(&self.0.nodes).get(node).cloned()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("streams", &self.len()).finish()
    }
}
