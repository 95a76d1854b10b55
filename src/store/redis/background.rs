//! Work that a caller does not wait for to the end.

use std::{future::Future, pin::Pin, sync::Mutex, time::Duration};

use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use crate::runtime::sync::lock;

/// For how long a caller waits for the indexes: a server that answers has done it by then.
const PATIENCE: Duration = Duration::from_millis(100);
/// For how long the indexes of a stream are tried at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// How many streams' indexes are written at a time.
const AT_ONCE: usize = 4096;

/// Work on indexes and pointers that nobody waits for any more. It ends with the store.
#[derive(Default)]
pub(super) struct Background(Mutex<JoinSet<()>>);

/// Work on what a stream's change means for other keys, as far as its caller waits for it.
#[must_use]
pub(super) enum Settling {
    Nothing,
    Apart(oneshot::Receiver<()>),
    /// There is no room for another task, or no runtime.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Background {
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
    /// Waits until it is done, but not for long.
    pub(super) async fn wait(self) {
        let _ = match self {
            Self::Nothing => return,
            Self::Apart(done) => timeout(PATIENCE, done).await.map(drop),
            Self::Here(work) => timeout(PATIENCE, work).await,
        };
    }
}
