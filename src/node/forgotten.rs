//! Whether the store is another than before: restarted, emptied, or failed over.

use std::sync::atomic::Ordering;

use crate::{model::error::StoreError, node::Node, runtime::sync::lock, telemetry::log_warn};

impl Node {
    /// Notes which run of the store answered a beat. Returns whether it is another than before: the store has restarted, was
    /// emptied, or failed over. Streams and ends that it may have lost are then sent to it again.
    pub(crate) fn heard_run(&self, run: u128) -> bool {
        let before = lock(&self.run).replace(run);
        let another = before.is_some_and(|before| before != run);
        if another {
            log_warn!("the store is another than before: restarted, emptied or failed over");
            self.store_forgot();
            self.recorder.store_changed();
        }
        another
    }

    /// Asks the store whether it may have forgotten a stream that it does not know: this node need not have heard of a
    /// restart yet.
    pub(crate) async fn ask_whether_forgotten(&self) -> Result<bool, StoreError> {
        let times_asked = self.times_asked.load(Ordering::SeqCst);
        let mut answer = self.asked_store.lock().await;
        // One request at a time. Callers that waited share the result of a request made after they came, a failure too:
        // with a store that hangs they would otherwise wait for one time limit after the other.
        let asks = answer.is_none() || self.times_asked.load(Ordering::SeqCst) == times_asked;
        if asks && !self.may_be_forgotten() {
            self.times_asked.fetch_add(1, Ordering::SeqCst);
            *answer = None;
            // Somebody waits for this, unlike for a guardian's beat.
            let beaten =
                tokio::time::timeout(self.settings.store_limit, self.store.sign_of_life(self.beat_of([].into())));
            let beaten = beaten.await.unwrap_or_else(|_| Err(StoreError::timed_out("beat")));
            *answer = Some(beaten.as_ref().map(|_| ()).map_err(Clone::clone));
            if beaten.is_ok_and(|beaten| self.heard_run(beaten.run)) {
                // The guardian's own beats break off here too, and its streams are named.
                self.store.came_back();
            }
        }
        match &*answer {
            Some(Err(error)) if !self.may_be_forgotten() => Err(error.clone()),
            _ => Ok(self.may_be_forgotten()),
        }
    }

    /// Notes that the store has forgotten streams, which may register again.
    fn store_forgot(&self) {
        let until = self.elapsed() + self.settings.stale_after.as_millis() as u64;
        self.forgotten_until.store(until, Ordering::Relaxed);
    }

    /// Whether a stream that the store does not know may only have been forgotten.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        self.elapsed() < self.forgotten_until.load(Ordering::Relaxed)
    }
}
