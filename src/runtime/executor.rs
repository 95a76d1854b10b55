//! Where work goes that must not run on a body's or the guardian's own poll.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

/// A boxed future that any thread may poll.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Spawns futures: `tokio::spawn` unless the host says otherwise.
#[derive(Clone)]
pub(crate) struct Executor(Arc<dyn Fn(BoxFuture<()>) + Send + Sync>);

impl Executor {
    pub(crate) fn new(spawn: impl Fn(BoxFuture<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(spawn))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        (self.0)(Box::pin(future));
    }

    /// Polls a future once, and spawns it if it is not done. The future makes no timer where there is no runtime: see
    /// `StoreHandle`.
    pub(crate) fn begin(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut future: BoxFuture<()> = Box::pin(future);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            (self.0)(future);
        }
    }
}

impl Default for Executor {
    /// Outside a runtime, where there is nothing to run it, a future is dropped:
    /// what it leaves undone is what a killed process leaves undone.
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
