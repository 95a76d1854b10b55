//! Connecting a store, and beginning its tasks.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    background::Background,
    builder::{RedisStoreBuilder, Servers},
    clock::Clock,
    error::RedisStoreError,
    fleet::Fleet,
    keys::Keys,
    leases::Leases,
    link::{Link, Watch},
    page::Densities,
    shared::{RedisStore, Shared},
    source::Source,
    tails::{self, Tails},
};

/// For how long, and how often, the first connection to a slow server is tried.
const FIRST_CONNECT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long the listening connection is waited for.
const FIRST_LISTENING: Duration = Duration::from_secs(1);

impl RedisStoreBuilder {
    /// Connects, and checks that the servers are suitable.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError`] if no server answers within 6 s, it refuses the user, or is older than Redis 7.0; if it is of
    /// another kind than the URL says (a node of a cluster, a Sentinel, no node of a cluster) or a replica; or if the prefix
    /// has braces, which have a meaning of their own in a cluster.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing is left behind.
    pub async fn connect(self) -> Result<RedisStore, RedisStoreError> {
        #[cfg(feature = "redis-tls")]
        choose_cryptography();
        if self.prefix.contains(['{', '}']) {
            return Err(RedisStoreError::setting("key_prefix", "must have no braces"));
        }
        #[cfg(feature = "redis-cluster")]
        let is_cluster = matches!(self.servers, Servers::Cluster(_));
        #[cfg(not(feature = "redis-cluster"))]
        let is_cluster = false;
        let keys = Keys::new(&self.prefix, is_cluster);
        let tails = Arc::new(Tails::new(keys.clone()));
        let watch: Weak<dyn Watch> = {
            let tails: Arc<dyn Watch> = tails.clone();
            Arc::downgrade(&tails)
        };
        let fleet = match self.servers {
            Servers::One(client) => {
                let address = client.get_connection_info().addr().to_string();
                Fleet::One(Link::new(&address, Source::Client(client), watch))
            }
            Servers::Sentinel(sentinels) => {
                let name = Arc::clone(sentinels.name());
                Fleet::One(Link::new(&name, Source::Sentinel(sentinels), watch))
            }
            #[cfg(feature = "redis-cluster")]
            Servers::Cluster(clients) => {
                let cluster = super::masters::Masters::new(clients, watch);
                Fleet::Cluster(Arc::new(cluster.ok_or(RedisStoreError::uncovered(0))?))
            }
        };
        connect(&fleet).await?;
        let shared = Arc::new(Shared {
            keys,
            cluster: is_cluster,
            fleet: Arc::new(fleet),
            clock: Clock::default(),
            tails,
            positions: Mutex::default(),
            densities: Densities::default(),
            pulses: tokio::sync::Mutex::default(),
            leases: Leases::default(),
            tasks: Mutex::default(),
            background: Background::default(),
        });
        shared.time().await?;
        let (tried, listening) = tokio::sync::oneshot::channel();
        let tasks = [
            tokio::spawn(tails::listen(Arc::downgrade(&shared), tried)),
            tokio::spawn(tails::announce_all(Arc::downgrade(&shared))),
            tokio::spawn(tails::watch(Arc::downgrade(&shared))),
        ];
        crate::runtime::sync::lock(&shared.tasks).extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
        // Waiting here spares the first follower the wait. If it takes longer, the store works without it for now.
        let _ = tokio::time::timeout(FIRST_LISTENING, listening).await;
        Ok(RedisStore(shared))
    }
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

/// Connects. A server or Sentinels that do not answer at once get some more time.
async fn connect(fleet: &Fleet) -> Result<(), RedisStoreError> {
    let give_up = Instant::now() + FIRST_CONNECT;
    loop {
        match fleet.connect().await {
            Err(error) if error.is_slow() && Instant::now() < give_up => tokio::time::sleep(FIRST_PAUSE).await,
            connected => return connected,
        }
    }
}

/// Installs a default cryptography provider for rustls, if the host has not: without one rustls may panic.
#[cfg(feature = "redis-tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread has just installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
