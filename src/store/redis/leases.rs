//! Leases: how a node's sign of life vouches for streams without naming each of them.
//!
//! The score of a stream in the index of active streams is its deadline, or the number of a lease. A lease's own deadline
//! stands in a small index beside it, and each beat of a node renews the leases of the streams that it lists. A stream is
//! named, and so put under the node's newest lease, once in [`TURNS`] rounds. A lease that no listed stream stands under is
//! not renewed any more: whatever is left under it is found by a sweep when the lease is overdue.
//!
//! A node remembers which of its streams a server has put under which lease, and hears with each beat how many stand there.
//! What is remembered decides only what is named: if fewer stand under a lease than should, those that are missing are
//! looked for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::clock::{LONGEST, millis};
use crate::{
    model::id::{NodeId, StreamKey},
    runtime::sync::lock,
};

/// In how many rounds of beats each stream is named once. A stream that its process lists no more is found so many rounds
/// later at most.
pub(super) const TURNS: u64 = 16;

/// Scores from here on are leases, up to twice that: no deadline is so far away, and all of them are exact in a score.
pub(super) const LOWEST: u64 = 1 << 52;
/// Where in a lease's number the threshold stands that it was made with.
const THRESHOLD: u32 = 46;
/// Nodes that were not heard of for so long are forgotten.
const DAY: Duration = Duration::from_secs(86_400);

/// Makes the number of a lease: by chance, so that no two nodes ever have the same. It is odd: the even number below it is
/// the same lease, of a stream that is marked (see mark.lua). It tells, as a power of two that is no less, for how many
/// milliseconds a beat renews it: a sweep that finds streams under a lease which the index has lost gives it that long.
fn number(stale: u64, random: u64) -> u64 {
    let power = u64::from(64 - stale.clamp(1, LONGEST).saturating_sub(1).leading_zeros());
    LOWEST | power << THRESHOLD | (random & ((1 << THRESHOLD) - 1)) | 1
}

/// Whether this is the number of a lease.
pub(super) fn is_one(lease: u64) -> bool {
    (LOWEST..2 * LOWEST).contains(&lease) && lease % 2 == 1
}

/// For how many milliseconds a beat renews a lease, at most twice too much.
pub(super) fn renewed_for(lease: u64) -> u64 {
    1 << ((lease >> THRESHOLD) & 63).min(46)
}

/// Somewhere among all leases: where a sweep begins to look for lost ones.
pub(super) fn anywhere() -> u64 {
    LOWEST | (crate::runtime::random::u128() as u64 & (LOWEST - 1))
}

/// The scores of streams under a lease, marked ones included.
pub(super) fn scores(lease: u64) -> [u64; 2] {
    [lease - 1, lease]
}

/// A stream as a beat lists it.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    /// Of its name.
    pub(super) hash: u64,
    pub(super) epoch: u64,
    /// The slot of its keys, and the part of the indexes that it is in.
    pub(super) slot: u16,
    pub(super) part: u16,
}

/// Hashes what is a hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not that anything but a number is hashed here.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type ByHash<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

/// A lease, and how many streams should stand under it in a part of the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) lease: u64,
    pub(super) streams: usize,
}

/// The leases of this process' nodes.
#[derive(Default)]
pub(super) struct Leases {
    hasher: RandomState,
    nodes: Mutex<HashMap<NodeId, Held>>,
    /// The lists of streams that beats come with, by where they lie, and what was found out about these: a list that has
    /// not changed is not gone through by name again.
    lists: Mutex<HashMap<usize, List>>,
}

struct List {
    /// Held, so that no other list comes to lie there.
    streams: Arc<[(StreamKey, u64)]>,
    listed: Arc<[Listed]>,
}

/// What is remembered of one node.
struct Held {
    begun: Instant,
    /// When its last beat began.
    last: Instant,
    /// The newest last.
    leases: VecDeque<Lease>,
    streams: ByHash<Under>,
    /// How many of them by part and lease.
    counts: HashMap<(u16, u64), usize>,
    /// Streams that did not stand where they should, and in which round that was noticed.
    suspects: HashMap<u64, u64>,
}

struct Lease {
    number: u64,
    round: u64,
    stale: Duration,
    /// Whether it is not known of some streams that they were put under it. To put them under it once more would change
    /// nothing, and so look as if they were missing: another lease takes its place.
    is_spoiled: bool,
}

/// Where a stream stands, as a server has acknowledged.
#[derive(Clone, Copy)]
struct Under {
    lease: u64,
    epoch: u64,
    part: u16,
}

