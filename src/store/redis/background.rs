//! Work that goes on when its caller stops waiting.

use std::{future::Future, pin::Pin, sync::Mutex, time::Duration};

use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use crate::runtime::sync::lock;

/// How long a caller waits for the work. A healthy server has done it by then.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the work may take at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// How many tasks run at a time.
const AT_ONCE: usize = 4096;

/// The tasks that write indexes and pointers. They end with the store.
#[derive(Default)]
pub(super) struct Background(Mutex<JoinSet<()>>);

/// Work on other keys that follows from the change of a stream.
#[must_use]
pub(super) enum Settling {
    /// There is nothing to do.
    Nothing,
    /// A task does it, and drops the sender when it is done.
    Apart(oneshot::Receiver<()>),
    /// There is no room for another task, or no runtime: the caller does it.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Background {
    /// Begins the work, in a task if possible.
    pub(super) fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> Settling {
        let mut tasks = lock(&self.0);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= AT_ONCE || Handle::try_current().is_err() {
            return Settling::Here(Box::pin(work));
        }
        let (done, wait) = oneshot::channel();
        tasks.spawn(async move {
            let _ = timeout(SETTLES_WITHIN, work).await;
            drop(done);
        });
        Settling::Apart(wait)
    }
}

impl Settling {
    /// Waits until the work is done, but at most for `PATIENCE`.
    pub(super) async fn wait(self) {
        let _ = match self {
            Self::Nothing => return,
            Self::Apart(done) => timeout(PATIENCE, done).await.map(drop),
            Self::Here(work) => timeout(PATIENCE, work).await,
        };
    }
}
