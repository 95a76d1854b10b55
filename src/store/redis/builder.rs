//! Setting up a store: which servers, under which prefix.

use redis::Client;

use super::{
    address::{Parameters, connection_info},
    error::RedisStoreError,
    sentinels::{self, Sentinels},
    shared::RedisStore,
};

/// Sets up a [`RedisStore`].
#[must_use = "a builder does nothing until it connects"]
pub struct RedisStoreBuilder {
    pub(super) servers: Servers,
    pub(super) prefix: String,
}

pub(super) enum Servers {
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

    /// A store on the server of the host's own client, which may have certificates, a user or another database.
    ///
    /// The library makes its own connections from the client, with RESP3 and `TCP_NODELAY`.
    pub fn from_client(client: redis::Client) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Servers::One(Box::new(client)))
    }

    /// The same for a primary behind Sentinels. The client must be one for the primary (`SentinelServerType::Master`). `name` is
    /// its name in errors.
    pub fn from_sentinel_client(client: redis::sentinel::SentinelClient, name: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(Servers::Sentinel(Box::new(Sentinels::new(&name.into(), client))))
    }

    /// The same for a Cluster, with clients for some of its nodes. The other nodes are reached with the settings of the first.
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

    /// The prefix of every key and channel. Default: `sse:`. Services that share a server need different prefixes.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }
}

impl std::fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn open(url: &str, whole: &str) -> Result<Client, RedisStoreError> {
    Client::open(connection_info(url, whole)?).map_err(|error| RedisStoreError::unreadable(whole, error))
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
