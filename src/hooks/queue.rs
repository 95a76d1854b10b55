//! The queue of hooks, in which owners take turns.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::model::id::{Owner, StreamKey};

/// How many hooks run at a time on a node.
pub(crate) const RUNNING: usize = 16;
/// How many hooks may wait for their turn. A hook that is dropped from the queue stays due in the store, and a later
/// sweep finds it.
const WAITING: usize = 10_000;

/// How often a hook that fails is run again while the node shuts down.
const LAST_TRIES: u32 = 4;

/// Who runs a failed hook again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// A later sweep, of this node or another one.
    #[default]
    Sweeps,
    /// This node, since it shuts down and sweeps no more.
    LastTries,
    /// Another node. This one is down.
    Over,
}

/// The running and waiting hooks of this node.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    running: usize,
    /// The streams with a hook that is running, waiting, or pausing before its next try. Each has the time at which the
    /// node's lease of the hook is over: until then no sweep of any node finds the hook.
    busy: HashMap<StreamKey, Instant>,
    /// The streams whose hook has failed, each with the same time.
    failed: HashMap<StreamKey, Instant>,
    phase: Phase,
    /// How often each hook has failed in the last tries.
    tries: HashMap<StreamKey, u32>,
    /// The waiting hooks of each owner, each with the time at which it stops waiting.
    waiting: HashMap<Owner, VecDeque<(StreamKey, Instant)>>,
    /// The owners with waiting hooks, in the order of their turns.
    turns: VecDeque<Owner>,
    /// The hooks acknowledged last, with the time of their acknowledgement.
    acknowledged: VecDeque<(Instant, StreamKey)>,
}

impl Queue {
    /// Adds a hook, unless it is already waiting or running. It waits until `until` at most: it stays due in the store,
    /// and another node may run it from `leased` on.
    pub(crate) fn add(&mut self, key: StreamKey, until: Instant, leased: Instant) {
        if let Some(held) = self.busy.get_mut(&key) {
            *held = leased.max(*held);
            return;
        }
        self.failed.remove(&key);
        self.busy.insert(key.clone(), leased);
        self.wait(key, until);
    }

    /// Puts a hook at the end of its owner's waiting hooks.
    fn wait(&mut self, key: StreamKey, until: Instant) {
        let waiting = self.waiting.entry(key.owner.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(key.owner.clone());
        }
        waiting.push_back((key, until));
        if self.busy.len() - self.running > WAITING {
            self.drop_newest();
        }
    }

    /// Moves a waiting hook to the front.
    pub(crate) fn hurry(&mut self, key: &StreamKey, until: Instant) {
        let Some(waiting) = self.waiting.get_mut(&key.owner) else { return };
        let Some(place) = waiting.iter().position(|(other, _)| other == key) else { return };
        waiting.remove(place);
        waiting.push_front((key.clone(), until));
        self.turns.retain(|owner| *owner != key.owner);
        self.turns.push_front(key.owner.clone());
    }

