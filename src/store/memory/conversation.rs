//! What a stream's change means for the pointer of its conversation.

use std::time::Duration;

use super::{entry::Entry, store::MemoryStore};
use crate::{
    model::id::{StreamId, StreamKey},
    runtime::sync::lock,
    store::{Place, Pointer, Renew, Reopen},
};

impl MemoryStore {
    /// Must be called without the lock of a shard, since it may read another stream.
    pub(super) fn unpoint_now(
        &self,
        conversation: &StreamKey,
        stream: &StreamId,
        epoch: Option<u64>,
    ) -> Option<Pointer> {
        let now = self.now();
        let (mut pointer, mut goes_back) = lock(&self.0.pointers).unpoint(conversation, stream, epoch, now);
        while goes_back {
            let Pointer { stream: named, epoch, .. } = pointer?;
            let key = StreamKey::new(conversation.owner.clone(), named.clone());
            // The shard stays locked until the pointer is renewed, so that an end in between moves the pointer's expiry after
            // this.
            let mut shard = self.shard(&key);
            let mut pointers = lock(&self.0.pointers);
            if let Some(ttl) = shard.held(&key, now).map(|entry| entry.expires_in(now)) {
                let renew = Renew { conversation: conversation.clone(), stream: named, ttl, put_back: None };
                let _ = pointers.renew(&renew, now);
                return pointers.get(conversation, now);
            }
            (pointer, goes_back) = pointers.unpoint(conversation, &named, Some(epoch), now);
        }
        pointer
    }

    /// Sets the pointer that names a stream to expire with it.
    pub(super) fn expire_pointer_with(&self, entry: &Entry, key: &StreamKey, now: u64) {
        self.renew_for(entry, key, entry.expires_in(now), None, now);
    }

    /// Puts back the pointer that named a stream and was lost.
    pub(super) fn put_back(&self, entry: &Entry, reopen: &Reopen, now: u64) {
        let place = Place { epoch: reopen.epoch, since: reopen.since };
        self.renew_for(entry, &reopen.open.key, entry.kept(), Some(place), now);
    }

    fn renew_for(&self, entry: &Entry, key: &StreamKey, ttl: Duration, put_back: Option<Place>, now: u64) {
        if let Some(conversation) = entry.conversation(key) {
            let renew = Renew { conversation, stream: key.id.clone(), ttl, put_back };
            let _ = lock(&self.0.pointers).renew(&renew, now);
        }
    }
}
