//! Locks that are never held while foreign code runs, and so never poisoned by it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use tokio::sync::Notify;

/// Locks, poisoned or not: what these locks guard is left consistent at every step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place for one waker.
#[derive(Debug, Default)]
pub(crate) struct WakerCell(Mutex<Option<Waker>>);

impl WakerCell {
    /// Has this waker woken at the next [`wake`](Self::wake), in place of the one before.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut cell = lock(&self.0);
        match &mut *cell {
            Some(registered) => registered.clone_from(waker),
            None => *cell = Some(waker.clone()),
        }
    }

    pub(crate) fn wake(&self) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Counts work that is under way, and tells when all of it is over.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    count: AtomicUsize,
    over: Notify,
}

impl Underway {
    /// Counts one more, until what this returns is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.count.fetch_add(1, Ordering::SeqCst);
        Entered(Arc::clone(self))
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Ready once nothing is under way.
    pub(crate) async fn until_over(&self) {
        until(&self.over, || self.count() == 0).await;
    }
}

/// One piece of such work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Underway>);

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.over.notify_waiters();
        }
    }
}

/// Ready once the condition holds, which may change whenever `changed` is told.
pub(crate) async fn until(changed: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut change = std::pin::pin!(changed.notified());
        // Before the look: what changes in between is heard of.
        change.as_mut().enable();
        if condition() {
            return;
        }
        change.await;
    }
}