    /// Returns the next hook to run, if fewer than [`RUNNING`] are running. The hook counts as running until
    /// [`done`](Self::done) is called.
    pub(crate) fn next(&mut self, now: Instant) -> Option<StreamKey> {
        while self.running < RUNNING {
            let owner = self.turns.pop_front()?;
            let Some(waiting) = self.waiting.get_mut(&owner) else { continue };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&owner);
            } else {
                self.turns.push_back(owner);
            }
            match next {
                Some((key, until)) if now < until => {
                    self.running += 1;
                    return Some(key);
                }
                Some((key, _)) => self.drop_waiting(&key),
                None => {}
            }
        }
        None
    }

    /// Notes that a hook was acknowledged. A sweep that asked the store earlier may still learn that the hook is due,
    /// and must not run it again.
    pub(crate) fn acknowledged(&mut self, key: StreamKey, now: Instant) {
        if self.acknowledged.len() >= WAITING {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back((now, key));
    }

    /// Whether a hook was acknowledged since `since`. Forgets older acknowledgements.
    pub(crate) fn was_acknowledged(&mut self, key: &StreamKey, since: Instant) -> bool {
        while self.acknowledged.front().is_some_and(|(at, _)| *at < since) {
            self.acknowledged.pop_front();
        }
        self.acknowledged.iter().any(|(_, acknowledged)| acknowledged == key)
    }

    /// Removes a hook that has run, or that was not run to its end.
    pub(crate) fn done(&mut self, key: &StreamKey) {
        self.running -= 1;
        self.busy.remove(key);
    }

    /// Removes a hook that has failed from the running ones. Returns how often it has failed before, if this node is to
    /// run it [`again`](Self::again) after a pause.
    pub(crate) fn fails(&mut self, key: &StreamKey, now: Instant) -> Option<u32> {
        self.running -= 1;
        let is_leased = self.busy.get(key).is_some_and(|leased| now < *leased);
        if self.phase == Phase::LastTries && is_leased {
            let tries = self.tries.entry(key.clone()).or_default();
            if *tries < LAST_TRIES {
                *tries += 1;
                return Some(*tries - 1);
            }
        }
        self.give_up(key, now);
        None
    }

    /// Queues a hook whose pause is over, behind the other hooks of its owner.
    pub(crate) fn again(&mut self, key: &StreamKey, now: Instant) {
        match self.busy.get(key) {
            Some(leased) if self.phase == Phase::LastTries => self.wait(key.clone(), *leased),
            _ => self.give_up(key, now),
        }
    }

    /// Notes that a failed hook is left to a later sweep.
    fn give_up(&mut self, key: &StreamKey, now: Instant) {
        if self.phase == Phase::Sweeps {
            // The sweep has come for these, or another node's sweep will.
            self.failed.retain(|_, leased| now < *leased);
        }
        if let Some(leased) = self.busy.remove(key) {
            self.failed.insert(key.clone(), leased);
        }
    }

    /// Notes that the node shuts down, and queues the failed hooks that it still leases. Returns whether there are others.
    /// The store knows which of those are still due.
    pub(crate) fn begin_last_tries(&mut self, now: Instant) -> bool {
        self.phase = Phase::LastTries;
        let (leased, others): (HashMap<_, _>, _) = self.failed.drain().partition(|(_, leased)| now < *leased);
        self.failed = others;
        for (key, leased) in leased {
            self.add(key, leased, leased);
        }
        !self.failed.is_empty()
    }

    /// Forgets the failed hooks that the node does not lease, because the store has returned those that are due.
    pub(crate) fn forget_lapsed(&mut self, now: Instant) {
        self.failed.retain(|_, leased| now < *leased);
    }

    /// Notes that the node is down.
    pub(crate) fn end_last_tries(&mut self) {
        self.phase = Phase::Over;
    }

    /// Returns the number of failed hooks.
    pub(crate) fn failed(&self) -> usize {
        self.failed.len()
    }

    pub(crate) fn is_busy(&self, key: &StreamKey) -> bool {
        self.busy.contains_key(key)
    }

    /// Returns the number of running, waiting and pausing hooks.
    pub(crate) fn len(&self) -> usize {
        self.busy.len()
    }

    /// Drops the newest waiting hook of the owner with the most waiting hooks.
    fn drop_newest(&mut self) {
        let Some(waiting) = self.waiting.values_mut().max_by_key(|waiting| waiting.len()) else { return };
        let Some((key, _)) = waiting.pop_back() else { return };
        if waiting.is_empty() {
            self.waiting.remove(&key.owner);
            self.turns.retain(|owner| *owner != key.owner);
        }
        self.drop_waiting(&key);
    }

    /// Drops a hook that has waited in vain. In a shutdown it counts as failed, because this node was to run it.
    fn drop_waiting(&mut self, key: &StreamKey) {
        let leased = self.busy.remove(key);
        if let Some(leased) = leased.filter(|_| self.phase != Phase::Sweeps) {
            self.failed.insert(key.clone(), leased);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::StreamId;

    fn key(owner: &str, id: usize) -> StreamKey {
        StreamKey::new(Owner::new(owner).expect("valid"), StreamId::new(id.to_string()).expect("valid"))
    }

    fn later(now: Instant) -> Instant {
        now + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn owners_take_turns_and_places_are_few() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for id in 0..100 {
            queue.add(key("many", id), later(now), later(now));
        }
        queue.add(key("one", 0), later(now), later(now));
        queue.add(key("many", 5), later(now), later(now));
        assert_eq!(queue.len(), 101, "what waits already does not wait twice");
        let next: Vec<_> = std::iter::from_fn(|| queue.next(now)).collect();
        assert_eq!(next.len(), RUNNING);
        assert_eq!(next[1], key("one", 0), "it is not behind the hundred");
        queue.add(key("one", 0), later(now), later(now));
        assert_eq!(queue.len(), 101, "what runs does not wait besides");
        queue.done(&next[0]);
        queue.hurry(&key("many", 90), later(now));
        assert_eq!(queue.next(now), Some(key("many", 90)));
        assert_eq!(queue.next(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_does_not_wait_for_ever() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(key("a", 0), now, now);
        queue.add(key("a", 1), later(now), later(now));
        assert_eq!(queue.next(now), Some(key("a", 1)));
        assert_eq!(queue.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_owner_with_the_most_gives_way() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for id in 0..WAITING {
            queue.add(key("many", id), later(now), later(now));
        }
        queue.add(key("one", 0), later(now), later(now));
        assert_eq!(queue.len(), WAITING);
        assert!(queue.is_busy(&key("one", 0)) && !queue.is_busy(&key("many", WAITING - 1)));
        let mut ran = 0;
        while let Some(next) = queue.next(now) {
            queue.done(&next);
            ran += 1;
        }
        assert_eq!((ran, queue.len(), queue.waiting.len(), queue.turns.len()), (WAITING, 0, 0, 0));
    }

    /// In a shutdown no hook is dropped uncounted.
    #[tokio::test(start_paused = true)]
    async fn g3_what_waits_in_vain_in_a_shutdown_is_counted() {
        let now = Instant::now();
        for (in_shutdown, counted) in [(false, 0), (true, 2)] {
            let mut queue = Queue::default();
            if in_shutdown {
                assert!(!queue.begin_last_tries(now), "nothing has failed");
            }
            queue.add(key("late", 0), now, later(now));
            for id in 0..WAITING {
                queue.add(key("many", id), later(now), later(now));
            }
            assert_eq!(queue.next(now).map(|next| next.owner), Some(key("many", 0).owner));
            assert_eq!(queue.failed(), counted, "one came too late, one was too many");
        }
    }

    /// An owner whose only waiting hook is dropped loses its turn, and gets one again with its next hook.
    #[tokio::test(start_paused = true)]
    async fn g3_an_owner_whose_only_hook_gave_way_holds_up_no_other() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let owner = |n: usize| format!("owner-{n}");
        for n in 0..=WAITING {
            queue.add(key(&owner(n), 0), later(now), later(now));
        }
        assert_eq!((queue.len(), queue.waiting.len(), queue.turns.len()), (WAITING, WAITING, WAITING));
        let gone = (0..=WAITING).find(|n| !queue.is_busy(&key(&owner(*n), 0))).expect("one gave way");
        let mut ran = 0;
        while ran < WAITING / 2 {
            let next = queue.next(now).expect("there are more");
            queue.done(&next);
            ran += 1;
        }
        for id in [1, 2] {
            queue.add(key(&owner(gone), id), later(now), later(now));
        }
        while let Some(next) = queue.next(now) {
            queue.done(&next);
            ran += 1;
        }
        assert_eq!((ran, queue.len(), queue.waiting.len(), queue.turns.len()), (WAITING + 2, 0, 0, 0));
    }
}
