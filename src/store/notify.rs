//! How a store wakes those who wait for it: followers of a stream, and nodes.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::slots::{Slot, Slots};
use crate::{model::id::StreamKey, runtime::sync::lock};

/// The sending half of a [`Tail`]: what a store keeps for each stream.
///
/// Notifying costs one atomic addition where nobody waits.
#[derive(Default)]
pub struct TailCell {
    version: AtomicU64,
    /// How many wakers are waiting, so that an append need not take the lock to see that none is.
    waiting: AtomicU64,
    /// Made for the first who waits: most streams are followed by nobody.
    wakers: Mutex<Option<Box<Slots>>>,
    /// Told whenever somebody begins to wait.
    on_wait: Option<Box<dyn Fn() + Send + Sync>>,
}

impl TailCell {
    /// A cell that says when somebody begins to wait: for a store that listens for changes only while it must.
    ///
    /// `on_wait` is called within a poll, before each wait: it must be quick.
    #[must_use]
    pub fn on_wait(on_wait: impl Fn() + Send + Sync + 'static) -> Self {
        Self { on_wait: Some(Box::new(on_wait)), ..Self::default() }
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes all waiting tasks before it returns: a store must not hold a lock meanwhile, since a waker may ask the store.
    ///
    /// Complexity: O(waiting).
    pub fn notify(&self) {
        Woken::default().add(self);
    }

    /// Takes the wakers of all waiting tasks, which see the change from now on.
    fn take(&self) -> Vec<Option<Waker>> {
        // SeqCst, like in `poll_changed`: either this sees the waiter, or the waiter sees the version.
        self.version.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let mut wakers = lock(&self.wakers);
        self.waiting.store(0, Ordering::SeqCst);
        wakers.as_mut().map_or_else(Vec::new, |wakers| wakers.take())
    }

    /// A new receiving half, which sees what is notified from now on.
    #[must_use]
    pub fn tail(self: &Arc<Self>) -> Tail {
        Tail { seen: self.version.load(Ordering::SeqCst), slot: None, cell: Arc::clone(self) }
    }
}

impl fmt::Debug for TailCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TailCell").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// Wakers of streams that changed under a lock: they are woken when this is dropped, which must be after the lock is.
#[derive(Debug, Default)]
pub(super) struct Woken(Vec<Option<Waker>>);

impl Woken {
    /// The cell's stream has changed.
    pub(super) fn add(&mut self, cell: &TailCell) {
        let mut taken = cell.take();
        if self.0.is_empty() {
            self.0 = taken;
        } else {
            self.0.append(&mut taken);
        }
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        for waker in self.0.drain(..).flatten() {
            waker.wake();
        }
    }
}

/// Wakes a follower when its stream may have changed. A wake-up says no more than: read again.
#[derive(Debug)]
pub struct Tail {
    cell: Arc<TailCell>,
    slot: Option<Slot>,
    seen: u64,
}

impl Tail {
    /// Ready once since something was notified; several notifications may be one.
    ///
    /// Complexity: O(1), however many follow the stream.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.take_change() {
            return Poll::Ready(());
        }
        self.register(cx.waker());
        if let Some(on_wait) = &self.cell.on_wait {
            on_wait();
        }
        // Between the look and the registration something may have been notified.
        if self.take_change() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_change(&mut self) -> bool {
        let version = self.cell.version.load(Ordering::SeqCst);
        std::mem::replace(&mut self.seen, version) != version
    }

    fn register(&mut self, waker: &Waker) {
        // Cloning a waker and dropping one may run an executor's code: not under the lock.
        let waker = waker.clone();
        let _before = {
            let mut wakers = lock(&self.cell.wakers);
            let wakers = wakers.get_or_insert_default();
            let (slot, before) = wakers.put(self.slot, waker);
            self.slot = Some(slot);
            self.cell.waiting.store(wakers.len() as u64, Ordering::SeqCst);
            before
        };
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let _waker = {
            let mut wakers = lock(&self.cell.wakers);
            let Some(wakers) = wakers.as_mut() else { return };
            let waker = wakers.leave(slot);
            self.cell.waiting.store(wakers.len() as u64, Ordering::SeqCst);
            waker
        };
    }
}

/// What a node is told: see [`Notices`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Post {
    /// The node's streams that somebody else changed.
    pub streams: Vec<StreamKey>,
    /// The node's streams that somebody deleted, each with its newest run: an end of that run or of an earlier one must not
    /// be brought back.
    pub deleted: Vec<(StreamKey, u64)>,
    /// The store was away and is back: what it holds may be older than what it acknowledged.
    pub reconnected: bool,
}

/// The receiving half of a node's post: which of its streams somebody else stopped, closed or took over,
/// and whether the store was away.
///
/// Each stream stands in it once, however often it was posted, so it is bounded by the node's streams.
#[derive(Debug)]
pub struct Notices(Arc<Mailbox>);

