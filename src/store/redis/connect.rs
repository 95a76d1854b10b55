//! Where the servers are, and how to reach them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{Client, ConnectionInfo, IntoConnectionInfo as _};
use tokio::time::Instant;

use super::{
    RedisStore, Shared,
    address::Parameters,
    clock::Clock,
    error::RedisStoreError,
    fleet::Fleet,
    keys::Keys,
    link::{Link, Source, Watch},
    sentinels::{self, Sentinels},
    tails::{self, Tails},
};

/// For how long a slow server is tried again at first, and how often.
const FIRST_CONNECT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long the listening connection is waited for.
const FIRST_LISTENING: Duration = Duration::from_secs(1);

/// Sets up a [`RedisStore`].
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    servers: Servers,
    prefix: String,
}

enum Servers {
    One(Box<Client>),
    Sentinel(Box<Sentinels>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<Client>),
}

impl RedisStore {
    /// A store on the server or servers that a URL names:
    ///
    /// - `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS (feature `redis-tls`), `unix:///path`;
    /// - `redis+sentinel://[user:password@]host[:port],host[:port]/name[/database][?parameters]`: the primary that these
    ///   Sentinels know by this name. User and password are the primary's; the Sentinels' own are parameters:
    ///   `sentinel_username=…`, `sentinel_password=…`;
    /// - `redis+cluster://[user:password@]host:port,host:port`: a Cluster (feature `redis-cluster`), of which any nodes are
    ///   named;
    /// - `rediss+sentinel://…` and `rediss+cluster://…`: the same over TLS. Where only one side behind Sentinels has it, the
    ///   parameter `sentinel_tls=true` or `sentinel_tls=false` says so for the Sentinels, and the scheme for the primary.
    ///
    /// Names and passwords are percent-encoded (`@` is `%40`, `?` is `%3F`, `&` is `%26`). Ports default to 6379, those of
    /// Sentinels to 26379. A parameter that is not named here is refused.
    ///
    /// ```
    /// # use resilient_sse::RedisStore;
    /// // The primary has one login, the Sentinels another, and only the primary has TLS.
    /// let url = "rediss+sentinel://app:secret@s1,s2,s3/main?sentinel_password=other&sentinel_tls=false";
    /// # #[cfg(feature = "redis-tls")]
    /// let builder = RedisStore::builder(url)?;
    /// # Ok::<_, resilient_sse::RedisStoreError>(())
    /// ```
    ///
    /// The Sentinels' user needs `+role +sentinel|masters`, the primary's what [`ACL_COMMANDS`](Self::ACL_COMMANDS) lists.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError`] with a sentence that says what cannot be read.
    pub fn builder(url: &str) -> Result<RedisStoreBuilder, RedisStoreError> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| RedisStoreError::address(url, "has no scheme"))?;
        let (plain, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        if plain == "rediss" && !cfg!(feature = "redis-tls") {
            return Err(RedisStoreError::address(url, "needs the feature `redis-tls`, which is not built in"));
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let parameters = |known| Parameters::read(url, query, known);
        let servers = match (plain, kind) {
            ("redis" | "rediss", "") => {
                parameters(&[])?;
                Servers::One(Box::new(open(url, url)?))
            }
            ("unix", "") | ("redis", "unix") => {
                parameters(&["user", "pass", "db"])?;
                Servers::One(Box::new(open(url, url)?))
            }
            ("redis" | "rediss", "sentinel") => {
                let parameters = parameters(sentinels::PARAMETERS)?;
                Servers::Sentinel(Box::new(Sentinels::of_url(url, plain, rest, &parameters)?))
            }
            ("redis" | "rediss", "cluster") => {
                parameters(&[])?;
                cluster(url, plain, rest)?
            }
            _ => {
                let rule = "is not redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://";
                return Err(RedisStoreError::address(url, rule));
            }
        };
        Ok(RedisStoreBuilder::new(servers))
    }

    /// A store on the server of the host's own client: with certificates, a user, a database of its choosing.
    ///
    /// The library makes its own connections from it: the newer protocol (RESP3) and `TCP_NODELAY` are set.
    pub fn from_client(client: redis::Client) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Servers::One(Box::new(client)))
    }

    /// The same for a primary that Sentinels look after; the client must be one for the primary
    /// (`SentinelServerType::Master`). `name` is what errors call it.
    pub fn from_sentinel_client(client: redis::sentinel::SentinelClient, name: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Servers::Sentinel(Box::new(Sentinels::new(&name.into(), client))))
    }

    /// The same for a Cluster: clients for some of its nodes. The others are reached like the first.
    ///
    /// # Errors
    ///
    /// If there is none.
    #[cfg(feature = "redis-cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-cluster")))]
    pub fn from_cluster_clients(
        clients: impl IntoIterator<Item = redis::Client>,
    ) -> Result<RedisStoreBuilder, RedisStoreError> {
        let clients: Vec<_> = clients.into_iter().collect();
        if clients.is_empty() {
            return Err(RedisStoreError::setting("clients", "must name a node of the cluster"));
        }
        Ok(RedisStoreBuilder::new(Servers::Cluster(clients)))
    }
}

impl RedisStoreBuilder {
    fn new(servers: Servers) -> Self {
        Self { servers, prefix: "sse:".to_owned() }
    }

