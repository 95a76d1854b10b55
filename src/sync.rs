//! Locks that are never held while foreign code runs, and so never poisoned by it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

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
