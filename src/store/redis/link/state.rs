//! A server, and the state of the connection to it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{RedisError, aio::MultiplexedConnection};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::super::{error::RedisStoreError, source::Source};
use crate::{protocol::backoff::Backoff, runtime::sync::lock};

/// The number of the next link.
#[cfg(feature = "redis-cluster")]
static LINKS: AtomicU64 = AtomicU64::new(1);

/// Gets notices of a link's connections.
pub(in super::super) trait Watch: Send + Sync {
    /// A connection has replaced one that was lost. It may lead to another server, or the server may have lost what it had
    /// acknowledged.
    fn reconnected(&self);
}

/// A server. Clones share its connections.
pub(in super::super) struct Link(pub(super) Arc<Inner>);

impl Clone for Link {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) struct Inner {
    #[cfg(feature = "redis-cluster")]
    number: u64,
    pub(super) address: Arc<str>,
    pub(super) source: Arc<Source>,
    pub(super) state: watch::Sender<State>,
    pub(super) backoff: Mutex<Backoff>,
    /// How many connections were begun.
    pub(super) begun: AtomicU64,
    /// Whether any connection was made so far.
    pub(super) made: AtomicBool,
    /// The run id of the server.
    pub(super) run: Mutex<Arc<str>>,
    /// How many requests in a row were given up.
    pub(super) unanswered: AtomicU32,
    /// Whether the connection is new: it has answered nothing but the commands that set it up.
    pub(super) unproven: AtomicBool,
    pub(super) watch: Weak<dyn Watch>,
    /// The connection for bulk reads. The first one creates it.
    pub(super) bulk: OnceLock<Link>,
}

#[derive(Clone)]
pub(super) enum State {
    /// There is no connection.
    Idle,
    /// A connection is being made, and requests wait for it. If the connection before had stopped answering, or the
    /// attempt before had failed, `after` has that error, and requests fail with it at once: this attempt may hang as well.
    Connecting { after: Option<RedisStoreError> },
    /// There is a connection.
    Up(Live),
    /// The server did not answer on the connection. The next request makes a new one.
    Silent { error: RedisStoreError },
    /// Connecting failed. A request from `again` on begins the next attempt, and fails with the old error without waiting for it.
    Down { error: RedisStoreError, again: Instant },
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// Cancelled as soon as the connection is closed: no later request is written to it, and none gets a reply any more.
    pub(super) closed: CancellationToken,
}

impl Link {
    pub(in super::super) fn new(address: &str, source: Source, watch: Weak<dyn Watch>) -> Self {
        Self::with(address.into(), Arc::new(source), watch)
    }

    pub(super) fn with(address: Arc<str>, source: Arc<Source>, watch: Weak<dyn Watch>) -> Self {
        Self(Arc::new(Inner {
            #[cfg(feature = "redis-cluster")]
            number: LINKS.fetch_add(1, Ordering::Relaxed),
            address,
            source,
            state: watch::Sender::new(State::Idle),
            backoff: Mutex::new(Backoff::new(Duration::from_millis(50), Duration::from_secs(1))),
            begun: AtomicU64::new(0),
            made: AtomicBool::new(false),
            run: Mutex::default(),
            unanswered: AtomicU32::new(0),
            unproven: AtomicBool::new(false),
            watch,
            bulk: OnceLock::new(),
        }))
    }

    pub(in super::super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the number of the link, which is unique in the process and starts at 1.
    #[cfg(feature = "redis-cluster")]
    pub(in super::super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(in super::super) fn address(&self) -> &Arc<str> {
        &self.0.address
    }

    /// Returns the run id of the server that was connected to last. A server has a new run id after each start.
    pub(in super::super) fn run(&self) -> Arc<str> {
        Arc::clone(&lock(&self.0.run))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.address).finish()
    }
}

impl Inner {
    /// Replaces the connection with this number by the state `then`, if it is still the current one.
    pub(super) fn discard(&self, number: u64, then: State) {
        self.unanswered.store(0, Ordering::Relaxed);
        self.state.send_if_modified(|state| {
            let held = matches!(state, State::Up(live) if live.number == number);
            if held {
                *state = then;
            }
            held
        });
    }

    /// Drops the connection, since the server is a replica now. The next attempt waits: it may take a while until the
    /// new primary is known.
    pub(super) fn demoted(&self, number: u64, error: redis::ServerError) {
        let error = RedisStoreError::redis(&self.address, RedisError::from(error));
        let pause = lock(&self.backoff).failed(crate::runtime::random::u128() as u64);
        self.discard(number, State::Down { error, again: Instant::now() + pause });
    }
}
