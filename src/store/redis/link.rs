//! One supervised connection to one server: made when it is needed, replaced when it is of no more use.
//!
//! The client library reconnects for a broken pipe only. Here a connection is also replaced when nothing comes back on
//! it (half open), and when its server says that it is a replica now.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Pipeline, ProtocolVersion, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::{sync::watch, time::Instant};

use super::{error::RedisStoreError, sentinels::Sentinels};
use crate::{protocol::backoff::Backoff, sync::lock};

/// How long making a connection may take, with all questions that belong to it.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the library waits for a reply; whoever asks waits less.
const RESPONSE: Duration = Duration::from_secs(5);
/// Requests in a row that were given up before a connection counts as half open.
const UNANSWERED: u32 = 2;
/// A request that was dropped sooner says nothing of its server.
const PATIENCE: Duration = Duration::from_millis(200);
/// Requests that wait to be written.
const QUEUE: usize = 1024;
/// The oldest server that knows scripts with flags, and `EXPIRE` with conditions.
const OLDEST: u32 = 7;

/// Counts the links.
#[cfg(feature = "redis-cluster")]
static LINKS: AtomicU64 = AtomicU64::new(1);

/// Where connections come from.
pub(super) enum Source {
    Client(Box<Client>),
    Sentinel(Box<Sentinels>),
}

impl Source {
    async fn client(&self) -> Result<Client, RedisStoreError> {
        match self {
            Self::Client(client) => Ok(Client::clone(client)),
            Self::Sentinel(sentinels) => sentinels.primary().await,
        }
    }
}

/// What is told of a link's connections.
pub(super) trait Watch: Send + Sync {
    /// A connection was made in the place of one that was lost: what the server holds may be older than what it said.
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
    source: Source,
    state: watch::Sender<State>,
    backoff: Mutex<Backoff>,
    connections: AtomicU64,
    run: Mutex<Arc<str>>,
    unanswered: AtomicU32,
    /// Nothing was answered on the connection yet but what was asked to make it.
    unproven: AtomicBool,
    watch: std::sync::Weak<dyn Watch>,
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
    Down {
        error: RedisStoreError,
        again: Instant,
    },
}

#[derive(Clone)]
struct Live {
    number: u64,
    connection: MultiplexedConnection,
}

impl Link {
    pub(super) fn new(address: &str, source: Source, watch: std::sync::Weak<dyn Watch>) -> Self {
        Self(Arc::new(Inner {
            #[cfg(feature = "redis-cluster")]
            number: LINKS.fetch_add(1, Ordering::Relaxed),
            address: address.into(),
            source,
            state: watch::Sender::new(State::Idle),
            backoff: Mutex::new(Backoff::new(Duration::from_millis(50), Duration::from_secs(1))),
            connections: AtomicU64::new(0),
            run: Mutex::default(),
            unanswered: AtomicU32::new(0),
            unproven: AtomicBool::new(false),
            watch,
        }))
    }

    #[cfg(feature = "redis-cluster")]
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
                State::Up(live) => return Ok(live),
                State::Down { error, again } if again > Instant::now() => return Err(error),
                State::Idle | State::Down { .. } => self.begin_connecting(),
                State::Connecting { after: Some(error) } => return Err(error),
                State::Connecting { after: None } => {
                    if states.changed().await.is_err() {
                        return Err(RedisStoreError::slow(&self.0.address));
                    }
                }
            }
        }
    }

    /// In a task of its own: whoever asked may give up before it is done, and the next one must not begin anew.
    fn begin_connecting(&self) {
        let begins = self.0.state.send_if_modified(|state| {
            let after = match state {
                State::Idle => None,
                State::Down { error, again } if *again <= Instant::now() => Some(error.clone()),
                State::Down { .. } | State::Connecting { .. } | State::Up(_) => return false,
            };
            *state = State::Connecting { after };
            true
        });
        if begins {
            let connecting = Connecting(Arc::clone(&self.0));
            tokio::spawn(async move { connecting.run().await });
        }
    }

    /// A connection of its own for subscriptions, whose messages go to `push`.
    pub(super) async fn subscriber(
        &self,
        push: impl Fn(redis::PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, RedisStoreError> {
        let push = move |info| {
            push(info);
            Ok::<_, std::convert::Infallible>(())
        };
        let config = config().set_push_sender(push);
        tokio::time::timeout(CONNECT, self.0.open(&config))
            .await
            .unwrap_or_else(|_| Err(RedisStoreError::slow(&self.0.address)))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.address).finish()
    }
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
            let error = RedisStoreError::slow(&self.link.address);
            self.link.discard(self.number, State::Down { error, again: Instant::now() });
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
        let pause = lock(&self.backoff).failed(crate::random::u128() as u64);
        self.discard(number, State::Down { error, again: Instant::now() + pause });
    }

    async fn open(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisStoreError> {
        let failed = |error| RedisStoreError::redis(&self.address, error);
        let client = prepared(&self.source.client().await?).map_err(failed)?;
        client.get_multiplexed_async_connection_with_config(config).await.map_err(failed)
    }

    async fn establish(&self) -> Result<Live, RedisStoreError> {
        let failed = |error| RedisStoreError::redis(&self.address, error);
        let mut connection = self.open(&config()).await?;
        let told: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(failed)?;
        let find = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let version = find("redis_version:");
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < OLDEST {
            return Err(RedisStoreError::too_old(&self.address, version));
        }
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        *lock(&self.run) = find("run_id:").into();
        Ok(Live { number, connection })
    }
}

/// An attempt to connect. However it goes, even if its task is dropped, others may try again.
struct Connecting(Arc<Inner>);

impl Connecting {
    async fn run(&self) {
        let made = tokio::time::timeout(CONNECT, self.0.establish()).await;
        match made.unwrap_or_else(|_| Err(RedisStoreError::slow(&self.0.address))) {
            Ok(live) => {
                self.0.unproven.store(true, Ordering::Relaxed);
                let again = live.number > 1;
                self.0.state.send_replace(State::Up(live));
                if let Some(watch) = self.0.watch.upgrade().filter(|_| again) {
                    watch.reconnected();
                }
            }
            Err(error) => {
                let pause = lock(&self.0.backoff).failed(crate::random::u128() as u64);
                self.0.state.send_replace(State::Down { error, again: Instant::now() + pause });
            }
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let unfinished = matches!(state, State::Connecting { .. });
            if unfinished {
                *state = State::Idle;
            }
            unfinished
        });
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_pipeline_buffer_size(QUEUE)
}

/// The client with what the library leaves out: small packets go at once, replies come in the newer protocol (a closed
/// connection is then noticed without writing to it), and what the peer's machine never acknowledges ends a connection.
fn prepared(client: &Client) -> Result<Client, RedisError> {
    let info = client.get_connection_info().clone();
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(RESPONSE);
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
}

fn is_read_only(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}