    /// What every key and channel begins with. Default: `sse:`. Services that share a server need prefixes of their own.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connects, and looks whether the servers are fit.
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
        let watch: std::sync::Weak<dyn Watch> = {
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
            densities: super::page::Densities::default(),
            pulses: tokio::sync::Mutex::default(),
            leases: super::leases::Leases::default(),
            tasks: Mutex::default(),
            background: super::cluster::Background::default(),
        });
        shared.time().await?;
        let (tried, listening) = tokio::sync::oneshot::channel();
        let tasks = [
            tokio::spawn(tails::listen(Arc::downgrade(&shared), tried)),
            tokio::spawn(tails::tell(Arc::downgrade(&shared))),
            tokio::spawn(tails::watch(Arc::downgrade(&shared))),
        ];
        crate::runtime::sync::lock(&shared.tasks).extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
        // The first follower, or the first word to a node, must not wait for it. Without it the store works, if slower.
        let _ = tokio::time::timeout(FIRST_LISTENING, listening).await;
        Ok(RedisStore(shared))
    }
}

/// Connects; a server that is slow, or Sentinels that are, get some time.
async fn connect(fleet: &Fleet) -> Result<(), RedisStoreError> {
    let give_up = Instant::now() + FIRST_CONNECT;
    loop {
        match fleet.connect().await {
            Err(error) if error.is_slow() && Instant::now() < give_up => tokio::time::sleep(FIRST_PAUSE).await,
            connected => return connected,
        }
    }
}

impl std::fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Where the host has not chosen who does the cryptography, rustls may not be able to, and would panic.
#[cfg(feature = "redis-tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may choose at this very moment.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Reads the address of one server. `whole` is the URL that errors name.
pub(super) fn info(url: &str, whole: &str) -> Result<ConnectionInfo, RedisStoreError> {
    url.into_connection_info().map_err(|error| RedisStoreError::unreadable(whole, error))
}

fn open(url: &str, whole: &str) -> Result<Client, RedisStoreError> {
    Client::open(info(url, whole)?).map_err(|error| RedisStoreError::unreadable(whole, error))
}

#[cfg(feature = "redis-cluster")]
fn cluster(url: &str, scheme: &str, rest: &str) -> Result<Servers, RedisStoreError> {
    let super::address::Hosts { login, hosts, path } = super::address::Hosts::read(url, rest)?;
    if !path.is_empty() {
        return Err(RedisStoreError::address(url, "names a database, of which a cluster has but one"));
    }
    let clients = hosts.iter().map(|host| open(&format!("{scheme}://{login}{host}"), url));
    Ok(Servers::Cluster(clients.collect::<Result<_, _>>()?))
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(url: &str, _: &str, _: &str) -> Result<Servers, RedisStoreError> {
    Err(RedisStoreError::address(url, "needs the feature `redis-cluster`, which is not built in"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        RedisStore::builder(url).expect_err(url).to_string()
    }

    #[test]
    fn urls_are_read_or_refused_with_a_sentence() {
        for url in [
            "redis://h",
            "redis://u:p%40@h:1/3",
            "redis+sentinel://u:p@h:1,i:2/main/2",
            "redis+sentinel://h:1/main",
            "redis+sentinel://:p@h,[::1]:2/main/2?sentinel_username=u&sentinel_password=p%3F&sentinel_tls=false",
            "unix:///run/redis.sock?user=u&pass=p&db=1",
            "redis+unix:///run/redis.sock",
        ] {
            assert!(RedisStore::builder(url).is_ok(), "{url}");
        }
        assert_eq!(refused("localhost"), "`localhost` has no scheme");
        assert!(refused("http://h").contains("is not redis://"));
        assert!(refused("redis+sentinel://h:1").contains("must end in the name"));
        assert!(refused("redis+sentinel://h:1,/main").contains("must name hosts"));
    }

    #[test]
    fn a_parameter_that_is_not_known_is_named() {
        let told = "`redis://…@h` has a parameter `sentinel_tls`, and such a URL has none";
        assert_eq!(refused("redis://u:p@h?sentinel_tls=true"), told);
        assert!(refused("redis+cluster://h:1?x=1").contains("a parameter `x`"));
        assert!(
            refused("unix:///run/redis.sock?password=p").contains("`password`, which is none of `user`, `pass`, `db`")
        );
        assert!(refused("redis+sentinel://h:1/main?tls=true").contains("a parameter `tls`, which is none of"));
    }

    /// Also where signs in it are not encoded, so that it seems to end where it does not.
    #[test]
    fn no_password_is_told() {
        for url in [
            "redis://u:hunter2@h:port",
            "redis://u:x?hunter2@h",
            "redis://u:hunter2?x@h",
            "redis://u:hunter2/x@h:port",
            "redis://u:x@hunter2?x=1@h",
            "redis+sentinel://u:hunter2@h:1/main?sentinel_password=hunter2&x=y",
            "redis+sentinel://h:1/main?sentinel_password=x@hunter2",
            "redis+sentinel://u:hunter2@h:1/?sentinel_password=hunter2",
            "redis+sentinel://u:hunter2?x=1@h:1/main",
            "redis+cluster://u:x?hunter2=1@h:1",
            "unix:///run/redis.sock?pass=hunter2&x=1",
            "http://u:hunter2@h",
        ] {
            let error = RedisStore::builder(url).expect_err(url);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let told = format!("{error} {source:?} {error:?}");
            assert!(!told.contains("hunter2"), "{url}: {told}");
        }
    }

    #[cfg(feature = "redis-cluster")]
    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        assert!(RedisStore::builder("redis+cluster://u:p@h:1,i:2,[::1]:3").is_ok());
        assert!(refused("redis+cluster://h:1/2").contains("names a database"));
        assert!(RedisStore::from_cluster_clients([]).is_err());
    }

    #[cfg(not(feature = "redis-cluster"))]
    #[test]
    fn what_is_not_built_in_is_named() {
        assert!(refused("redis+cluster://h:1").contains("`redis-cluster`"));
    }
}
