//! One server, and the supervised connections to it: made when they are needed, replaced when they are of no more use.
//!
//! The client library reconnects for a broken pipe only. Here a connection is replaced when it is closed, when nothing
//! comes back on it (half open), and when its server says that it is a replica now.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    Pipeline, PushInfo, PushKind, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::{sync::watch, time::Instant};

pub(super) use super::source::Source;
use super::{error::RedisStoreError, source::Connected};
use crate::{protocol::backoff::Backoff, runtime::sync::lock};

/// Requests in a row that were given up before a connection counts as half open.
const UNANSWERED: u32 = 2;
/// A request that was dropped sooner says nothing of its server.
const PATIENCE: Duration = Duration::from_millis(200);
/// Over how long those who found a server silent spread their new connections: after a stall that is every process.
pub(super) const SPREAD: Duration = Duration::from_millis(500);

/// Counts the links.
#[cfg(feature = "redis-cluster")]
static LINKS: AtomicU64 = AtomicU64::new(1);

/// What is told of a link's connections.
pub(super) trait Watch: Send + Sync {
    /// A connection was made in the place of one that was lost: what the server holds may be older than what it said,
    /// and it may be another server.
    fn reconnected(&self);
}

pub(super) struct Link(Arc<Inner>);

impl Clone for Link {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner {
    #[cfg(feature = "redis-cluster")]
    number: u64,
    address: Arc<str>,
    source: Arc<Source>,
    state: watch::Sender<State>,
    backoff: Mutex<Backoff>,
    /// How many connections were begun, and whether one was made.
    begun: AtomicU64,
    made: AtomicBool,
    run: Mutex<Arc<str>>,
    unanswered: AtomicU32,
    /// Nothing was answered on the connection yet but what was asked to make it.
    unproven: AtomicBool,
    watch: Weak<dyn Watch>,
    /// The connection for bulk reads, from the first of these on.
    bulk: OnceLock<Link>,
}

#[derive(Clone)]
enum State {
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
struct Live {
    number: u64,
    connection: MultiplexedConnection,
    /// Set when the connection is closed, before anything that is asked on it from then on could be written.
    closed: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn new(address: &str, source: Source, watch: Weak<dyn Watch>) -> Self {
        Self::with(address.into(), Arc::new(source), watch)
    }

    fn with(address: Arc<str>, source: Arc<Source>, watch: Weak<dyn Watch>) -> Self {
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

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its own among all links of the process, from 1 on.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.0.address
    }

    /// The run of the server that was connected to last, as it names it: another after each start of a server.
    pub(super) fn run(&self) -> Arc<str> {
        Arc::clone(&lock(&self.0.run))
    }

    /// Sends commands, and returns a reply for each; one that the server refused is `Value::ServerError`.
    ///
    /// Dropped while it waits, the commands may be executed all the same.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        let live = self.live().await?;
        self.exchange(live, commands).await
    }

    /// Sends commands that only read, and may read much, over a connection of their own: what is written to the server is
    /// not acknowledged later for them. Where that connection is not there (yet), they go the way of all others.
    pub(super) async fn look(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        // The main connection says which server it is. One that only reads would never hear that it is a replica by now.
        let live = self.live().await?;
        let bulk = self.0.bulk.get_or_init(|| {
            Self::with(Arc::clone(&self.0.address), Arc::clone(&self.0.source), Weak::<Unwatched>::new())
        });
        let replies = match bulk.live_now() {
            Some(live) if *bulk.run() == *self.run() => bulk.exchange(live, commands).await,
            _ => self.exchange(live, commands).await,
        };
        match replies {
            // Closed meanwhile. What only reads may be read twice.
            Err(error) if error.is_of_the_connection() => self.send(commands).await,
            replies => replies,
        }
    }

