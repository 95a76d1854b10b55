//! Locks that are never held while foreign code runs, and so never poisoned by it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use tokio::sync::Notify;

/// Locks, poisoned or not: what these locks guard is left consistent at every step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place for one waker.
///
/// `atomic-waker` does the same, but clones a waker while it holds its place: one that panics there closes the place for good.
#[derive(Debug, Default)]
pub(crate) struct WakerCell(Mutex<Option<Waker>>);

impl WakerCell {
    /// Has this waker woken at the next [`wake`](Self::wake), in place of the one before.
    pub(crate) fn register(&self, waker: &Waker) {
        if lock(&self.0).as_ref().is_some_and(|registered| registered.will_wake(waker)) {
            return;
        }
        // A waker is foreign code: it is neither cloned nor dropped under the lock.
        let newer = waker.clone();
        let before = lock(&self.0).replace(newer);
        drop(before);
    }

    pub(crate) fn wake(&self) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for all of them at the same time; their outputs come in their order.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
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
