//! Registering a producer, so that no registration is left behind which nobody uses.

use std::{sync::Arc, time::Duration};

use super::{lane::Lane, producing::Status, work::Recorder};
use crate::{
    StoreError,
    model::id::StreamKey,
    protocol::backoff::Backoff,
    store::{Open, Opened, StoreHandle},
};

/// An `open` that may have reached the store: withdrawn if this is dropped.
pub(crate) struct Opening {
    recorder: Arc<Recorder>,
    key: StreamKey,
    pub(crate) token: u128,
    armed: bool,
    /// Whether the store has answered: nothing of it is on its way any more.
    answered: bool,
}

impl Opening {
    /// The registration stands: its producer has begun to answer, or has an end of its own.
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

/// How long what was sent, and not answered, may still take to arrive: over a connection that was lost, or where it was held up.
pub(crate) const LATE: Duration = Duration::from_secs(2);
/// How often a withdrawal is tried. Should all fail, a sweep finds the stream soon: nobody beats it.
const WITHDRAWALS: u32 = 8;

/// Withdraws a registration. `answered`: the store has said that it registered it. Where it has not, the registration may arrive after its
/// withdrawal, so that is said again.
async fn take_back(store: StoreHandle, key: StreamKey, token: u128, answered: bool) {
    let withdrawn = store.withdraw(key.clone(), token).await.is_ok();
    // Outside a runtime there are no timers; then a sweep finds what is left.
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

/// How often what is to be said of a registered stream is said at most.
const TRIES: u32 = 5;

impl Recorder {
    /// Says again what a stream was registered with, as far as more is known of it by now: the conversation that it is a
    /// turn of, the headers that are kept of its response.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, that was stored or not.
    pub(crate) async fn say_again(&self, lane: &Lane) {
        let request = lane.registered();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        for _ in 0..TRIES {
            // A stream that is ending might be interrupted by now, and this would run it again.
            if lane.status() != Status::Running || lane.is_ending() {
                return;
            }
            match self.store.open(request.clone()).await {
                // It was interrupted by another node, and this has begun another run.
                Ok(Opened::New { epoch, .. }) if epoch != lane.epoch => {
                    return drop(self.store.withdraw(request.key, request.token).await);
                }
                Ok(_) => return,
                Err(_) => {}
            }
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        }
    }

    /// Asks the store to register a producer, once more where the reply may have been lost.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the registration is withdrawn.
    pub(crate) async fn open(self: &Arc<Self>, request: Open) -> (Opening, Result<Opened, StoreError>) {
        let (key, token) = (request.key.clone(), request.token);
        let mut opening = Opening { recorder: Arc::clone(self), key, token, armed: true, answered: false };
        let opened = match self.store.open(request.clone()).await {
            // It was not sent, so there is nothing to take back.
            Err(error) if error.is_breaker_open() => {
                opening.armed = false;
                return (opening, Err(error));
            }
            // The token makes it the same request: a reply that was lost is not a second registration.
            Err(error) if !error.is_timeout() => self.store.open(request).await,
            opened => opened,
        };
        // Only a new registration, or one of which nothing was heard, may have to be taken back.
        opening.armed = matches!(opened, Err(_) | Ok(Opened::New { .. }));
        opening.answered = opened.is_ok();
        (opening, opened)
    }
}
