//! A server, and what is known of the connection to it.

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

use super::super::{error::RedisStoreError, source::Source};
use crate::{protocol::backoff::Backoff, runtime::sync::lock};

/// Counts the links.
#[cfg(feature = "redis-cluster")]
static LINKS: AtomicU64 = AtomicU64::new(1);

/// What is told of a link's connections.
pub(in super::super) trait Watch: Send + Sync {
    /// A connection was made in the place of one that was lost: what the server holds may be older than what it said,
    /// and it may be another server.
    fn reconnected(&self);
}

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
    /// How many connections were begun, and whether one was made.
    pub(super) begun: AtomicU64,
    pub(super) made: AtomicBool,
    pub(super) run: Mutex<Arc<str>>,
    pub(super) unanswered: AtomicU32,
    /// Nothing was answered on the connection yet but what was asked to make it.
    pub(super) unproven: AtomicBool,
    pub(super) watch: Weak<dyn Watch>,
    /// The connection for bulk reads, from the first of these on.
    pub(super) bulk: OnceLock<Link>,
}

#[derive(Clone)]
pub(super) enum State {
    Idle,
    /// Whoever asks meanwhile waits for that; or is told at once what was wrong with the connection before, if that
    /// had stopped answering: then this one may well not be answered either.
    Connecting {
        after: Option<RedisStoreError>,
    },
    Up(Live),
    /// Nothing came back on the connection. The next request makes another.
    Silent {
        error: RedisStoreError,
    },
    Down {
        error: RedisStoreError,
        again: Instant,
    },
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// Set when the connection is closed, before anything that is asked on it from then on could be written.
    pub(super) closed: Arc<AtomicBool>,
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

    /// Its own among all links of the process, from 1 on.
    #[cfg(feature = "redis-cluster")]
    pub(in super::super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(in super::super) fn address(&self) -> &Arc<str> {
        &self.0.address
    }

    /// The run of the server that was connected to last, as it names it: another after each start of a server.
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
    /// The connection is of no more use.
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

    /// The server is a replica now. Who is the primary may take a while to be known.
    pub(super) fn demoted(&self, number: u64, error: redis::ServerError) {
        let error = RedisStoreError::redis(&self.address, RedisError::from(error));
        let pause = lock(&self.backoff).failed(crate::runtime::random::u128() as u64);
        self.discard(number, State::Down { error, again: Instant::now() + pause });
    }
}
