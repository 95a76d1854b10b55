//! Questions about many streams: lists, signs of life, sweeps.

use std::time::Duration;

use super::{clock::millis, entry::Entry, shard::Sweep, store::MemoryStore};
use crate::{
    model::{
        id::{StreamId, StreamKey},
        stream::{StreamInfo, StreamState},
    },
    runtime::sync::lock,
    store::{Beat, Beaten, Due, List, Listed, tail::Woken},
};

impl MemoryStore {
    pub(super) fn list_now(&self, list: &List) -> Listed {
        let now = self.now();
        let ids: Vec<_> = lock(&self.0.owners).ids(&list.owner).cloned().collect();
        let place = |id: StreamId| {
            let key = StreamKey::new(list.owner.clone(), id);
            let place = self.shard(&key).held(&key, now).map(|entry| entry.place());
            place.map(|place| (place, key))
        };
        let mut held: Vec<_> = ids.into_iter().filter_map(place).collect();
        held.sort_unstable_by(|a, b| (b.0, &b.1.id).cmp(&(a.0, &a.1.id)));
        let first = match &list.after {
            Some(after) => held.iter().position(|(_, key)| key.id == *after).map_or(held.len(), |place| place + 1),
            None => 0,
        };
        let page = &held[first..held.len().min(first.saturating_add(list.limit))];
        let next = page.last().filter(|_| first + page.len() < held.len()).map(|(_, key)| key.id.clone());
        let info = |(_, key): &(_, StreamKey)| self.shard(key).held(key, now).map(|entry| entry.info(key));
        Listed { streams: page.iter().filter_map(info).collect(), next }
    }

    pub(super) fn beat_now(&self, beat: &Beat) -> Beaten {
        let now = self.now();
        let stale = millis(beat.stale);
        let is_lost = |(key, epoch): &(StreamKey, u64)| {
            let mut shard = self.shard(key);
            let own = |entry: &&mut Entry| entry.state() == StreamState::Active && entry.epoch() == *epoch;
            shard.entry(key, now).filter(own).map(|entry| entry.beat(now, stale)).is_none()
        };
        let lost = beat.streams.iter().enumerate().filter(|(_, stream)| is_lost(stream));
        let lost = lost.map(|(index, _)| index).collect();
        Beaten { lost, ..Beaten::new(now, *lock(&self.0.run)) }
    }

    pub(super) fn due_now(&self, limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due> {
        let now = self.now();
        let claim = claim.map(|claim| claim.min(now));
        let mut sweep = Sweep {
            now,
            lease: millis(lease),
            limit,
            claim,
            due: Vec::new(),
            gone: Vec::new(),
            woken: Woken::default(),
        };
        for shard in &self.0.shards {
            lock(shard).sweep(&mut sweep);
        }
        lock(&self.0.pointers).expire(now);
        self.forget_indexed(&sweep.gone);
        sweep.due
    }

    /// Takes streams that are gone out of the index, unless they have come again.
    fn forget_indexed(&self, gone: &[StreamKey]) {
        if gone.is_empty() {
            return;
        }
        let mut owners = lock(&self.0.owners);
        for key in gone {
            if !self.shard(key).entries.contains_key(key) {
                owners.remove(key);
            }
        }
    }

    pub(super) fn stale_now(&self, threshold: Duration, limit: usize) -> Vec<StreamInfo> {
        let before = self.now().saturating_sub(millis(threshold));
        let mut stale = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            for (key, entry) in &shard.entries {
                if entry.state() == StreamState::Active && entry.last_heartbeat() <= before {
                    stale.push(entry.info(key));
                }
            }
        }
        stale.truncate(limit);
        stale
    }
}
