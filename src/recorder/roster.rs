//! The running streams of a process, in the pages that a round of beats lists.
//!
//! A page is reused until a stream in it begins or ends, so that a round of beats does not touch the other streams.
//! With 100,000 streams, touching each of them costs a node more than the rest of the round.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::lane::Lane;
use crate::model::{config::BEAT_PAGE, id::StreamKey};

/// The running streams.
pub(super) struct Roster {
    lanes: BTreeMap<StreamKey, Arc<Lane>>,
    /// The most streams in a page.
    size: usize,
    /// The pages, in the order of their keys. The indexes of a store have the same order, and neighbouring keys cost it
    /// less.
    pages: Vec<Page>,
}

/// A page of streams with neighbouring keys.
struct Page {
    /// The lowest key that belongs to this page; `None` for the first page.
    from: Option<StreamKey>,
    count: usize,
    /// The list of the page; `None` if a stream has begun or ended since it was made.
    roll: Option<Roll>,
}

/// The list of a page of running streams, for a beat.
#[derive(Clone)]
pub(crate) struct Roll {
    pub(crate) lanes: Arc<[Arc<Lane>]>,
    /// The keys and epochs of the same streams, in the same order.
    pub(crate) streams: Arc<[(StreamKey, u64)]>,
}

impl Roll {
    pub(crate) fn of(lanes: Vec<Arc<Lane>>) -> Self {
        let streams = lanes.iter().map(|lane| (lane.key.clone(), lane.epoch)).collect();
        Self { lanes: lanes.into(), streams }
    }
}

impl Roster {
    pub(super) fn new() -> Self {
        Self::in_pages_of(BEAT_PAGE)
    }

    fn in_pages_of(size: usize) -> Self {
        Self { lanes: BTreeMap::new(), size, pages: Vec::new() }
    }

    /// Adds a lane. Returns the lane that had its key before.
    pub(super) fn insert(&mut self, lane: &Arc<Lane>) -> Option<Arc<Lane>> {
        let replaced = self.lanes.insert(lane.key.clone(), Arc::clone(lane));
        if self.pages.is_empty() {
            self.pages.push(Page { from: None, count: 0, roll: None });
        }
        let page = self.page(&lane.key);
        page.count += usize::from(replaced.is_none());
        page.roll = None;
        replaced
    }

    /// Removes this lane. Returns `false` if it is not in the roster, or another lane has its key.
    pub(super) fn remove(&mut self, lane: &Arc<Lane>) -> bool {
        let is_held = self.get(&lane.key).is_some_and(|held| Arc::ptr_eq(held, lane));
        if is_held {
            self.lanes.remove(&lane.key);
            let page = self.page(&lane.key);
            page.count -= 1;
            page.roll = None;
        }
        is_held
    }

