//! Wake-ups of a stream's followers.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::slots::{Slot, Slots};
use crate::runtime::sync::lock;

/// The sending half of a [`Tail`]: what a store keeps for each stream.
///
/// If nobody waits, notifying costs one atomic addition.
#[derive(Default)]
pub struct TailCell {
    version: AtomicU64,
    /// The number of waiting wakers. An append reads it instead of taking the lock to see that there is none.
    waiting: AtomicU64,
    /// Allocated for the first waiter: most streams have no follower.
    wakers: Mutex<Option<Box<Slots>>>,
    /// Called before each wait.
    on_wait: Option<Box<dyn Fn() + Send + Sync>>,
}

impl TailCell {
    /// A cell that calls `on_wait` before each wait, for a store that listens for changes only while somebody waits.
    ///
    /// `on_wait` is called within a poll and must be quick.
    #[must_use]
    pub fn on_wait(on_wait: impl Fn() + Send + Sync + 'static) -> Self {
        Self { on_wait: Some(Box::new(on_wait)), ..Self::default() }
    }

    /// Whether a task waits for a change.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes all waiting tasks.
    ///
    /// Wakers run before this returns, and a waker may call the store: the store must not hold a lock meanwhile.
    /// Complexity: O(waiting tasks).
    pub fn notify(&self) {
        Woken::default().add(self);
    }

    /// Marks the stream as changed and takes the wakers of all waiting tasks.
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

    /// A new receiving half. It sees the changes that are notified from now on.
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

/// Wakers of streams that changed under a lock. Dropping this wakes them, so it must be dropped after the lock.
#[derive(Debug, Default)]
pub(super) struct Woken(Vec<Option<Waker>>);

impl Woken {
    /// Notes that the cell's stream has changed.
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

/// Wakes a follower when its stream may have changed. The follower then reads the log again.
#[derive(Debug)]
pub struct Tail {
    cell: Arc<TailCell>,
    slot: Option<Slot>,
    seen: u64,
}

impl Tail {
    /// Ready if there was a notification since the last time this was ready. Several notifications may count as one.
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
        // A notification between the first check and the registration would be missed otherwise.
        if self.take_change() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_change(&mut self) -> bool {
        let version = self.cell.version.load(Ordering::SeqCst);
        std::mem::replace(&mut self.seen, version) != version
    }

    fn register(&mut self, waker: &Waker) {
        // Not under the lock: cloning and dropping wakers may run the executor's code.
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
