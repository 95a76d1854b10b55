//! Where the servers are, and how to reach them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

use tokio::time::Instant;

use super::{
    RedisStore, Shared,
    clock::Clock,
    error::RedisStoreError,
    fleet::Fleet,
    keys::Keys,
    link::{Link, Source, Watch},
    tails::{self, Tails},
};

/// For how long a slow server is tried again at first, and how often.
const FIRST_CONNECT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Sets up a [`RedisStore`].
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    servers: Servers,
    prefix: String,
}

enum Servers {
    One(Box<Client>),
    Sentinel {
        client: Box<SentinelClient>,
        name: String,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<Client>),
}

impl RedisStore {
    /// A store on the server or servers that a URL names:
    ///
    /// - `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS (feature `redis-tls`), `unix:///path`;
    /// - `redis+sentinel://[user:password@]host:port,host:port/name[/database]`: the primary that these Sentinels know by
    ///   this name. User and password are the primary's;
    /// - `redis+cluster://[user:password@]host:port,host:port`: a Cluster (feature `redis-cluster`), of which any nodes are
    ///   named;
    /// - `rediss+sentinel://…` and `rediss+cluster://…`: the same over TLS.
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
        let servers = match (plain, kind) {
            ("redis" | "rediss" | "unix" | "redis+unix", "") | ("redis", "unix") => {
                Servers::One(Box::new(open(url, url)?))
            }
            ("redis" | "rediss", "sentinel") => sentinel(url, plain, rest)?,
            ("redis" | "rediss", "cluster") => cluster(url, plain, rest)?,
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
        RedisStoreBuilder::new(Servers::Sentinel { client: Box::new(client), name: name.into() })
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
    /// [`RedisStoreError`] if no server answers within 6 s, it refuses the user, or is older than Redis 7.0; or if the
    /// prefix has braces, which have a meaning of their own in a cluster.
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
            Servers::Sentinel { client, name } => {
                let source = Source::Sentinel(Box::new(tokio::sync::Mutex::new(*client)));
                Fleet::One(Link::new(&name, source, watch))
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
            pulses: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
            background: super::cluster::Background::default(),
        });
        shared.time().await?;
        let tasks =
            [tokio::spawn(tails::listen(Arc::downgrade(&shared))), tokio::spawn(tails::watch(Arc::downgrade(&shared)))];
        crate::sync::lock(&shared.tasks).extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
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

fn info(url: &str, whole: &str) -> Result<ConnectionInfo, RedisStoreError> {
    url.into_connection_info().map_err(|error| RedisStoreError::unreadable(whole, error))
}

fn open(url: &str, whole: &str) -> Result<Client, RedisStoreError> {
    Client::open(info(url, whole)?).map_err(|error| RedisStoreError::unreadable(whole, error))
}

/// `[user:password@]host:port,host:port[/path]`, in its parts.
struct Hosts<'a> {
    /// With the `@`, or empty.
    login: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
}

impl<'a> Hosts<'a> {
    fn read(url: &str, rest: &'a str) -> Result<Self, RedisStoreError> {
        let at = rest.rfind('@').map_or(0, |at| at + 1);
        let (login, rest) = rest.split_at(at);
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(RedisStoreError::address(url, "must name hosts, as host:port, with commas between them"));
        }
        Ok(Self { login, hosts, path })
    }
}

fn sentinel(url: &str, scheme: &str, rest: &str) -> Result<Servers, RedisStoreError> {
    let Hosts { login, hosts, path } = Hosts::read(url, rest)?;
    let (name, database) = path.split_once('/').unwrap_or((path, "0"));
    if name.is_empty() {
        return Err(RedisStoreError::address(url, "must end in the name by which the Sentinels know the primary"));
    }
    // The library that reads addresses knows how to unquote a login.
    let primary = info(&format!("{scheme}://{login}primary/{database}"), url)?;
    let mut node = SentinelNodeConnectionInfo::default().set_redis_connection_info(primary.redis_settings().clone());
    if let ConnectionAddr::TcpTls { .. } = primary.addr() {
        node = node.set_tls_mode(redis::TlsMode::Secure);
    }
    let sentinels = hosts.iter().map(|host| info(&format!("{scheme}://{host}"), url)).collect::<Result<Vec<_>, _>>()?;
    #[allow(clippy::unnecessary_to_owned, reason = "what is taken depends on the library's features")]
    let client = SentinelClient::build(sentinels, name.to_owned(), Some(node), SentinelServerType::Master)
        .map_err(|error| RedisStoreError::unreadable(url, error))?;
    Ok(Servers::Sentinel { client: Box::new(client), name: name.to_owned() })
}

#[cfg(feature = "redis-cluster")]
fn cluster(url: &str, scheme: &str, rest: &str) -> Result<Servers, RedisStoreError> {
    let Hosts { login, hosts, path } = Hosts::read(url, rest)?;
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
        for url in
            ["redis://h", "redis://u:p%40@h:1/3", "redis+sentinel://u:p@h:1,i:2/main/2", "redis+sentinel://h:1/main"]
        {
            assert!(RedisStore::builder(url).is_ok(), "{url}");
        }
        assert_eq!(refused("localhost"), "`localhost` has no scheme");
        assert!(refused("http://h").contains("is not redis://"));
        assert!(refused("redis+sentinel://h:1").contains("must end in the name"));
        assert!(refused("redis+sentinel://h:1,/main").contains("must name hosts"));
        assert!(!refused("redis://u:secret@h:port").contains("secret"));
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
