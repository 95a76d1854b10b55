//! The error of the Redis store.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use redis::RedisError;

/// The error when a [`RedisStore`](super::RedisStore) cannot be set up, or when a request to it fails.
#[derive(Clone, Debug)]
pub struct RedisStoreError(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// The address cannot be read.
    Address {
        url: String,
        rule: Cow<'static, str>,
        source: Option<Arc<RedisError>>,
    },
    Setting {
        setting: &'static str,
        rule: &'static str,
    },
    TooOld {
        address: String,
        version: String,
    },
    /// The store cannot work on this kind of server.
    Unfit {
        address: Arc<str>,
        what: &'static str,
    },
    Redis {
        address: Arc<str>,
        source: Arc<RedisError>,
    },
    /// The Sentinels refused the login to them, so the primary was not asked.
    Sentinels {
        name: Arc<str>,
        source: Arc<RedisError>,
    },
    /// The server did not answer in time while a connection was being made.
    Slow {
        address: Arc<str>,
    },
    /// The reply to a command has an unexpected form.
    Unexpected {
        what: &'static str,
    },
    /// No master is known for a slot.
    #[cfg(feature = "redis-cluster")]
    Uncovered {
        slot: u16,
    },
}

impl RedisStoreError {
    pub(super) fn address(url: &str, rule: impl Into<Cow<'static, str>>) -> Self {
        Self(Kind::Address { url: without_password(url), rule: rule.into(), source: None })
    }

    pub(super) fn unreadable(url: &str, source: RedisError) -> Self {
        let rule = "is no address of a Redis server".into();
        Self(Kind::Address { url: without_password(url), rule, source: Some(Arc::new(source)) })
    }

    pub(super) fn setting(setting: &'static str, rule: &'static str) -> Self {
        Self(Kind::Setting { setting, rule })
    }

    pub(super) fn too_old(address: &str, version: &str) -> Self {
        Self(Kind::TooOld { address: address.to_owned(), version: version.to_owned() })
    }

    /// `what` names the kind of server and says what to do. It completes "the server at … is".
    pub(super) fn unfit(address: &Arc<str>, what: &'static str) -> Self {
        Self(Kind::Unfit { address: Arc::clone(address), what })
    }

    pub(super) fn redis(address: &Arc<str>, source: RedisError) -> Self {
        Self(Kind::Redis { address: Arc::clone(address), source: Arc::new(source) })
    }

    pub(super) fn refused_by_sentinels(name: &Arc<str>, source: RedisError) -> Self {
        Self(Kind::Sentinels { name: Arc::clone(name), source: Arc::new(source) })
    }

    pub(super) fn slow(address: &Arc<str>) -> Self {
        Self(Kind::Slow { address: Arc::clone(address) })
    }

    pub(super) fn unexpected(what: &'static str) -> Self {
        Self(Kind::Unexpected { what })
    }

    #[cfg(feature = "redis-cluster")]
    pub(super) fn uncovered(slot: u16) -> Self {
        Self(Kind::Uncovered { slot })
    }

    pub(super) fn as_redis(&self) -> Option<&RedisError> {
        match &self.0 {
            Kind::Redis { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Returns the address of the server if it answered that it is not a node of a cluster.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn names_no_cluster(&self) -> Option<&Arc<str>> {
        let Kind::Redis { address, source } = &self.0 else { return None };
        source.detail().is_some_and(|text| text.contains("cluster support disabled")).then_some(address)
    }

    /// Whether the error concerns one key, not the server.
    pub(super) fn is_of_one_key(&self) -> bool {
        self.code() == Some("WRONGTYPE")
    }

    /// Whether the connection was closed or lost. The server may or may not have executed the commands on it.
    pub(super) fn is_of_the_connection(&self) -> bool {
        self.as_redis().is_some_and(|error| error.kind() == redis::ErrorKind::Io && !error.is_timeout())
    }

    /// Whether the server did not answer in time.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.0, Kind::Slow { .. }) || self.as_redis().is_some_and(RedisError::is_timeout)
    }

    /// Returns the error code that the server sent, such as `WRONGTYPE` or `OOM`, or `None` if the error is not the
    /// server's.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.as_redis().and_then(RedisError::code)
    }
}

impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Address { url, rule, .. } => write!(f, "`{url}` {rule}"),
            Kind::Setting { setting, rule } => write!(f, "`{setting}` {rule}"),
            Kind::TooOld { address, version } => {
                write!(f, "the server at {address} is Redis {version}; 7.0 or later is needed, or Valkey")
            }
            Kind::Unfit { address, what } => write!(f, "the server at {address} is {what}"),
            Kind::Redis { address, source } => write!(f, "Redis at {address}: {source}"),
            Kind::Sentinels { name, source } => write!(f, "the Sentinels of `{name}` refused the login: {source}"),
            Kind::Slow { address } => write!(f, "Redis at {address} did not answer in time"),
            Kind::Unexpected { what } => write!(f, "Redis answered `{what}` with something else than expected"),
            #[cfg(feature = "redis-cluster")]
            Kind::Uncovered { slot } => write!(f, "no master of the cluster is known for slot {slot}"),
        }
    }
}

impl Error for RedisStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Address { source, .. } => source.as_deref().map(|source| source as _),
            Kind::Redis { source, .. } | Kind::Sentinels { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

/// Removes the login from an address, since a password must not appear in a log.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(_, rest)| (&url[..url.len() - rest.len()], rest));
    // Some addresses carry the password in the query, so the query goes too.
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password holds an unescaped `?` or `@`, so its end cannot be found. Show nothing after the scheme.
    if query.contains('@') {
        return format!("{scheme}…");
    }
    match hosts.rsplit_once('@') {
        Some((_, hosts)) => format!("{scheme}…@{hosts}"),
        None => format!("{scheme}{hosts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_shows_a_password() {
        let error = RedisStoreError::address("redis://ada:secret@host:1/x", "is odd");
        assert_eq!(error.to_string(), "`redis://…@host:1/x` is odd");
        assert_eq!(without_password("redis://host"), "redis://host");
        assert_eq!(without_password("ada:secret@host:6379"), "…@host:6379");
        assert_eq!(without_password("redis://:sec?ret@host/1"), "redis://…");
        assert_eq!(without_password("redis+sentinel://h/main?sentinel_password=s@cret"), "redis+sentinel://…");
        assert_eq!(without_password("unix:///run/redis.sock?pass=secret"), "unix:///run/redis.sock");
    }
}
