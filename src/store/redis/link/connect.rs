//! Makes the connection. All requests that need it share one attempt.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{PushInfo, PushKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{error::RedisStoreError, source::Connected};
use super::state::{Inner, Link, Live, State};
use crate::runtime::sync::lock;

/// The time over which processes spread their new connections to a server that had stopped answering, since all of them
/// notice it at the same moment.
const SPREAD: Duration = Duration::from_millis(500);

impl Link {
    /// Connects if there is no connection, and waits for the result.
    pub(in super::super) async fn connect(&self) -> Result<(), RedisStoreError> {
        self.live().await.map(drop)
    }

    /// Returns the connection. Waits while it is being made.
    pub(super) async fn live(&self) -> Result<Live, RedisStoreError> {
        let mut states = self.0.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(live) if live.closed.is_cancelled() => self.0.discard(live.number, State::Idle),
                State::Up(live) => return Ok(live),
                State::Down { error, again } if again > Instant::now() => return Err(error),
                State::Idle | State::Silent { .. } | State::Down { .. } => self.begin_connecting(),
                State::Connecting { after: Some(error) } => return Err(error),
                State::Connecting { after: None } => {
                    if states.changed().await.is_err() {
                        return Err(RedisStoreError::slow(&self.0.address));
                    }
                }
            }
        }
    }

    /// Returns the connection, if there is one. If not, begins to make one for later requests.
    pub(super) fn live_now(&self) -> Option<Live> {
        let closed = match &*self.0.state.borrow() {
            State::Up(live) if !live.closed.is_cancelled() => return Some(live.clone()),
            State::Up(live) => Some(live.number),
            _ => None,
        };
        if let Some(closed) = closed {
            self.0.discard(closed, State::Idle);
        }
        self.begin_connecting();
        None
    }

    /// Begins to connect, in a task of its own. The request that needs the connection may be dropped, and the attempt
    /// must go on for the next request.
    fn begin_connecting(&self) {
        let mut pause = Duration::ZERO;
        let begins = self.0.state.send_if_modified(|state| {
            let after = match state {
                State::Idle => None,
                State::Silent { error } => {
                    pause = spread();
                    Some(error.clone())
                }
                State::Down { error, again } if *again <= Instant::now() => Some(error.clone()),
                State::Down { .. } | State::Connecting { .. } | State::Up(_) => return false,
            };
            *state = State::Connecting { after };
            true
        });
        if begins {
            let connecting = Connecting(Arc::clone(&self.0));
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                connecting.run().await;
            });
        }
    }

    /// Makes a separate connection for subscriptions. Its messages go to `push`.
    pub(in super::super) async fn subscriber(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connected, RedisStoreError> {
        self.0.source.connect(&self.0.address, push).await
    }
}

/// Returns a random pause of up to `SPREAD`.
pub(in super::super) fn spread() -> Duration {
    SPREAD.mul_f64((crate::runtime::random::u128() as u32) as f64 / f64::from(u32::MAX))
}

impl Inner {
    /// Makes a connection.
    async fn establish(self: &Arc<Self>) -> Result<Live, RedisStoreError> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let closed = CancellationToken::new();
        let (link, is_closed) = (Arc::downgrade(self), closed.clone());
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                is_closed.cancel();
                if let Some(link) = link.upgrade() {
                    link.discard(number, State::Idle);
                }
            }
        };
        let Connected { connection, run } = self.source.connect(&self.address, on_push).await?;
        *lock(&self.run) = run;
        Ok(Live { number, connection, closed })
    }

    /// Drops the connection for bulk reads. The address may lead to another server now, and reads must go to the server that
    /// takes the writes.
    fn replace_bulk(&self) {
        if let Some(Link(bulk)) = self.bulk.get() {
            let number = match &*bulk.state.borrow() {
                State::Up(live) => live.number,
                _ => return,
            };
            bulk.discard(number, State::Idle);
        }
    }
}

/// An attempt to connect. Dropping it lets the next request try again, even if the attempt did not finish.
struct Connecting(Arc<Inner>);

impl Connecting {
    async fn run(&self) {
        match self.0.establish().await {
            Ok(live) => {
                self.0.unproven.store(true, Ordering::Relaxed);
                self.0.replace_bulk();
                self.0.state.send_replace(State::Up(live));
                let again = self.0.made.swap(true, Ordering::Relaxed);
                if let Some(watch) = self.0.watch.upgrade().filter(|_| again) {
                    watch.reconnected();
                }
            }
            Err(error) => {
                let pause = lock(&self.0.backoff).failed(crate::runtime::random::u128() as u64);
                self.0.state.send_replace(State::Down { error, again: Instant::now() + pause });
            }
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let down = |inner: &Inner| State::Down {
            error: RedisStoreError::slow(&inner.address),
            again: Instant::now() + lock(&inner.backoff).failed(crate::runtime::random::u128() as u64),
        };
        self.0.state.send_if_modified(|state| {
            let unfinished = matches!(state, State::Connecting { .. });
            if unfinished {
                // Wait before the next attempt: a runtime that shuts down drops each new task at once, so waiting
                // requests would begin attempts in an endless loop.
                *state = down(&self.0);
            }
            unfinished
        });
    }
}
