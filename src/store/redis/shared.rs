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
/// The events are in the memory of the primary, and survive the failure of any node of the service. A crash of Redis may lose
/// what was not written to disk (with `appendfsync everysec` about the last second); a failover may lose what was not
/// replicated. Clients are told of such losses by a gap. To lose less, set `appendonly yes`, and `min-replicas-to-write 1`
/// with a short `min-replicas-max-lag`: then a primary without replicas refuses events that a failover would lose.
///
/// # What the server needs
///
/// - `maxmemory-policy noeviction`: an evicted log would be a gap.
/// - About 4 KiB of memory for each stream with few events, since a server allocates the first node of a log at once. With
///   `stream-node-max-bytes 1024` it is 1.3 KiB.
/// - For an ACL user, no more than `~sse:*` and `&sse:*` (the key prefix) and the commands in
///   [`ACL_COMMANDS`](Self::ACL_COMMANDS).
/// - In a cluster, clocks of its nodes that agree within a second, as NTP keeps them.
///
/// What managed services forbid, and which of their modes fit, is in [`docs::managed_redis`](crate::docs::managed_redis).
///
/// All keys under the prefix belong to the library. If a key of another type is in the place of a log, it is removed.
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
    /// Sends requests whose loss does no harm. Errors are dropped, and it waits for at most a second.
    pub(super) async fn send_best_effort(&self, requests: Vec<Request>) {
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
