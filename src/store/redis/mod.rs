//! Redis: the same guarantees on any number of nodes. See [`RedisStore`].

mod address;
mod clock;
mod cluster;
mod connect;
mod due;
mod error;
mod fleet;
mod followed;
mod indexes;
mod keep;
mod keys;
mod leases;
mod life;
mod link;
mod logs;
mod look;
#[cfg(feature = "redis-cluster")]
mod masters;
mod page;
mod pointers;
mod push;
mod script;
mod sentinels;
mod source;
mod stored;
mod tails;
mod value;
mod write;

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use clock::Clock;
use cluster::Background;
pub use connect::RedisStoreBuilder;
pub use error::RedisStoreError;
use fleet::{Fleet, Request};
use keys::Keys;
use tails::Tails;
use tokio::task::AbortHandle;

use super::{
    Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open, Opened,
    Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Store, Tail,
};
use crate::model::{
    id::{NodeId, StreamId, StreamKey},
    stream::StreamInfo,
};

/// Streams in Redis (7.0 or later) or Valkey, for services on many nodes: one server, one that Sentinels look after, or
/// a Cluster. Clones are the same store.
///
/// ```
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use resilient_sse::{RedisStore, ResilientSse};
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// let (sse, guardian) = ResilientSse::builder(store).anonymous().build()?;
/// # let _ = (sse, guardian);
/// # Ok(())
/// # }
/// ```
///
/// # What an acknowledgement means
///
/// That the events are in the memory of the primary. They survive any node of the service. A crash of Redis may take back
/// what was not written to disk (with `appendfsync everysec` about the last second), a failover what was not replicated.
/// Whatever is lost so is told to clients as a gap, never passed over. To narrow that: `appendonly yes`, and
/// `min-replicas-to-write 1` with a short `min-replicas-max-lag`, so that a primary which lost its replicas takes no more
/// events that a failover would lose.
///
/// # What the server needs
///
/// - `maxmemory-policy noeviction`: a log that is evicted in part would be a gap.
/// - About 4 KiB for each stream that has few events, as a server allots a stream's first node at once;
///   `stream-node-max-bytes 1024` makes that 1.3 KiB.
/// - As an ACL user no more than `~sse:*` and `&sse:*` (the key prefix) and the commands in
///   [`ACL_COMMANDS`](Self::ACL_COMMANDS).
/// - In a cluster, clocks of its nodes that are in step within a second, as NTP keeps them.
///
/// What managed services forbid, and which of their modes fit, is in [`docs::managed_redis`](crate::docs::managed_redis).
///
/// Keys under the prefix are the library's own: what else is found in the place of a log is removed.
#[derive(Clone)]
pub struct RedisStore(Arc<Shared>);

/// What all clones share.
pub(crate) struct Shared {
    keys: Keys,
    cluster: bool,
    fleet: Arc<Fleet>,
    clock: Clock,
    tails: Arc<Tails>,
    positions: Mutex<logs::Positions>,
    densities: page::Densities,
    pulses: tokio::sync::Mutex<keep::Pulses>,
    leases: leases::Leases,
    tasks: Mutex<Vec<AbortHandle>>,
    background: Background,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in crate::runtime::sync::lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

impl Shared {
    /// Sends what may be lost.
    async fn tell(&self, requests: Vec<Request>) {
        if !requests.is_empty() {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.fleet.send(requests)).await;
        }
    }
}

macro_rules! acl_commands {
    ($($command:literal)*) => {
        impl RedisStore {
            /// The commands that an ACL user for the library must be allowed, and no others: `role` only behind Sentinels,
            /// the last two only in a cluster. With the default prefix, as a line of `redis.conf` or in `ACL SETUSER`:
            ///
            /// ```text
            #[doc = concat!("user sse on >password ~sse:* &sse:* -@all", $(" +", $command),*)]
            /// ```
            ///
            /// From Redis 7.2 on, `+client|setinfo` besides keeps new connections out of the server's ACL log; earlier servers do
            /// not know it.
            pub const ACL_COMMANDS: &[&str] = &[$($command),*];
        }
    };
}

acl_commands! {
    "hello" "select" "ping" "info" "time" "eval" "evalsha" "exists" "set" "unlink" "type" "pexpire" "pexpireat" "pttl"
    "get" "hget" "hmget" "hgetall" "hstrlen" "hset" "hdel" "xadd" "xdel" "xrange" "xrevrange" "xtrim" "zadd" "zrem" "zcard" "zscore" "zrange"
    "zrangebyscore" "zrevrank" "zcount" "zremrangebyrank" "publish" "subscribe" "unsubscribe" "role"
    "cluster|slots" "asking"
}

impl RedisStore {
    /// Connects to the server or servers that a URL names, with all defaults: see [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// [`RedisStoreError`] if the URL cannot be read, no server answers, or it is older than Redis 7.0.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing is left behind.
    pub async fn connect(url: &str) -> Result<Self, RedisStoreError> {
        Self::builder(url)?.connect().await
    }
}

macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$out, RedisStoreError>> + Send {
            self.0.$name($($arg),*)
        })*
    };
}

impl Store for RedisStore {
    type Error = RedisStoreError;

    delegate! {
        open(open: Open) -> Opened;
        withdraw(key: StreamKey, token: u128) -> ();
        append(appends: Vec<Append>) -> Vec<Appended>;
        close(close: Close) -> Closed;
        close_all(closes: Vec<Close>) -> Vec<Option<Closed>>;
        interrupt(interrupt: Interrupt) -> Interrupted;
        reopen(reopen: Reopen) -> Reopened;
        publish(publish: Publish) -> Published;
        read(read: Read) -> Option<Page>;
        info(key: StreamKey) -> Option<StreamInfo>;
        list(list: List) -> Listed;
        active_count() -> u64;
        delete(key: StreamKey) -> ();
        beat(beat: Beat) -> Beaten;
        due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
        stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
        hook_done(key: StreamKey) -> ();
        pointer(conversation: StreamKey) -> Option<Pointer>;
        point(point: Point) -> Pointed;
        unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>;
        give_way(conversation: StreamKey, streams: Vec<StreamId>) -> ();
        renew(renewals: Vec<Renew>) -> Vec<Renewed>;
        announce(key: StreamKey) -> ();
    }

    fn part(&self, key: &StreamKey) -> u64 {
        if self.0.cluster { self.0.fleet.part(self.0.keys.slot(&keys::name_of(key))) } else { 0 }
    }

    fn parts(&self) -> usize {
        self.0.fleet.parts()
    }

    fn tail(&self, key: &StreamKey) -> Tail {
        self.0.tails.tail(key)
    }

    fn is_followed(&self, key: &StreamKey) -> bool {
        self.0.tails.is_followed(&keys::name_of(key))
    }

    fn followed(&self) -> Option<Vec<StreamKey>> {
        Some(self.0.tails.followed())
    }

    fn notices(&self, node: &NodeId) -> Notices {
        self.0.tails.notices(node)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}
