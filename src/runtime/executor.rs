//! The executor, for work that must not run on the poll of a body or of the guardian.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

/// A boxed future that any thread may poll.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Spawns futures, with `tokio::spawn` unless the host sets another function.
#[derive(Clone)]
pub(crate) struct Executor(Arc<dyn Fn(BoxFuture<()>) + Send + Sync>);

impl Executor {
    pub(crate) fn new(spawn: impl Fn(BoxFuture<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(spawn))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        (self.0)(Box::pin(future));
    }

    /// Polls a future once, and spawns it if it is pending. The future must not create a timer outside of a runtime,
    /// see `StoreHandle`.
    pub(crate) fn begin(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut future: BoxFuture<()> = Box::pin(future);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            (self.0)(future);
        }
    }
}

impl Default for Executor {
    /// Returns an executor that uses the current tokio runtime. Outside of a runtime a future is dropped, which leaves
    /// the same state as a killed process.
    fn default() -> Self {
        Self::new(|future| {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                drop(runtime.spawn(future));
            }
        })
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}
