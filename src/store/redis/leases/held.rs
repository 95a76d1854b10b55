//! What a process remembers of one of its nodes: which stream stands under which lease.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use super::super::clock::millis;
use super::number::number;
use crate::runtime::random;

/// Each stream is named once in this many rounds of beats. A stream that its process no longer lists is found at most this
/// many rounds later.
pub(super) const TURNS: u64 = 16;

/// A stream as a beat lists it.
#[derive(Clone, Copy)]
pub(in super::super) struct Listed {
    /// The hash of its name.
    pub(in super::super) hash: u64,
    pub(in super::super) epoch: u64,
    /// The slot of its keys, and the part of the indexes that it is in.
    pub(in super::super) slot: u16,
    pub(in super::super) part: u16,
}

/// A hasher for keys that are hashes already.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Unused: all keys are numbers.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(super) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

/// What this process remembers of the leases of one node.
pub(super) struct Held {
    begun: Instant,
    /// When its last beat began.
    pub(super) last: Instant,
    /// The newest last.
    pub(super) leases: VecDeque<Lease>,
    pub(super) streams: ByHash<Under>,
    /// The number of streams by part and lease.
    pub(super) counts: HashMap<(u16, u64), usize>,
    /// Streams that did not stand under their lease, and the round in which that was noticed.
    pub(super) suspects: HashMap<u64, u64>,
}

pub(super) struct Lease {
    pub(super) number: u64,
    pub(super) round: u64,
    stale: Duration,
    /// Whether it is unknown for some streams if they stand under this lease. Another lease then replaces it: putting these
    /// streams under this lease again might change nothing, and the count would make them look missing.
    pub(super) is_spoiled: bool,
}

/// The lease that a stream stands under, as a server has acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Under {
    pub(super) lease: u64,
    pub(super) epoch: u64,
    pub(super) part: u16,
}

impl Held {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Instant::now(),
            leases: VecDeque::new(),
            streams: ByHash::default(),
            counts: HashMap::new(),
            suspects: HashMap::new(),
        }
    }

    fn round(&self, stale: Duration) -> u64 {
        millis(self.begun.elapsed()) / (millis(stale) / 3).max(1)
    }

    /// The lease of this round. Makes one if there is none yet.
    pub(super) fn newest(&mut self, stale: Duration) -> u64 {
        let round = self.round(stale);
        let is_newest = |lease: &&Lease| (lease.round, lease.stale) == (round, stale) && !lease.is_spoiled;
        if let Some(lease) = self.leases.back().filter(is_newest) {
            return lease.number;
        }
        self.leases.retain(|lease| lease.stale == stale && lease.round + TURNS >= round);
        let known: HashSet<u64> = self.leases.iter().map(|lease| lease.number).collect();
        self.retain(|_, under| known.contains(&under.lease));
        self.suspects.retain(|_, since| *since + TURNS >= round);
        let number = number(millis(stale), random::u128() as u64);
        self.leases.push_back(Lease { number, round, stale, is_spoiled: false });
        number
    }

    pub(super) fn under(&self, stream: Listed) -> Option<Under> {
        self.streams.get(&stream.hash).copied().filter(|under| under.epoch == stream.epoch && under.part == stream.part)
    }

    /// Whether a stream must be named: it stands under no lease, or has its turn.
    pub(super) fn is_due(&self, stream: Listed) -> bool {
        let (Some(under), Some(newest)) = (self.under(stream), self.leases.back()) else { return true };
        let Some(lease) = self.leases.iter().find(|lease| lease.number == under.lease) else { return true };
        let has_turn = stream.hash % TURNS == newest.round % TURNS && lease.round < newest.round;
        has_turn || newest.round >= lease.round + TURNS
    }

    pub(super) fn count(&self, part: u16, lease: u64) -> usize {
        self.counts.get(&(part, lease)).copied().unwrap_or(0)
    }

    pub(super) fn take(&mut self, hash: u64) {
        let Some(under) = self.streams.remove(&hash) else { return };
        let key = (under.part, under.lease);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&u64, &Under) -> bool) {
        let counts = &mut self.counts;
        counts.clear();
        self.streams.retain(|hash, under| {
            let stays = keep(hash, under);
            if stays {
                *counts.entry((under.part, under.lease)).or_default() += 1;
            }
            stays
        });
    }
}
