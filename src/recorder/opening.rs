//! The registration of producers, and its withdrawal if the request is dropped.

use std::{sync::Arc, time::Duration};

use super::{lane::Lane, producing::Status, work::Recorder};
use crate::{
    StoreError,
    model::id::StreamKey,
    protocol::backoff::Backoff,
    store::{Open, Opened, StoreHandle},
};

/// A registration that may have reached the store. Dropping it withdraws the registration, unless it is kept.
pub(crate) struct Opening {
    recorder: Arc<Recorder>,
    key: StreamKey,
    pub(crate) token: u128,
    armed: bool,
    /// Whether the store has answered. Otherwise the request may still arrive.
    answered: bool,
}

impl Opening {
    /// Keeps the registration, because its producer has begun to answer or has requested an end.
    pub(crate) fn keep(&mut self) {
        self.armed = false;
    }

    /// Whether the registration is withdrawn when this is dropped.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.armed {
            let (store, key, token) = (self.recorder.store.clone(), self.key.clone(), self.token);
            self.recorder.executor.begin(take_back(store, key, token, self.answered));
        }
    }
}

/// How long a request without an answer may still take to arrive, for example after its connection was lost.
pub(crate) const LATE: Duration = Duration::from_secs(2);
/// How often a withdrawal is retried. If all tries fail, a sweep soon finds the stream, because no beat lists it.
const WITHDRAWALS: u32 = 8;

/// Withdraws a registration. If the store has not answered the registration (`answered` is `false`), the registration
/// may arrive after the withdrawal, so the withdrawal is sent a second time.
async fn take_back(store: StoreHandle, key: StreamKey, token: u128, answered: bool) {
    let withdrawn = store.withdraw(key.clone(), token).await.is_ok();
    // Without a runtime there are no timers for retries. A sweep then finds the registration.
    if (withdrawn && answered) || tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let store = store.in_background();
    let mut backoff = Backoff::new(Duration::from_millis(100), LATE);
    let mut left = WITHDRAWALS;
    let mut is_withdrawn = withdrawn;
    while !is_withdrawn && left > 0 {
        tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        is_withdrawn = store.withdraw(key.clone(), token).await.is_ok();
        left -= 1;
    }
    if !answered {
        tokio::time::sleep(LATE).await;
        let _ = store.withdraw(key, token).await;
    }
}

/// How often an update of a registration is tried.
const TRIES: u32 = 5;

impl Recorder {
    /// Updates the registration of a stream with its conversation and the kept headers of its response.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the update may or may not be stored.
    pub(crate) async fn update_registration(&self, lane: &Lane) {
        let request = lane.registered();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        for _ in 0..TRIES {
            // If an ending stream has been interrupted by now, this request would start a new run.
            if lane.status() != Status::Running || lane.is_ending() {
                return;
            }
            match self.store.open(request.clone()).await {
                // Another node had interrupted the stream, and this request started a new run.
                Ok(Opened::New { epoch, .. }) if epoch != lane.epoch => {
                    return drop(self.store.withdraw(request.key, request.token).await);
                }
                Ok(_) => return,
                Err(_) => {}
            }
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        }
    }

    /// Registers a producer with the store. Retries once after an error, because the reply may have been lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the registration is withdrawn.
    pub(crate) async fn open(self: &Arc<Self>, request: Open) -> (Opening, Result<Opened, StoreError>) {
        let (key, token) = (request.key.clone(), request.token);
        let mut opening = Opening { recorder: Arc::clone(self), key, token, armed: true, answered: false };
        let opened = match self.store.open(request.clone()).await {
            // The request was not sent, so there is nothing to withdraw.
            Err(error) if error.is_breaker_open() => {
                opening.armed = false;
                return (opening, Err(error));
            }
            // The token makes the retry the same request, so it is not registered twice if only the reply was lost.
            Err(error) if !error.is_timeout() => self.store.open(request).await,
            opened => opened,
        };
        // Only a new registration, or one without an answer, may have to be withdrawn.
        opening.armed = matches!(opened, Err(_) | Ok(Opened::New { .. }));
        opening.answered = opened.is_ok();
        (opening, opened)
    }
}
