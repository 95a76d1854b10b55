//! The [`Store`] trait: every method answers at its first poll.

use std::{
    convert::Infallible,
    future::{Future, ready},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{shard::Shard, store::MemoryStore};
use crate::{
    model::{
        id::{NodeId, StreamId, StreamKey},
        stream::{StreamInfo, StreamState},
    },
    runtime::sync::lock,
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open,
        Opened, Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Store, Tail,
    },
};

impl Store for MemoryStore {
    type Error = Infallible;

    fn is_immediate(&self) -> bool {
        true
    }

    fn open(&self, open: Open) -> impl Future<Output = Result<Opened, Infallible>> + Send {
        ready(Ok(self.open_now(&open)))
    }

    fn withdraw(&self, key: StreamKey, token: u128) -> impl Future<Output = Result<(), Infallible>> + Send {
        self.withdraw_now(&key, token);
        ready(Ok(()))
    }

    fn append(&self, appends: Vec<Append>) -> impl Future<Output = Result<Vec<Appended>, Infallible>> + Send {
        ready(Ok(appends.iter().map(|append| self.take(append)).collect()))
    }

    fn append_now(&self, append: &Append) -> Option<Appended> {
        Some(self.take(append))
    }

    fn close(&self, close: Close) -> impl Future<Output = Result<Closed, Infallible>> + Send {
        ready(Ok(self.close_now(close)))
    }

    fn interrupt(&self, interrupt: Interrupt) -> impl Future<Output = Result<Interrupted, Infallible>> + Send {
        ready(Ok(self.interrupt_now(&interrupt)))
    }

    fn reopen(&self, reopen: Reopen) -> impl Future<Output = Result<Reopened, Infallible>> + Send {
        ready(Ok(self.reopen_now(&reopen)))
    }

    fn publish(&self, publish: Publish) -> impl Future<Output = Result<Published, Infallible>> + Send {
        ready(Ok(self.publish_now(publish)))
    }

    fn read(&self, read: Read) -> impl Future<Output = Result<Option<Page>, Infallible>> + Send {
        let now = self.now();
        ready(Ok(self.shard(&read.key).held(&read.key, now).map(|entry| entry.read(&read))))
    }

    fn info(&self, key: StreamKey) -> impl Future<Output = Result<Option<StreamInfo>, Infallible>> + Send {
        let now = self.now();
        ready(Ok(self.shard(&key).held(&key, now).map(|entry| entry.info(&key))))
    }

    fn list(&self, list: List) -> impl Future<Output = Result<Listed, Infallible>> + Send {
        ready(Ok(self.list_now(&list)))
    }

    fn active_count(&self) -> impl Future<Output = Result<u64, Infallible>> + Send {
        let active = |shard: &Mutex<Shard>| {
            lock(shard).entries.values().filter(|entry| entry.state() == StreamState::Active).count() as u64
        };
        ready(Ok(self.0.shards.iter().map(active).sum()))
    }

    fn delete(&self, key: StreamKey) -> impl Future<Output = Result<(), Infallible>> + Send {
        self.delete_now(&key);
        ready(Ok(()))
    }

    fn beat(&self, beat: Beat) -> impl Future<Output = Result<Beaten, Infallible>> + Send {
        ready(Ok(self.beat_now(&beat)))
    }

    fn due(
        &self,
        limit: usize,
        lease: Duration,
        claim: Option<u64>,
    ) -> impl Future<Output = Result<Vec<Due>, Infallible>> + Send {
        ready(Ok(self.due_now(limit, lease, claim)))
    }

    fn stale(
        &self,
        threshold: Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StreamInfo>, Infallible>> + Send {
        ready(Ok(self.stale_now(threshold, limit)))
    }

    fn pointer(&self, conversation: StreamKey) -> impl Future<Output = Result<Option<Pointer>, Infallible>> + Send {
        ready(Ok(lock(&self.0.pointers).get(&conversation, self.now())))
    }

    fn point(&self, point: Point) -> impl Future<Output = Result<Pointed, Infallible>> + Send {
        ready(Ok(lock(&self.0.pointers).point(&point, self.now())))
    }

    fn unpoint(
        &self,
        conversation: StreamKey,
        stream: StreamId,
        epoch: Option<u64>,
    ) -> impl Future<Output = Result<Option<Pointer>, Infallible>> + Send {
        ready(Ok(self.unpoint_now(&conversation, &stream, epoch)))
    }

    fn give_way(
        &self,
        conversation: StreamKey,
        streams: Vec<StreamId>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send {
        lock(&self.0.pointers).give_way(&conversation, &streams, self.now());
        ready(Ok(()))
    }

    fn renew(&self, renewals: Vec<Renew>) -> impl Future<Output = Result<Vec<Renewed>, Infallible>> + Send {
        let (now, mut pointers) = (self.now(), lock(&self.0.pointers));
        ready(Ok(renewals.iter().map(|renew| Renewed::Stands(pointers.renew(renew, now))).collect()))
    }

    fn hook_done(&self, key: StreamKey) -> impl Future<Output = Result<(), Infallible>> + Send {
        let mut shard = self.shard(&key);
        if let Some(entry) = shard.entries.get_mut(&key) {
            entry.hook_done();
        }
        ready(Ok(()))
    }

    fn tail(&self, key: &StreamKey) -> Tail {
        let mut shard = self.shard(key);
        match shard.entries.get(key) {
            Some(entry) => entry.tail.tail(),
            None => shard.await_stream(key).tail(),
        }
    }

    /// Also on this node: who follows holds a tail.
    fn is_followed(&self, key: &StreamKey) -> bool {
        self.is_followed_beside(key, 0)
    }

    fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        self.shard(key).entries.get(key).is_some_and(|entry| Arc::strong_count(&entry.tail) > 1 + here)
    }

    fn notices(&self, node: &NodeId) -> Notices {
        let (sender, notices) = Notices::channel();
        let mut nodes = lock(&self.0.nodes);
        nodes.retain(|_, sender| !sender.is_closed());
        nodes.insert(node.clone(), sender);
        notices
    }
}