impl Leases {
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// What must be known of the streams that a beat lists; `of` finds it out about one.
    pub(super) fn listed(
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

    /// Begins a beat: the node's newest lease, and for each part of the indexes the leases that the listed streams stand
    /// under, the newest among them.
    pub(super) fn renew(&self, node: &NodeId, stale: Duration, streams: &[Listed]) -> Renewal {
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

    /// How many streams of the node stand under a lease in a part of the indexes, as far as was acknowledged.
    pub(super) fn count(&self, node: &NodeId, part: u16, lease: u64) -> usize {
        lock(&self.nodes).get(node).map_or(0, |held| held.count(part, lease))
    }

    /// Of the streams under a lease only these stand there. The others are suspects.
    pub(super) fn retain(&self, node: &NodeId, part: u16, lease: u64, found: &HashSet<u64>) {
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

    /// Begins to put streams under a lease: those of the listed ones that must be named, that stand under none, and that have
    /// their turn. What is remembered of them is forgotten until a server has acknowledged them.
    pub(super) fn name(
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

    /// Something happens to a stream that takes it out from under its lease, perhaps.
    pub(super) fn forget(&self, name: &str) {
        let hash = self.hash(name);
        for held in lock(&self.nodes).values_mut() {
            held.take(hash);
        }
    }

    /// The servers are others than before: nothing is known of what stands there.
    pub(super) fn forget_all(&self, node: &NodeId) {
        if let Some(held) = lock(&self.nodes).get_mut(node) {
            held.leases.clear();
            held.retain(|_, _| false);
        }
    }
}

/// Streams that are being put under a lease.
pub(super) struct Naming<'a> {
    leases: &'a Leases,
    node: NodeId,
    lease: u64,
    /// By index.
    pub(super) named: Vec<usize>,
    /// Those that did not stand where they should: they may be another's.
    pub(super) suspects: Vec<usize>,
    is_answered: bool,
}

impl Naming<'_> {
    /// A server has put these streams under the lease.
    pub(super) fn put(&self, streams: impl Iterator<Item = Listed>) {
        let mut nodes = lock(&self.leases.nodes);
        let Some(held) = nodes.get_mut(&self.node) else { return };
        for stream in streams {
            held.take(stream.hash);
            held.streams.insert(stream.hash, Under { lease: self.lease, epoch: stream.epoch, part: stream.part });
            *held.counts.entry((stream.part, self.lease)).or_default() += 1;
        }
    }

    /// It is known of all of them what became of that.
    pub(super) fn answered(&mut self) {
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

/// What a beat renews.
pub(super) struct Renewal {
    pub(super) newest: u64,
    pub(super) parts: HashMap<u16, Vec<Expected>>,
}

impl Held {
    fn new() -> Self {
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

    /// The newest lease, which is of this round.
    fn newest(&mut self, stale: Duration) -> u64 {
        let round = self.round(stale);
        let is_newest = |lease: &&Lease| (lease.round, lease.stale) == (round, stale) && !lease.is_spoiled;
        if let Some(lease) = self.leases.back().filter(is_newest) {
            return lease.number;
        }
        self.leases.retain(|lease| lease.stale == stale && lease.round + TURNS >= round);
        let known: HashSet<u64> = self.leases.iter().map(|lease| lease.number).collect();
        self.retain(|_, under| known.contains(&under.lease));
        self.suspects.retain(|_, since| *since + TURNS >= round);
        let number = number(millis(stale), crate::runtime::random::u128() as u64);
        self.leases.push_back(Lease { number, round, stale, is_spoiled: false });
        number
    }

    fn under(&self, stream: Listed) -> Option<Under> {
        self.streams.get(&stream.hash).copied().filter(|under| under.epoch == stream.epoch && under.part == stream.part)
    }

    /// Whether a stream is to be named: it stands under no lease, or has its turn.
    fn is_due(&self, stream: Listed) -> bool {
        let (Some(under), Some(newest)) = (self.under(stream), self.leases.back()) else { return true };
        let Some(lease) = self.leases.iter().find(|lease| lease.number == under.lease) else { return true };
        let has_turn = stream.hash % TURNS == newest.round % TURNS && lease.round < newest.round;
        has_turn || newest.round >= lease.round + TURNS
    }

    fn count(&self, part: u16, lease: u64) -> usize {
        self.counts.get(&(part, lease)).copied().unwrap_or(0)
    }

    fn take(&mut self, hash: u64) {
        let Some(under) = self.streams.remove(&hash) else { return };
        let key = (under.part, under.lease);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&u64, &Under) -> bool) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(30);
    const ROUND: Duration = Duration::from_secs(10);

    fn listed(hashes: impl IntoIterator<Item = u64>) -> Vec<Listed> {
        hashes.into_iter().map(|hash| Listed { hash, epoch: 1, slot: 0, part: 0 }).collect()
    }

    /// A beat that a server acknowledges: which streams it named.
    fn beat(leases: &Leases, node: &NodeId, streams: &[Listed]) -> Vec<u64> {
        let newest = leases.renew(node, STALE, streams).newest;
        let mut naming = leases.name(node, newest, streams, |_| false);
        let named: Vec<Listed> = naming.named.iter().map(|index| streams[*index]).collect();
        naming.put(named.iter().copied());
        naming.answered();
        named.iter().map(|stream| stream.hash).collect()
    }

    fn expected(leases: &Leases, node: &NodeId, streams: &[Listed]) -> Vec<Expected> {
        leases.renew(node, STALE, streams).parts.remove(&0).unwrap_or_default()
    }

    #[test]
    fn a_number_says_for_how_long_it_is_renewed() {
        for stale in [1, 2, 3, 1000, 30_000, 1 << 45, LONGEST] {
            for random in [0, 1, u64::MAX] {
                let lease = number(stale, random);
                assert!(is_one(lease) && (stale..2 * stale.max(2)).contains(&renewed_for(lease)), "{stale}");
                assert_eq!(lease as f64 as u64, lease, "it is exact in a score");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_stream_is_named_when_it_is_new_and_then_in_its_turn() {
        let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..1600));
        assert_eq!(beat(&leases, &node, &streams).len(), 1600);
        assert_eq!(beat(&leases, &node, &streams), [0; 0], "not twice in a round");
        for round in 0..3 * TURNS {
            tokio::time::advance(ROUND).await;
            assert_eq!(beat(&leases, &node, &streams).len(), 100, "round {round}");
            let expected = expected(&leases, &node, &streams);
            assert_eq!(expected.iter().map(|expected| expected.streams).sum::<usize>(), 1600);
            assert!(expected.len() as u64 <= TURNS + 1);
        }
        tokio::time::advance(ROUND * TURNS as u32).await;
        assert_eq!(beat(&leases, &node, &streams).len(), 1600, "after a pause in which all turns passed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_has_not_acknowledged_is_named_again_under_another_lease() {
        let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
        let first = leases.renew(&node, STALE, &streams).newest;
        drop(leases.name(&node, first, &streams, |_| false));
        let second = leases.renew(&node, STALE, &streams).newest;
        assert_ne!(first, second);
        let mut naming = leases.name(&node, second, &streams, |_| false);
        naming.put(streams[..3].iter().copied());
        naming.answered();
        drop(naming);
        assert_eq!(expected(&leases, &node, &streams), [Expected { lease: second, streams: 3 }]);
        assert_eq!(beat(&leases, &node, &streams), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_not_where_it_should_be_is_a_suspect_once() {
        let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
        beat(&leases, &node, &streams);
        let lease = leases.renew(&node, STALE, &streams).newest;
        leases.retain(&node, 0, lease, &HashSet::from([0, 1, 3, 9]));
        assert_eq!(leases.count(&node, 0, lease), 3);
        let mut naming = leases.name(&node, lease, &streams, |_| false);
        assert_eq!((&naming.named[..], &naming.suspects[..]), (&[2][..], &[2][..]));
        naming.answered();
        drop(naming);
        assert_eq!(leases.name(&node, lease, &streams, |_| false).suspects, [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_streams_that_are_listed_no_more_is_not_renewed_for_long() {
        let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..160));
        beat(&leases, &node, &streams);
        let first = expected(&leases, &node, &streams)[0].lease;
        let kept = &streams[..80];
        for round in 0..=TURNS {
            tokio::time::advance(ROUND).await;
            beat(&leases, &node, kept);
            let renews = expected(&leases, &node, kept).iter().any(|expected| expected.lease == first);
            assert_eq!(renews, round + 1 < TURNS, "round {round}");
        }
        assert!(lock(&leases.nodes)[&node].streams.len() <= 80, "nothing is kept of those");
    }

    #[tokio::test(start_paused = true)]
    async fn another_run_or_another_node_is_another_matter() {
        let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
        beat(&leases, &node, &streams);
        let run: Vec<Listed> = streams.iter().map(|stream| Listed { epoch: 2, ..*stream }).collect();
        assert_eq!(beat(&leases, &node, &run).len(), 4);
        assert_eq!(beat(&leases, &NodeId::new("b"), &streams).len(), 4);
        leases.forget_all(&node);
        assert_eq!(beat(&leases, &node, &run).len(), 4);
    }
}
