//! The streams of a process that have had no reader for a while, of which one is given up when there are too many.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;

use crate::{model::id::Owner, recorder::Lane, runtime::sync::lock};

/// The streams that have had no reader for a while, by owner.
///
/// Beyond the limit, the owner with the most streams loses the one that was left first. A change costs O(log streams).
#[derive(Debug)]
pub(crate) struct Unattended {
    /// The most streams that are kept.
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    owners: HashMap<Owner, BTreeMap<Left, Entry>>,
    /// The same owners by rank. The last one is the next to lose a stream.
    ranks: BTreeSet<(usize, Reverse<Left>, Owner)>,
    streams: usize,
    number: u64,
}

/// The time at which the last reader left a stream, and a number that keeps streams with the same time apart.
type Left = (Instant, u64);

#[derive(Debug)]
struct Entry {
    lane: Arc<Lane>,
    evicted: Arc<AtomicBool>,
}

/// A stream's entry in [`Unattended`]. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct Listed {
    list: Arc<Unattended>,
    owner: Owner,
    left: Left,
    evicted: Arc<AtomicBool>,
}

impl Unattended {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// Enters a stream whose last reader left at `since`. If there are too many streams then, one of them is given up,
    /// which may be this one.
    pub(crate) fn list(self: &Arc<Self>, lane: &Arc<Lane>, since: Instant) -> Listed {
        let (owner, evicted) = (lane.key.owner.clone(), Arc::<AtomicBool>::default());
        let entry = Entry { lane: Arc::clone(lane), evicted: Arc::clone(&evicted) };
        let (left, given_up) = {
            let mut held = lock(&self.held);
            let left = (since, held.number);
            held.number += 1;
            held.change(&owner, |streams| streams.insert(left, entry));
            let given_up = if held.streams > self.most { held.give_up() } else { None };
            (left, given_up)
        };
        if let Some(Entry { lane, evicted }) = given_up {
            evicted.store(true, Ordering::Release);
            lane.wake_drive();
        }
        Listed { list: Arc::clone(self), owner, left, evicted }
    }
}

impl Held {
    /// Changes an owner's streams, and the owner's rank with them.
    fn change<T>(&mut self, owner: &Owner, change: impl FnOnce(&mut BTreeMap<Left, Entry>) -> T) -> T {
        let streams = self.owners.entry(owner.clone()).or_default();
        if let Some((first, _)) = streams.first_key_value() {
            self.ranks.remove(&(streams.len(), Reverse(*first), owner.clone()));
        }
        self.streams -= streams.len();
        let changed = change(streams);
        self.streams += streams.len();
        match streams.first_key_value() {
            Some((first, _)) => {
                self.ranks.insert((streams.len(), Reverse(*first), owner.clone()));
            }
            None => {
                self.owners.remove(owner);
            }
        }
        changed
    }

    /// Removes the stream that was left first, of the owner with the most streams.
    fn give_up(&mut self) -> Option<Entry> {
        let (_, _, owner) = self.ranks.last()?.clone();
        self.change(&owner, BTreeMap::pop_first).map(|(_, entry)| entry)
    }
}

impl Listed {
    /// Whether the stream was given up.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if !self.is_evicted() {
            lock(&self.list.held).change(&self.owner, |streams| drop(streams.remove(&self.left)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        NodeId, StreamId, StreamKey,
        model::stream::Origin,
        store::{Open, Retention},
    };

    fn lane(owner: u8) -> Arc<Lane> {
        let second = Duration::from_secs(1);
        let retention =
            Retention { stale: second, lifetime: second, recovery_window: second, max_events: 1, max_bytes: 1 };
        let owner = Owner::new(format!("owner-{owner}")).expect("valid");
        let open = Open {
            key: StreamKey::new(owner, StreamId::new("a").expect("valid")),
            kind: "job".into(),
            origin: Origin::Named,
            node: NodeId::random(),
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
            retention,
        };
        Lane::new(open, &Arc::new(retention), 1, None)
    }

    #[derive(Clone, Copy, Debug)]
    enum Change {
        /// The last reader of a stream of this owner leaves.
        Leave(u8),
        /// One of the listed streams gets a reader again.
        Read(usize),
    }

    /// The expected entries: owners and numbers, in the order in which their last readers left.
    #[derive(Default)]
    struct Model(Vec<(u8, usize)>);

    impl Model {
        /// Removes and returns the stream to give up if there is one too many.
        fn give_up(&mut self) -> usize {
            let count = |owner| self.0.iter().filter(|(other, _)| *other == owner).count();
            // Among owners with equally many streams, the one whose stream was left first.
            let most = self.0.iter().map(|(owner, _)| count(*owner)).max().expect("too many");
            let index = self.0.iter().position(|(owner, _)| count(*owner) == most).expect("one has most");
            self.0.remove(index).1
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn g8_the_owner_with_most_loses_what_was_left_longest(
            most in 0..5_usize,
            changes in prop::collection::vec(
                prop_oneof![3 => (0..4_u8).prop_map(Change::Leave), 1 => (0..8_usize).prop_map(Change::Read)],
                0..60,
            ),
        ) {
            let (list, start) = (Arc::new(Unattended::new(most)), Instant::now());
            let (mut model, mut listed) = (Model::default(), Vec::new());
            for (number, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Leave(owner) => {
                        model.0.push((owner, number));
                        let left = start + Duration::from_secs(number as u64);
                        listed.push((number, list.list(&lane(owner), left)));
                        let given_up = (model.0.len() > most).then(|| model.give_up());
                        let evicted: Vec<_> = listed.extract_if(.., |(_, listed)| listed.is_evicted()).map(|(n, _)| n).collect();
                        prop_assert_eq!(evicted, given_up.into_iter().collect::<Vec<_>>());
                    }
                    Change::Read(index) if !listed.is_empty() => {
                        let (number, _) = listed.swap_remove(index % listed.len());
                        model.0.retain(|(_, other)| *other != number);
                    }
                    Change::Read(_) => {}
                }
                prop_assert_eq!(lock(&list.held).streams, model.0.len());
            }
            drop(listed);
            let held = lock(&list.held);
            prop_assert_eq!((held.streams, held.owners.len(), held.ranks.len()), (0, 0, 0));
        }
    }
}
