//! The embedded default: one process, the same guarantees within it.

mod entry;
mod log;
mod pointers;
mod shard;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    convert::Infallible,
    future::{Future, ready},
    hash::BuildHasher as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use entry::{Entry, millis};
use log::Log;
use pointers::Pointers;
use shard::{Look, Shard};
use tokio::time::Instant;

use crate::{
    model::{
        id::{NodeId, Owner, StreamId, StreamKey},
        stream::{StreamInfo, StreamState},
    },
    runtime::sync::lock,
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices,
        NoticesSender, Open, Opened, Page, Place, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed,
        Reopen, Reopened, Store, Tail, notify::Woken,
    },
};

const SHARDS: usize = 64;

/// A store in the process's memory. Clones are the same store: several hubs may share one.
///
/// What it holds ends with the process. Its clock is monotonic: it starts at the system's time and
/// then does not follow when that is set. No waker runs under its locks.
///
/// Complexity: appending and reading are O(1) and O(entries read); [`due`](Store::due) is
/// O(streams due), not O(streams).
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

/// Wakers are collected under the locks and woken once no lock is held: each method declares its `Woken` before the locks, so
/// that it is dropped after them.
struct Inner {
    run: Mutex<u128>,
    clock: Clock,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Taken before any shard, never after.
    owners: Mutex<HashMap<Owner, HashSet<StreamId>>>,
    /// Taken after any shard, never before.
    pointers: Mutex<Pointers>,
    nodes: Mutex<HashMap<NodeId, NoticesSender>>,
}

struct Clock {
    start: Instant,
    /// Atomic since a test may set the clock.
    start_ms: AtomicU64,
}

impl Clock {
    fn now(&self) -> u64 {
        self.start_ms.load(Ordering::Relaxed) + millis(self.start.elapsed())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store, whose clock starts at the system's time.
    #[must_use]
    pub fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(millis(unix))
    }

    /// An empty store, whose clock starts at this time, in unix milliseconds: for tests with seeded ids.
    #[must_use]
    pub fn starting_at(unix_ms: u64) -> Self {
        Self(Arc::new(Inner {
            run: Mutex::new(crate::runtime::random::u128()),
            clock: Clock { start: Instant::now(), start_ms: AtomicU64::new(unix_ms) },
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            owners: Mutex::default(),
            pointers: Mutex::default(),
            nodes: Mutex::default(),
        }))
    }