    pub(super) fn get(&self, key: &StreamKey) -> Option<&Arc<Lane>> {
        self.lanes.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.values()
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Returns the page of a key. The roster must not be empty.
    fn page(&mut self, key: &StreamKey) -> &mut Page {
        let behind = self.pages.partition_point(|page| page.from.as_ref().is_none_or(|from| from <= key));
        &mut self.pages[behind.saturating_sub(1)]
    }

    /// Lists all streams, in pages. Complexity: O(streams of the pages that have changed).
    pub(super) fn rolls(&mut self) -> Vec<Roll> {
        self.join_small();
        let mut index = 0;
        while index < self.pages.len() {
            if self.pages[index].roll.is_none() {
                index += self.list(index);
            } else {
                index += 1;
            }
        }
        self.pages.iter().filter_map(|page| page.roll.clone()).collect()
    }

    /// Joins neighbouring pages that together hold at most half a page.
    fn join_small(&mut self) {
        self.pages.dedup_by(|page, before| {
            let joins = before.count + page.count <= self.size / 2;
            if joins {
                before.count += page.count;
                before.roll = None;
            }
            joins
        });
    }

    /// Lists a page, and splits it if it has become too large. Returns the number of resulting pages.
    fn list(&mut self, index: usize) -> usize {
        let from = self.pages[index].from.as_ref().map_or(Unbounded, Included);
        let to = self.pages.get(index + 1).and_then(|page| page.from.as_ref()).map_or(Unbounded, Excluded);
        let lanes: Vec<_> = self.lanes.range::<StreamKey, _>((from, to)).map(|(_, lane)| Arc::clone(lane)).collect();
        let parts = lanes.len().div_ceil(self.size).max(1);
        let mut first = self.pages[index].from.take();
        let listed: Vec<Page> = lanes
            .chunks(lanes.len().div_ceil(parts).max(1))
            .enumerate()
            .map(|(part, lanes)| {
                let from = if part == 0 { first.take() } else { lanes.first().map(|lane| lane.key.clone()) };
                Page { from, count: lanes.len(), roll: Some(Roll::of(lanes.to_vec())) }
            })
            .collect();
        if listed.is_empty() {
            // The page is empty. `join_small` removes it, unless it is the only one.
            self.pages[index] = Page { from: first, count: 0, roll: None };
            return 1;
        }
        let count = listed.len();
        self.pages.splice(index..=index, listed);
        count
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        NodeId, Owner, StreamId,
        model::stream::Origin,
        store::{Open, Retention},
    };

    const SIZE: usize = 8;

    /// Returns a registration for tests.
    pub(in crate::recorder) fn open(id: &str) -> Open {
        let second = Duration::from_secs(1);
        Open {
            key: StreamKey::new(Owner::ANONYMOUS, StreamId::new(id).expect("valid")),
            kind: "job".into(),
            origin: Origin::Named,
            node: NodeId::new("a"),
            token: 1,
            create: true,
            reruns: false,
            started: false,
            fingerprint: None,
            limit: None,
            metadata: Vec::new(),
            voice: crate::Voice::default(),
            turn: None,
            headers: crate::KeptHeaders::None,
            retention: Retention {
                stale: second,
                lifetime: second,
                recovery_window: second,
                max_events: 1,
                max_bytes: 1,
            },
        }
    }

    #[test]
    fn pages_that_have_become_small_are_joined_to_half_a_page() {
        let mut roster = Roster::in_pages_of(SIZE);
        let lanes: Vec<_> = (0..64).map(|number| lane(number, 1)).collect();
        let sizes = |roster: &mut Roster| roster.rolls().iter().map(|roll| roll.lanes.len()).collect::<Vec<_>>();
        for lane in &lanes {
            roster.insert(lane);
        }
        assert_eq!(sizes(&mut roster), [SIZE; 8]);
        for gone in lanes.iter().enumerate().filter(|(index, _)| index % SIZE > 0) {
            roster.remove(gone.1);
        }
        assert_eq!(sizes(&mut roster), [4, 4]);
    }

    fn lane(number: u8, epoch: u64) -> Arc<Lane> {
        let open = open(&format!("{number:03}"));
        let retention = Arc::new(open.retention);
        Lane::new(open, &retention, epoch, None)
    }

    fn listed(rolls: &[Roll]) -> Vec<(StreamKey, u64)> {
        rolls.iter().flat_map(|roll| roll.streams.iter().cloned()).collect()
    }

    #[test]
    fn a_page_is_the_same_list_until_a_stream_in_it_begins_or_ends() {
        let mut roster = Roster::in_pages_of(SIZE);
        let lanes: Vec<_> = (0..40).map(|number| lane(2 * number, 1)).collect();
        lanes.iter().for_each(|lane| drop(roster.insert(lane)));
        let first = roster.rolls();
        let same = |a: &[Roll], b: &[Roll]| {
            a.iter().filter(|roll| b.iter().any(|other| Arc::ptr_eq(&roll.streams, &other.streams))).count()
        };
        assert_eq!((first.len(), same(&first, &roster.rolls())), (5, 5));
        assert!(roster.remove(&lanes[20]));
        let second = roster.rolls();
        assert_eq!((second.len(), same(&first, &second)), (5, 4));
        roster.insert(&lane(1, 1));
        let third = roster.rolls();
        assert_eq!((third.len(), same(&second, &third)), (6, 4), "the first page had no room");
        assert!(!roster.remove(&lane(2, 1)), "another lane of that name");
        assert_eq!(same(&third, &roster.rolls()), 6);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// After any starts and ends of streams, the pages together list the running streams in the order of their
        /// keys, and no page is too large.
        #[test]
        fn g5_the_pages_list_every_running_stream_once(
            steps in prop::collection::vec((any::<u8>(), 0..4_u8), 0..400),
        ) {
            let mut roster = Roster::in_pages_of(SIZE);
            let mut model: BTreeMap<StreamKey, Arc<Lane>> = BTreeMap::new();
            for (epoch, (number, what)) in (1..).zip(steps) {
                let lane = lane(number, epoch);
                match what {
                    0 | 1 => {
                        let replaced = roster.insert(&lane);
                        let before = model.insert(lane.key.clone(), lane);
                        prop_assert_eq!(replaced.map(|lane| lane.epoch), before.map(|lane| lane.epoch));
                    }
                    2 => {
                        let held = model.remove(&lane.key);
                        prop_assert!(!roster.remove(&lane));
                        prop_assert!(held.is_none_or(|held| roster.remove(&held)));
                    }
                    _ => {
                        let rolls = roster.rolls();
                        let expected: Vec<_> = model.values().map(|lane| (lane.key.clone(), lane.epoch)).collect();
                        prop_assert_eq!(listed(&rolls), expected);
                        prop_assert!(rolls.iter().all(|roll| roll.streams.len() <= SIZE));
                        prop_assert!(rolls.iter().all(|roll| roll.lanes.len() == roll.streams.len()));
                        prop_assert!(rolls.len() <= 1 + 4 * model.len() / SIZE, "{} pages of {}", rolls.len(), model.len());
                    }
                }
            }
            prop_assert_eq!(roster.len(), model.len());
        }
    }
}