/// The sending half of [`Notices`].
#[derive(Clone)]
pub struct NoticesSender(Arc<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: HashSet<StreamKey>,
    deleted: HashMap<StreamKey, u64>,
    reconnected: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    fn put(&self, put: impl FnOnce(&mut Waiting)) {
        let waker = {
            let mut waiting = lock(&self.waiting);
            put(&mut waiting);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Notices {
    /// Both halves.
    #[must_use]
    pub fn channel() -> (NoticesSender, Self) {
        let mailbox = Arc::new(Mailbox::default());
        (NoticesSender(Arc::clone(&mailbox)), Self(mailbox))
    }

    /// Ready with what was posted since.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Post> {
        let waker = cx.waker().clone();
        let _before = {
            let mut waiting = lock(&self.0.waiting);
            if !waiting.streams.is_empty() || waiting.reconnected {
                let streams = waiting.streams.drain().collect();
                let deleted = waiting.deleted.drain().collect();
                return Poll::Ready(Post { streams, deleted, reconnected: std::mem::take(&mut waiting.reconnected) });
            }
            waiting.waker.replace(waker)
        };
        Poll::Pending
    }
}

impl NoticesSender {
    /// Posts a stream.
    pub fn post(&self, key: StreamKey) {
        self.0.put(|waiting| {
            waiting.streams.insert(key);
        });
    }

    /// Posts a stream that was deleted, whose newest run was this one.
    pub fn deleted(&self, key: StreamKey, epoch: u64) {
        self.0.put(|waiting| {
            let newest = waiting.deleted.entry(key.clone()).or_default();
            *newest = epoch.max(*newest);
            waiting.streams.insert(key);
        });
    }

    /// The store was away and is back: what it holds may be older than what it acknowledged.
    ///
    /// The node then beats at once, which finds out whether the store is still the one it was.
    pub fn reconnected(&self) {
        self.0.put(|waiting| waiting.reconnected = true);
    }

    /// Whether nobody receives any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for NoticesSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoticesSender")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::{assert_pending, assert_ready, task};

    /// How many wakers are held.
    fn waiting(cell: &TailCell) -> usize {
        lock(&cell.wakers).as_ref().map_or(0, |wakers| wakers.len())
    }

    #[test]
    fn a_tail_sees_what_was_notified_before_and_while_it_waits() {
        let cell = Arc::new(TailCell::default());
        cell.notify();
        let mut tail = cell.tail();
        let mut wait = task::spawn(());
        assert_pending!(wait.enter(|cx, _| tail.poll_changed(cx)));
        cell.notify();
        cell.notify();
        assert!(wait.is_woken());
        assert_ready!(wait.enter(|cx, _| tail.poll_changed(cx)));
        assert_pending!(wait.enter(|cx, _| tail.poll_changed(cx)));
    }

    #[test]
    fn post_is_given_once_and_wakes() {
        let (sender, mut notices) = Notices::channel();
        let mut wait = task::spawn(());
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        let key = StreamKey::new(crate::Owner::ANONYMOUS, crate::StreamId::new("a").expect("valid"));
        sender.post(key.clone());
        sender.post(key.clone());
        assert!(wait.is_woken());
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { streams: vec![key.clone()], ..Post::default() });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        sender.deleted(key.clone(), 7);
        sender.deleted(key.clone(), 5);
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { streams: vec![key.clone()], deleted: vec![(key, 7)], reconnected: false });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        sender.reconnected();
        assert!(wait.is_woken());
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { reconnected: true, ..Post::default() });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
    }

    #[test]
    fn a_dropped_tail_leaves_nothing_behind() {
        let cell = Arc::new(TailCell::default());
        let mut tail = cell.tail();
        let mut other = cell.tail();
        let mut wait = task::spawn(());
        assert_pending!(wait.enter(|cx, _| tail.poll_changed(cx)));
        assert_pending!(wait.enter(|cx, _| other.poll_changed(cx)));
        drop(tail);
        assert_eq!((waiting(&cell), cell.is_awaited()), (1, true));
        drop(other);
        assert_eq!((waiting(&cell), cell.is_awaited()), (0, false));
    }

    #[test]
    fn a_tail_that_is_polled_again_is_woken_by_its_last_waker_only() {
        let cell = Arc::new(TailCell::default());
        let mut tail = cell.tail();
        let (mut first, mut second) = (task::spawn(()), task::spawn(()));
        assert_pending!(first.enter(|cx, _| tail.poll_changed(cx)));
        assert_pending!(second.enter(|cx, _| tail.poll_changed(cx)));
        assert_eq!(waiting(&cell), 1);
        cell.notify();
        assert!(!first.is_woken() && second.is_woken());
    }

    /// What a stream's followers cost, in slots that are looked at: linear, in whatever order they come and go.
    #[test]
    fn followers_cost_the_same_however_many_there_are() {
        let each = |count: usize| {
            let cell = Arc::new(TailCell::default());
            let mut cx = Context::from_waker(Waker::noop());
            let mut tails: Vec<_> = (0..count).map(|_| cell.tail()).collect();
            for _ in 0..3 {
                for tail in &mut tails {
                    assert_pending!(tail.poll_changed(&mut cx));
                }
                for tail in tails.iter_mut().rev() {
                    assert_pending!(tail.poll_changed(&mut cx));
                }
                cell.notify();
                for tail in &mut tails {
                    assert_ready!(tail.poll_changed(&mut cx));
                }
            }
            for tail in &mut tails {
                assert_pending!(tail.poll_changed(&mut cx));
            }
            tails.drain(..count / 2);
            while tails.pop().is_some() {}
            assert!(!cell.is_awaited());
            let looked_at = lock(&cell.wakers).as_ref().map_or(0, |wakers| wakers.looked_at);
            assert_eq!(looked_at % count, 0);
            looked_at / count
        };
        assert_eq!((each(100), each(10_000)), (8, 8), "six registrations, one more, and leaving");
    }
}