    /// How many streams are held, ended ones and such as nobody has cleaned up yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Whether nothing is held: no stream, no index, no pointer, nobody who waits for a stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let bare = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            let indexed = shard.timers.len() + shard.waiting.len() + shard.removed.len();
            shard.entries.is_empty() && indexed == 0
        };
        self.0.shards.iter().all(bare) && lock(&self.0.owners).is_empty() && lock(&self.0.pointers).is_empty()
    }

    /// Loses everything, as a server does that restarts without persistence.
    #[cfg(feature = "test-util")]
    pub(crate) fn forget(&self) {
        let mut woken = Woken::default();
        let now = self.now();
        lock(&self.0.owners).clear();
        *lock(&self.0.pointers) = Pointers::default();
        *lock(&self.0.run) = crate::runtime::random::u128();
        for shard in &self.0.shards {
            let mut shard = lock(shard);
            shard.timers.clear();
            for (key, entry) in std::mem::take(&mut shard.entries) {
                shard.take_leave(key, &entry, now, &mut woken);
            }
        }
    }

    /// Sets the clock forwards or backwards, by so many milliseconds.
    #[cfg(feature = "test-util")]
    pub(crate) fn shift_clock(&self, by: i64) {
        self.0.clock.start_ms.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
    }

    /// Tells every node that the store was away.
    #[cfg(feature = "test-util")]
    pub(crate) fn reconnected(&self) {
        let nodes: Vec<_> = lock(&self.0.nodes).values().cloned().collect();
        nodes.iter().for_each(NoticesSender::reconnected);
    }

    fn shard(&self, key: &StreamKey) -> MutexGuard<'_, Shard> {
        let hash = self.0.hasher.hash_one(key);
        lock(&self.0.shards[hash as usize % SHARDS])
    }

    fn now(&self) -> u64 {
        self.0.clock.now()
    }

    fn open_now(&self, open: &Open) -> Opened {
        let mut woken = Woken::default();
        let now = self.now();
        // Held over the count and the opening, so that two requests cannot both be the last allowed.
        let mut owners = lock(&self.0.owners);
        let over_limit = open.limit.is_some_and(|limit| {
            let ids = owners.get(&open.key.owner).into_iter().flatten();
            let is_active = |id: &&StreamId| {
                let key = StreamKey::new(open.key.owner.clone(), (*id).clone());
                self.shard(&key).entry(&key, now).is_some_and(|entry| entry.state() == StreamState::Active)
            };
            ids.filter(is_active).count() >= limit
        });
        let mut shard = self.shard(&open.key);
        let opened = shard.open(open, over_limit, now, &mut woken);
        if matches!(opened, Opened::New { .. }) {
            owners.entry(open.key.owner.clone()).or_default().insert(open.key.id.clone());
        }
        opened
    }

    fn withdraw_now(&self, key: &StreamKey, token: u128) {
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
            forget_owned(&mut owners, key);
            drop((shard, owners));
            if let Some(conversation) = conversation {
                let _ = self.unpoint_now(&conversation, &key.id, Some(epoch));
            }
        }
    }

    fn take(&self, append: &Append) -> Appended {
        let mut woken = Woken::default();
        let now = self.now();
        let mut shard = self.shard(&append.key);
        let Some(entry) = shard.entry(&append.key, now) else { return Appended::Gone };
        let outcome = entry.append(append, now);
        woken.add(&entry.tail);
        outcome
    }

    fn close_now(&self, close: Close) -> Closed {
        let mut woken = Woken::default();
        let now = self.now();
        let key = close.key.clone();
        let mut shard = self.shard(&key);
        let Some(entry) = shard.entry(&key, now) else { return Closed::Missing };
        let closed = entry.close(close, now);
        // A repeat, too: whoever sent the first may have died before the pointer followed.
        if matches!(closed, Closed::Now { .. } | Closed::Before(_)) {
            self.lives_on(entry, &key, now);
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

    fn interrupt_now(&self, interrupt: &Interrupt) -> Interrupted {
        let mut woken = Woken::default();
        let now = self.now();
        let mut shard = self.shard(&interrupt.key);
        let Some(entry) = shard.entry(&interrupt.key, now) else { return Interrupted::Missing };
        let interrupted = entry.interrupt(interrupt);
        if interrupted == Interrupted::Done {
            self.lives_on(entry, &interrupt.key, now);
        }
        woken.add(&entry.tail);
        interrupted
    }

    fn reopen_now(&self, reopen: &Reopen) -> Reopened {
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
        let log = Log::resumed_after(crate::EventId::new(reopen.epoch, reopen.acknowledged));
        shard.insert(key, now, &mut woken, |tail| Entry::reopened(reopen, log, tail, now));
        if let Some(entry) = shard.entries.get(key) {
            self.put_back(entry, reopen, now);
        }
        owners.entry(key.owner.clone()).or_default().insert(key.id.clone());
        Reopened::Registered
    }

    fn publish_now(&self, publish: Publish) -> Published {
        let mut woken = Woken::default();
        let now = self.now();
        let key = publish.key.clone();
        let mut owners = lock(&self.0.owners);
        let mut shard = self.shard(&key);
        if shard.held(&key, now).is_none() {
            let epoch = shard.next_epoch(&key, now);
            shard.insert(&key, now, &mut woken, |tail| Entry::published(&publish, epoch, tail, now));
            owners.entry(key.owner.clone()).or_default().insert(key.id.clone());
        }
        drop(owners);
        let Some(entry) = shard.entries.get_mut(&key) else { return Published::Conflict };
        let published = entry.publish(publish, now);
        woken.add(&entry.tail);
        shard.reschedule(&key);
        published
    }

    fn list_now(&self, list: &List) -> Listed {
        let now = self.now();
        let ids: Vec<_> = lock(&self.0.owners).get(&list.owner).into_iter().flatten().cloned().collect();
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

    fn delete_now(&self, key: &StreamKey) {
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
        forget_owned(&mut owners, key);
        drop((shard, owners));
        if let Some(conversation) = conversation {
            let _ = self.unpoint_now(&conversation, &key.id, Some(epoch));
        }
        if let Some(sender) = node.and_then(|node| self.sender(&node)) {
            sender.deleted(key.clone(), epoch);
        }
    }

    fn beat_now(&self, beat: &Beat) -> Beaten {
        let now = self.now();
        let stale = millis(beat.stale);
        let is_lost = |(key, epoch): &(StreamKey, u64)| {
            let mut shard = self.shard(key);
            let own = |entry: &&mut Entry| entry.state() == StreamState::Active && entry.epoch() == *epoch;
            shard.entry(key, now).filter(own).map(|entry| entry.beat(now, stale)).is_none()
        };
        let lost = beat.streams.iter().enumerate().filter(|(_, stream)| is_lost(stream));
        let lost = lost.map(|(index, _)| index).collect();
        Beaten { now, run: *lock(&self.0.run), lost, missed: Vec::new(), refused_by: Vec::new(), taken_by: vec![0] }
    }

    fn due_now(&self, limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due> {
        let now = self.now();
        let claim = claim.map(|claim| claim.min(now));
        let mut look = Look {
            now,
            lease: millis(lease),
            limit,
            claim,
            due: Vec::new(),
            gone: Vec::new(),
            woken: Woken::default(),
        };
        for shard in &self.0.shards {
            lock(shard).look(&mut look);
        }
        lock(&self.0.pointers).expire(now);
        self.forget_indexed(&look.gone);
        look.due
    }

    /// Takes streams that are gone out of the index, unless they have come again.
    fn forget_indexed(&self, gone: &[StreamKey]) {
        if gone.is_empty() {
            return;
        }
        let mut owners = lock(&self.0.owners);
        for key in gone {
            if !self.shard(key).entries.contains_key(key) {
                forget_owned(&mut owners, key);
            }
        }
    }

    fn stale_now(&self, threshold: Duration, limit: usize) -> Vec<StreamInfo> {
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

    /// No shard is locked: another stream is looked at.
    fn unpoint_now(&self, conversation: &StreamKey, stream: &StreamId, epoch: Option<u64>) -> Option<Pointer> {
        let now = self.now();
        let (mut pointer, mut goes_back) = lock(&self.0.pointers).unpoint(conversation, stream, epoch, now);
        while goes_back {
            let Pointer { stream: named, epoch, .. } = pointer?;
            let key = StreamKey::new(conversation.owner.clone(), named.clone());
            // Locked until the pointer is renewed: an end that comes meanwhile is told to the pointer after that.
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

    /// The pointer that names a stream lives as long as that.
    fn lives_on(&self, entry: &Entry, key: &StreamKey, now: u64) {
        self.renew_for(entry, key, entry.expires_in(now), None, now);
    }

    /// Puts back the pointer that named a stream and was lost.
    fn put_back(&self, entry: &Entry, reopen: &Reopen, now: u64) {
        let place = Place { epoch: reopen.epoch, since: reopen.since };
        self.renew_for(entry, &reopen.open.key, entry.kept(), Some(place), now);
    }

    fn renew_for(&self, entry: &Entry, key: &StreamKey, ttl: Duration, put_back: Option<Place>, now: u64) {
        if let Some(conversation) = entry.conversation(key) {
            let renew = Renew { conversation, stream: key.id.clone(), ttl, put_back };
            let _ = lock(&self.0.pointers).renew(&renew, now);
        }
    }

    /// A sender of its own, since it wakes.
    fn sender(&self, node: &NodeId) -> Option<NoticesSender> {
        lock(&self.0.nodes).get(node).cloned()
    }
}

fn forget_owned(owners: &mut HashMap<Owner, HashSet<StreamId>>, key: &StreamKey) {
    if let Some(ids) = owners.get_mut(&key.owner) {
        ids.remove(&key.id);
        if ids.is_empty() {
            owners.remove(&key.owner);
        }
    }
}

/// Every method answers at its first poll.
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

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("streams", &self.len()).finish()
    }
}
