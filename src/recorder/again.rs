//! Repeats what a store has lost.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{lane::Lane, work::Recorder};
use crate::{
    hooks::recent::RecentClose,
    protocol::backoff::Backoff,
    runtime::sync::lock,
    store::{Closed, Reopened, StoreHandle},
    telemetry::log_warn,
};

/// How often an end is sent again before it is given up, and how many ends are sent at a time.
const TRIES: u32 = 8;
const WORKERS: usize = 16;

impl Recorder {
    /// Handles a store that may have lost data: checks each running stream, and stores the recent ends again.
    pub(crate) fn store_changed(self: &Arc<Self>) {
        for lane in self.lanes() {
            self.check_stream(&lane);
        }
        let ends = self.hooks.recent.all();
        let workers = ends.len().min(WORKERS);
        let ends = Arc::new(Mutex::new(ends));
        for _ in 0..workers {
            let (recorder, ends) = (Arc::clone(self), Arc::clone(&ends));
            self.executor.spawn(async move {
                loop {
                    let Some(recent) = lock(&ends).pop_front() else { return };
                    recorder.close_again(recent).await;
                }
            });
        }
    }

    /// Whether a newer run of the stream is running on this node. The end of the earlier run is then obsolete.
    pub(super) fn has_newer_run(&self, recent: &RecentClose) -> bool {
        let is_newer = |lane: &Lane| recent.close.epoch.is_some_and(|ended| ended < lane.epoch);
        self.lane(&recent.close.key).is_some_and(|lane| is_newer(&lane))
    }

    async fn close_again(&self, recent: RecentClose) {
        let store = self.store.in_background();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        for _ in 0..TRIES {
            if self.has_newer_run(&recent) || self.hooks.recent.is_deleted(&recent) {
                return;
            }
            match send(&store, &recent).await {
                Ok(Some(Closed::Now { .. })) => {
                    if recent.close.hook.is_some() {
                        self.hooks.ended(recent.close.key);
                    }
                    return;
                }
                Ok(_) => return,
                Err(_) => tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await,
            }
        }
        log_warn!(id = %recent.close.key.id, "the end of a stream may be lost: the store did not take it again");
    }
}

/// Closes the stream, and registers it again first if the store forgot it. Returns `None` if the stream has another
/// producer.
async fn send(store: &StoreHandle, recent: &RecentClose) -> Result<Option<Closed>, crate::StoreError> {
    match store.close(recent.close.clone()).await? {
        Closed::Missing => {}
        closed => return Ok(Some(closed)),
    }
    match store.reopen(recent.reopen.clone()).await? {
        Reopened::Registered => store.close(recent.close.clone()).await.map(Some),
        Reopened::Fenced(_) => Ok(None),
    }
}