    async fn exchange(&self, live: Live, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        let mut unanswered = Unanswered { link: &self.0, number: live.number, since: Instant::now(), answered: false };
        let mut connection = live.connection;
        let replies = connection.req_packed_commands(commands, 0, commands.len()).await;
        unanswered.answered = !replies.as_ref().is_err_and(RedisError::is_timeout);
        drop(unanswered);
        match replies {
            Ok(replies) => {
                match replies.iter().find(|reply| is_read_only(reply)) {
                    Some(Value::ServerError(error)) => self.0.demoted(live.number, error.clone()),
                    _ if self.0.unproven.swap(false, Ordering::Relaxed) => lock(&self.0.backoff).succeeded(),
                    _ => {}
                }
                Ok(replies)
            }
            Err(error) => {
                if !error.is_timeout() {
                    self.0.discard(live.number, State::Idle);
                }
                Err(RedisStoreError::redis(&self.0.address, error))
            }
        }
    }

    /// Connects, if there is no connection; returns once it is known whether that worked.
    pub(super) async fn connect(&self) -> Result<(), RedisStoreError> {
        self.live().await.map(drop)
    }

    async fn live(&self) -> Result<Live, RedisStoreError> {
        let mut states = self.0.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(live) if live.closed.load(Ordering::Relaxed) => self.0.discard(live.number, State::Idle),
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

    /// The connection, if there is one; else one is begun, for those who come later.
    fn live_now(&self) -> Option<Live> {
        let closed = match &*self.0.state.borrow() {
            State::Up(live) if !live.closed.load(Ordering::Relaxed) => return Some(live.clone()),
            State::Up(live) => Some(live.number),
            _ => None,
        };
        if let Some(closed) = closed {
            self.0.discard(closed, State::Idle);
        }
        self.begin_connecting();
        None
    }

    /// In a task of its own: whoever asked may give up before it is done, and the next one must not begin anew.
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

    /// A connection of its own for subscriptions, whose messages go to `push`.
    pub(super) async fn subscriber(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connected, RedisStoreError> {
        self.0.source.connect(&self.0.address, push).await
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.address).finish()
    }
}

/// A pause, so that not every process that found the same server silent connects to it at the same moment.
pub(super) fn spread() -> Duration {
    SPREAD.mul_f64((crate::runtime::random::u128() as u32) as f64 / f64::from(u32::MAX))
}

/// Nobody has to hear of connections for bulk reads: nothing is written on these that could be lost.
struct Unwatched;

impl Watch for Unwatched {
    fn reconnected(&self) {}
}

/// A request on its way. Whoever waits for it has a time limit, and drops it: that is all that is heard of a server
/// which does not answer.
struct Unanswered<'a> {
    link: &'a Inner,
    number: u64,
    since: Instant,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.link.unanswered.store(0, Ordering::Relaxed);
        } else if self.since.elapsed() >= PATIENCE
            && self.link.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED
        {
            self.link.discard(self.number, State::Silent { error: RedisStoreError::slow(&self.link.address) });
        }
    }
}

impl Inner {
    /// The connection is of no more use.
    fn discard(&self, number: u64, then: State) {
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
    fn demoted(&self, number: u64, error: redis::ServerError) {
        let error = RedisStoreError::redis(&self.address, RedisError::from(error));
        let pause = lock(&self.backoff).failed(crate::runtime::random::u128() as u64);
        self.discard(number, State::Down { error, again: Instant::now() + pause });
    }

    async fn establish(self: &Arc<Self>) -> Result<Live, RedisStoreError> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let closed = Arc::new(AtomicBool::new(false));
        let (link, is_closed) = (Arc::downgrade(self), Arc::clone(&closed));
        let hear = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                is_closed.store(true, Ordering::Relaxed);
                if let Some(link) = link.upgrade() {
                    link.discard(number, State::Idle);
                }
            }
        };
        let Connected { connection, run } = self.source.connect(&self.address, hear).await?;
        *lock(&self.run) = run;
        Ok(Live { number, connection, closed })
    }

    /// The address may lead to another server by now: what is read is read where it is written.
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

/// An attempt to connect. However it goes, even if its task is dropped, others may try again.
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
                // Not at once: a runtime that goes down drops what it is given, and whoever asks would begin for ever.
                *state = down(&self.0);
            }
            unfinished
        });
    }
}

fn is_read_only(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}
