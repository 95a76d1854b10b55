//! Detects that the store has restarted, was emptied, or failed over, and may have lost streams.

use std::sync::atomic::Ordering;

use crate::{model::error::StoreError, node::Node, runtime::sync::lock, telemetry::log_warn};

impl Node {
    /// Notes the run of the store that answered a beat. Returns whether it differs from the run before, because the
    /// store has restarted, was emptied, or failed over. The streams and ends that it may have lost are then sent
    /// again.
    pub(crate) fn note_run(&self, run: u128) -> bool {
        let before = lock(&self.run).replace(run);
        let another = before.is_some_and(|before| before != run);
        if another {
            log_warn!(
                "the store has restarted, was emptied, or failed over: streams that it may have lost are sent again"
            );
            self.store_forgot();
            self.recorder.store_changed();
        }
        another
    }

    /// Asks the store whether it may have lost a stream that it does not know. Asking is needed because this node may
    /// not have noticed a restart of the store yet.
    pub(crate) async fn ask_whether_forgotten(&self) -> Result<bool, StoreError> {
        let times_asked = self.times_asked.load(Ordering::SeqCst);
        let mut answer = self.asked_store.lock().await;
        // One request at a time. Callers that waited share the result of a request that began after they came, even if
        // it failed. Otherwise, with a store that hangs, they would wait for one time limit after the other.
        let asks = answer.is_none() || self.times_asked.load(Ordering::SeqCst) == times_asked;
        if asks && !self.may_be_forgotten() {
            self.times_asked.fetch_add(1, Ordering::SeqCst);
            *answer = None;
            // A request waits for this beat, unlike for a guardian's, so it gets the shorter limit.
            let beaten = tokio::time::timeout(self.settings.store_limit, self.store.send_beat(self.beat_of([].into())));
            let beaten = beaten.await.unwrap_or_else(|_| Err(StoreError::timed_out("beat")));
            *answer = Some(beaten.as_ref().map(|_| ()).map_err(Clone::clone));
            if beaten.is_ok_and(|beaten| self.note_run(beaten.run)) {
                // This makes the guardian beat at once, with the names of all its streams.
                self.store.came_back();
            }
        }
        match &*answer {
            Some(Err(error)) if !self.may_be_forgotten() => Err(error.clone()),
            _ => Ok(self.may_be_forgotten()),
        }
    }

    /// Notes that the store may have lost streams, whose producers may register them again.
    fn store_forgot(&self) {
        let until = self.elapsed() + self.settings.stale_after.as_millis() as u64;
        self.forgotten_until.store(until, Ordering::Relaxed);
    }

    /// Whether the store may have lost a stream that it does not know, so that its producer may register it again.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        self.elapsed() < self.forgotten_until.load(Ordering::Relaxed)
    }
}
