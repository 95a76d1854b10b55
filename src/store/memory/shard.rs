//! Some of the memory store's streams, under one lock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{entry::Entry, log::Log};
use crate::{
    model::{id::StreamKey, stream::StreamState},
    store::{Due, DueReason, Open, Opened, TailCell, tail::Woken},
};

#[derive(Default)]
pub(super) struct Shard {
    /// Boxed, since a hash table reserves room for more entries than it holds.
    pub(super) entries: HashMap<StreamKey, Box<Entry>>,
    /// When to visit each entry. The time may be too early, never too late.
    pub(super) timers: BTreeSet<(u64, StreamKey)>,
    /// The tails of streams that do not exist yet, or no longer.
    pub(super) waiting: HashMap<StreamKey, Arc<TailCell>>,
    /// When there are this many, the unused ones are removed.
    pub(super) waiting_bound: usize,
    /// The newest epochs of removed streams, while the clock has not passed them: they must not be used again, since a producer
    /// may still write with them.
    pub(super) removed: HashMap<StreamKey, u64>,
}

impl Shard {
    /// The stream, unless it has expired.
    pub(super) fn entry(&mut self, key: &StreamKey, now: u64) -> Option<&mut Entry> {
        self.entries.get_mut(key).map(|entry| &mut **entry).filter(|entry| !entry.is_over(now))
    }

    /// The stream, unless it has expired or was deleted.
    pub(super) fn held(&mut self, key: &StreamKey, now: u64) -> Option<&mut Entry> {
        self.entry(key, now).filter(|entry| !entry.is_deleted())
    }

    /// Puts in a new entry. It is made with the tail of those who wait for the stream already.
    pub(super) fn insert(
        &mut self,
        key: &StreamKey,
        now: u64,
        woken: &mut Woken,
        entry: impl FnOnce(Arc<TailCell>) -> Entry,
    ) {
        self.remove(key, now, woken);
        let entry = entry(self.waiting.remove(key).unwrap_or_default());
        woken.add(&entry.tail);
        self.entries.insert(key.clone(), Box::new(entry));
        self.reschedule(key);
    }

    /// Moves the timer of an entry, if it must be visited earlier than it says.
    pub(super) fn reschedule(&mut self, key: &StreamKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let next = entry.next_timer();
        if entry.timer == 0 || next < entry.timer {
            self.timers.remove(&(entry.timer, key.clone()));
            entry.timer = next;
            self.timers.insert((next, key.clone()));
        }
    }

    pub(super) fn remove(&mut self, key: &StreamKey, now: u64, woken: &mut Woken) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.timers.remove(&(entry.timer, key.clone()));
        self.keep_after_removal(key.clone(), &entry, now, woken);
    }

    /// Keeps what outlives a removed entry: its epoch, and its tail if somebody holds it.
    pub(super) fn keep_after_removal(&mut self, key: StreamKey, entry: &Entry, now: u64, woken: &mut Woken) {
        woken.add(&entry.tail);
        if Arc::strong_count(&entry.tail) > 1 {
            self.waiting.insert(key.clone(), Arc::clone(&entry.tail));
        }
        self.removed.retain(|_, epoch| *epoch >= now);
        if entry.newest_epoch() >= now {
            let newest = self.removed.entry(key).or_default();
            *newest = (*newest).max(entry.newest_epoch());
        }
    }
}

impl Shard {
    /// The epoch of a new run of a stream that is not held or has expired.
    pub(super) fn next_epoch(&self, key: &StreamKey, now: u64) -> u64 {
        let held = self.entries.get(key).map(|entry| entry.newest_epoch());
        let before = held.max(self.removed.get(key).copied());
        before.map_or(now, |before| now.max(before.saturating_add(1)))
    }

