//! What all clones of a store share.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::AbortHandle;

use super::{
    background::Background, beat::Pulses, clock::Clock, fleet::Fleet, keys::Keys, leases::Leases, logs::Positions,
    page::Densities, request::Request, tails::Tails,
};
use crate::runtime::sync::lock;

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
pub struct RedisStore(pub(super) Arc<Shared>);

/// What all clones share.
pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) cluster: bool,
    pub(super) fleet: Arc<Fleet>,
    pub(super) clock: Clock,
    pub(super) tails: Arc<Tails>,
    pub(super) positions: Mutex<Positions>,
    pub(super) densities: Densities,
    pub(super) pulses: tokio::sync::Mutex<Pulses>,
    pub(super) leases: Leases,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
    pub(super) background: Background,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

impl Shared {
    /// Sends what may be lost.
    pub(super) async fn tell(&self, requests: Vec<Request>) {
        if !requests.is_empty() {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.fleet.send(requests)).await;
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}
