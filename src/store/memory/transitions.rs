//! The transitions of a stream: the entry's own, with the owner's index, the pointer and the notices that follow from it.

use super::{entry::Entry, log::Log, store::MemoryStore};
use crate::{
    model::{
        id::{EventId, StreamId, StreamKey},
        stream::StreamState,
    },
    runtime::sync::lock,
    store::{
        Append, Appended, Close, Closed, Interrupt, Interrupted, Open, Opened, Publish, Published, Reopen, Reopened,
        tail::Woken,
    },
};

impl MemoryStore {
    pub(super) fn open_now(&self, open: &Open) -> Opened {
        let mut woken = Woken::default();
        let now = self.now();
        // Held over the count and the opening, so that two requests cannot both be the last allowed.
        let mut owners = lock(&self.0.owners);
        let over_limit = open.limit.is_some_and(|limit| {
            let ids = owners.ids(&open.key.owner);
            let is_active = |id: &&StreamId| {
                let key = StreamKey::new(open.key.owner.clone(), (*id).clone());
                self.shard(&key).entry(&key, now).is_some_and(|entry| entry.state() == StreamState::Active)
            };
            ids.filter(is_active).count() >= limit
        });
        let mut shard = self.shard(&open.key);
        let opened = shard.open(open, over_limit, now, &mut woken);
        if matches!(opened, Opened::New { .. }) {
            owners.insert(&open.key);
        }
        opened
    }

    pub(super) fn withdraw_now(&self, key: &StreamKey, token: u128) {
        let mut woken = Woken::default();
        let mut owners = lock(&self.0.owners);
        let mut shard = self.shard(key);
        let Some(entry) = shard.entries.get_mut(key) else { return };
        if entry.withdraw(token) {
            woken.add(&entry.tail);
        } else {
            let now = self.now();
            let (conversation, epoch) = (entry.conversation(key), entry.epoch());
            shard.remove(key, now, &mut woken);
            owners.remove(key);
            drop((shard, owners));
            if let Some(conversation) = conversation {
                let _ = self.unpoint_now(&conversation, &key.id, Some(epoch));
            }
        }
    }

    pub(super) fn take(&self, append: &Append) -> Appended {
        let mut woken = Woken::default();
        let now = self.now();
        let mut shard = self.shard(&append.key);
        let Some(entry) = shard.entry(&append.key, now) else { return Appended::Gone };
        let outcome = entry.append(append, now);
        woken.add(&entry.tail);
        outcome
    }

    pub(super) fn close_now(&self, close: Close) -> Closed {
        let mut woken = Woken::default();
        let now = self.now();
        let key = close.key.clone();
        let mut shard = self.shard(&key);
        let Some(entry) = shard.entry(&key, now) else { return Closed::Missing };
        let closed = entry.close(close, now);
        // A repeat, too: whoever sent the first may have died before the pointer followed.
        if matches!(closed, Closed::Now { .. } | Closed::Before(_)) {
            self.expire_pointer_with(entry, &key, now);
        }
        woken.add(&entry.tail);
        shard.reschedule(&key);
        drop(shard);
        if let Closed::Now { node: Some(node), .. } = &closed
            && let Some(sender) = self.sender(node)
        {
            sender.post(key);
        }
        closed
    }

    pub(super) fn interrupt_now(&self, interrupt: &Interrupt) -> Interrupted {
        let mut woken = Woken::default();
        let now = self.now();
        let mut shard = self.shard(&interrupt.key);
        let Some(entry) = shard.entry(&interrupt.key, now) else { return Interrupted::Missing };
        let interrupted = entry.interrupt(interrupt);
        if interrupted == Interrupted::Done {
            self.expire_pointer_with(entry, &interrupt.key, now);
        }
        woken.add(&entry.tail);
        interrupted
    }

    pub(super) fn reopen_now(&self, reopen: &Reopen) -> Reopened {
        let mut woken = Woken::default();
        let now = self.now();
        let key = &reopen.open.key;
        let mut owners = lock(&self.0.owners);
        let mut shard = self.shard(key);
        if let Some(entry) = shard.entry(key, now) {
            if entry.epoch() >= reopen.epoch {
                return entry.take_back(reopen.epoch, reopen.open.token).map_or(Reopened::Registered, Reopened::Fenced);
            }
            if entry.ended().is_none() {
                entry.overtake(reopen, now);
                self.put_back(entry, reopen, now);
                woken.add(&entry.tail);
                shard.reschedule(key);
                return Reopened::Registered;
            }
        }
        let log = Log::resumed_after(EventId::new(reopen.epoch, reopen.acknowledged));
        shard.insert(key, now, &mut woken, |tail| Entry::reopened(reopen, log, tail, now));
        if let Some(entry) = shard.entries.get(key) {
            self.put_back(entry, reopen, now);
        }
        owners.insert(key);
        Reopened::Registered
    }

    pub(super) fn publish_now(&self, publish: Publish) -> Published {
        let mut woken = Woken::default();
        let now = self.now();
        let key = publish.key.clone();
        let mut owners = lock(&self.0.owners);
        let mut shard = self.shard(&key);
        if shard.held(&key, now).is_none() {
            let epoch = shard.next_epoch(&key, now);
            shard.insert(&key, now, &mut woken, |tail| Entry::published(&publish, epoch, tail, now));
            owners.insert(&key);
        }
        drop(owners);
        let Some(entry) = shard.entries.get_mut(&key) else { return Published::Conflict };
        let published = entry.publish(publish, now);
        woken.add(&entry.tail);
        shard.reschedule(&key);
        published
    }

    pub(super) fn delete_now(&self, key: &StreamKey) {
        let mut woken = Woken::default();
        let mut owners = lock(&self.0.owners);
        let now = self.now();
        let mut shard = self.shard(key);
        let Some(entry) = shard.held(key, now) else { return };
        let conversation = entry.conversation(key);
        entry.delete(now);
        woken.add(&entry.tail);
        let (node, epoch) = (entry.node().cloned(), entry.epoch());
        shard.reschedule(key);
        owners.remove(key);
        drop((shard, owners));
        if let Some(conversation) = conversation {
            let _ = self.unpoint_now(&conversation, &key.id, Some(epoch));
        }
        if let Some(sender) = node.and_then(|node| self.sender(&node)) {
            sender.deleted(key.clone(), epoch);
        }
    }
}