    pub(super) fn open(&mut self, open: &Open, over_limit: bool, now: u64, woken: &mut Woken) -> Opened {
        if let Some(entry) = self.held(&open.key, now) {
            if entry.is_repeat(open) {
                entry.add_from_repeat(open);
                woken.add(&entry.tail);
                return opened(entry);
            }
            if let Some(refused) = entry.refuses(open) {
                return refused;
            }
            if let Some(ended) = entry.ended() {
                return Opened::Ended(ended.clone());
            }
            if entry.state() == StreamState::Active {
                return Opened::Active { started: entry.is_started() };
            }
            if over_limit {
                return Opened::OverLimit;
            }
            entry.rerun(open, now);
            woken.add(&entry.tail);
            let opened = opened(entry);
            self.reschedule(&open.key);
            return opened;
        }
        if !open.create {
            return Opened::Missing;
        }
        if over_limit {
            return Opened::OverLimit;
        }
        let epoch = self.next_epoch(&open.key, now);
        self.insert(&open.key, now, woken, |tail| Entry::new(open, epoch, Log::default(), tail, now));
        Opened::New { epoch, previous: None, inner_id: None, origin: open.origin }
    }

    /// The tail of those who wait for a stream that is not held.
    pub(super) fn await_stream(&mut self, key: &StreamKey) -> &Arc<TailCell> {
        if self.waiting.len() >= self.waiting_bound {
            self.tidy_waiting();
        }
        self.waiting.entry(key.clone()).or_default()
    }

    fn tidy_waiting(&mut self) {
        self.waiting.retain(|_, cell| Arc::strong_count(cell) > 1);
        // Doubling keeps the cost per added tail constant.
        self.waiting_bound = 2 * self.waiting.len() + 8;
    }

    /// Visits the streams whose timers have run out.
    pub(super) fn sweep(&mut self, sweep: &mut Sweep) {
        self.tidy_waiting();
        self.removed.retain(|_, epoch| *epoch >= sweep.now);
        let mut later = Vec::new();
        while sweep.due.len() < sweep.limit {
            match self.timers.pop_first() {
                Some((at, key)) if at <= sweep.now => later.extend(self.visit(key, sweep)),
                Some(timer) => {
                    self.timers.insert(timer);
                    break;
                }
                None => break,
            }
        }
        for key in later {
            self.reschedule(&key);
        }
    }

    /// Visits one stream. Returns it if it must be visited again later.
    fn visit(&mut self, key: StreamKey, sweep: &mut Sweep) -> Option<StreamKey> {
        let entry = self.entries.get_mut(&key)?;
        entry.timer = 0;
        if entry.is_over(sweep.now) {
            self.remove(&key, sweep.now, &mut sweep.woken);
            sweep.gone.push(key);
            return None;
        }
        if let Some(reason) = why_due(entry, sweep) {
            entry.lease(sweep.now, sweep.lease);
            sweep.due.push(Due { info: entry.info(&key), reason });
        }
        Some(key)
    }
}

/// A sweep over all shards.
pub(super) struct Sweep {
    pub(super) now: u64,
    pub(super) lease: u64,
    pub(super) limit: usize,
    /// The time up to which active streams may be claimed.
    pub(super) claim: Option<u64>,
    pub(super) due: Vec<Due>,
    pub(super) gone: Vec<StreamKey>,
    /// The tasks to wake after all locks are released.
    pub(super) woken: Woken,
}

fn why_due(entry: &Entry, sweep: &Sweep) -> Option<DueReason> {
    // An active stream is judged by the time that the caller vouches for.
    let at = if entry.state() == StreamState::Active { sweep.claim? } else { sweep.now };
    if entry.has_expired(at) {
        Some(DueReason::Lifetime)
    } else if entry.is_stale(at) {
        Some(DueReason::Stale)
    } else {
        entry.hook_is_due(at).then_some(DueReason::Hook)
    }
}

fn opened(entry: &Entry) -> Opened {
    Opened::New { epoch: entry.epoch(), previous: entry.previous(), inner_id: entry.inner_id(), origin: entry.origin() }
}

#[cfg(test)]
mod tests;
