//! Locks, wakers and waiting. No lock is held while the host's code runs, so a panic in that code poisons none.

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

/// Locks a mutex, even if it is poisoned: the values behind the library's locks are consistent at every step.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cell for one waker.
///
/// `atomic-waker` is not used, because it clones the waker while its state is locked: if that clone panics, its cell
/// never works again.
#[derive(Debug, Default)]
pub(crate) struct WakerCell(Mutex<Option<Waker>>);

impl WakerCell {
    /// Registers a waker for the next [`wake`](Self::wake), replacing the earlier one.
    pub(crate) fn register(&self, waker: &Waker) {
        if lock(&self.0).as_ref().is_some_and(|registered| registered.will_wake(waker)) {
            return;
        }
        // A waker runs code of the host or the runtime, so it is neither cloned nor dropped under the lock.
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

/// Runs all futures concurrently. Returns their outputs in the same order.
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

/// Counts pieces of work, so that a drain can wait until all of them are over.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    count: AtomicUsize,
    over: Notify,
}

impl Underway {
    /// Counts a piece of work until the returned guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.count.fetch_add(1, Ordering::SeqCst);
        Entered(Arc::clone(self))
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until all work is over.
    pub(crate) async fn until_over(&self) {
        until(&self.over, || self.count() == 0).await;
    }
}

/// A piece of work that [`Underway`] counts. Dropping it ends the work.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Underway>);

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.over.notify_waiters();
        }
    }
}

/// Waits until the condition holds. `changed` must be notified whenever it may have changed.
pub(crate) async fn until(changed: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut change = std::pin::pin!(changed.notified());
        // Enabled before the condition is checked, so that a change in between is not missed.
        change.as_mut().enable();
        if condition() {
            return;
        }
        change.await;
    }
}
