//! Finds the primary by asking Sentinels.

use std::{borrow::Cow, sync::Arc};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, TlsMode, Value,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::{
    address::{Hosts, Parameters, connection_info},
    error::RedisStoreError,
};

/// The default port of a Sentinel.
const PORT: u16 = 26379;

/// The URL parameters for the connections to the Sentinels themselves.
const USERNAME: &str = "sentinel_username";
const PASSWORD: &str = "sentinel_password";
const TLS: &str = "sentinel_tls";
pub(super) const PARAMETERS: &[&str] = &[USERNAME, PASSWORD, TLS];

/// The Sentinels, and the name by which they know the primary.
pub(super) struct Sentinels {
    name: Arc<str>,
    client: Mutex<SentinelClient>,
}

impl Sentinels {
    pub(super) fn new(name: &str, client: SentinelClient) -> Self {
        Self { name: name.into(), client: Mutex::new(client) }
    }

    /// Reads the Sentinels from a URL. `scheme` is the scheme of the primary's address. `rest` is the part of the URL
    /// after the scheme and before the `?`.
    pub(super) fn of_url(
        url: &str,
        scheme: &str,
        rest: &str,
        parameters: &Parameters,
    ) -> Result<Self, RedisStoreError> {
        let Hosts { login, hosts, path } = Hosts::read(url, rest)?;
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        if name.is_empty() {
            return Err(RedisStoreError::address(url, "must end in the name by which the Sentinels know the primary"));
        }
        // The `redis` crate percent-decodes the login when it reads an address.
        let primary = connection_info(&format!("{scheme}://{login}primary/{database}"), url)?;
        let mut node =
            SentinelNodeConnectionInfo::default().set_redis_connection_info(primary.redis_settings().clone());
        if let ConnectionAddr::TcpTls { .. } = primary.addr() {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        let access = Access::read(url, scheme, parameters)?;
        let sentinels = hosts.iter().map(|host| access.to(url, host)).collect::<Result<Vec<_>, _>>()?;
        #[allow(clippy::unnecessary_to_owned, reason = "what is taken depends on the library's features")]
        let client = SentinelClient::build(sentinels, name.to_owned(), Some(node), SentinelServerType::Master)
            .map_err(|error| RedisStoreError::unreadable(url, error))?;
        Ok(Self::new(name, client))
    }

    /// Returns the name by which the Sentinels know the primary.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Asks the Sentinels for the primary, and returns a client for it.
    pub(super) async fn primary(&self) -> Result<Client, RedisStoreError> {
        let mut client = self.client.lock().await;
        let refused = match client.async_get_client().await {
            Err(error) if is_refusal(&error) => error,
            found => return found.map_err(|error| RedisStoreError::redis(&self.name, error)),
        };
        // `async_get_client` also asks the primary for its role, and its error does not tell whether the primary or a
        // Sentinel refused. So ask a Sentinel alone.
        Err(match ask(&mut client).await {
            Err(error) if is_refusal(&error) => RedisStoreError::refused_by_sentinels(&self.name, error),
            _ => RedisStoreError::redis(&self.name, refused),
        })
    }
}

/// Sends a Sentinel the same command as the `redis` crate.
async fn ask(client: &mut SentinelClient) -> Result<Value, RedisError> {
    let sentinel = client.async_get_sentinel_client().await?;
    let mut connection = sentinel.get_multiplexed_async_connection().await?;
    redis::cmd("SENTINEL").arg("MASTERS").query_async(&mut connection).await
}

/// Whether the server refused the login: it is missing or wrong, or its user may not run the command.
fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

/// The scheme and the login for the connections to the Sentinels.
struct Access<'a> {
    scheme: &'static str,
    username: Option<&'a str>,
    password: Option<&'a str>,
}

impl<'a> Access<'a> {
    fn read(url: &str, scheme: &str, parameters: &'a Parameters) -> Result<Self, RedisStoreError> {
        let refused = |rule: &'static str| Err(RedisStoreError::address(url, rule));
        let tls = match parameters.get(TLS) {
            None => scheme == "rediss",
            Some("true") => true,
            Some("false") => false,
            Some(_) => return refused("has a parameter `sentinel_tls` that is neither `true` nor `false`"),
        };
        if tls && !cfg!(feature = "redis-tls") {
            return refused("needs the feature `redis-tls`, which is not built in");
        }
        let (username, password) = (parameters.get(USERNAME), parameters.get(PASSWORD));
        if username.is_some() && password.is_none() {
            return refused("has a parameter `sentinel_username`, but no `sentinel_password`");
        }
        Ok(Self { scheme: if tls { "rediss" } else { "redis" }, username, password })
    }

    fn to(&self, url: &str, host: &str) -> Result<ConnectionInfo, RedisStoreError> {
        let info = connection_info(&format!("{}://{}", self.scheme, with_port(host)), url)?;
        let mut settings = info.redis_settings().clone();
        if let Some(username) = self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = self.password {
            settings = settings.set_password(password);
        }
        Ok(info.set_redis_settings(settings))
    }
}

/// Returns the host with its port, or with the default port of a Sentinel if it has none.
fn with_port(host: &str) -> Cow<'_, str> {
    // The colons of an IPv6 address are in brackets, so only a colon after the bracket starts a port.
    let name_end = host.rfind(']').unwrap_or(0);
    if host[name_end..].contains(':') { host.into() } else { format!("{host}:{PORT}").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str, host: &str) -> Result<ConnectionInfo, String> {
        let (scheme, rest) = url.split_once('?').map_or((url, None), |(scheme, query)| (scheme, Some(query)));
        let parameters = Parameters::read(url, rest, PARAMETERS).map_err(|error| error.to_string())?;
        let access = Access::read(url, scheme, &parameters).map_err(|error| error.to_string())?;
        access.to(url, host).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sentinels_login_is_their_own() {
        let info = access("redis?sentinel_username=a%3Ab&sentinel_password=p+%40%2f%26%C3%A4", "h:1").unwrap();
        assert_eq!(info.redis_settings().username(), Some("a:b"));
        assert_eq!(info.redis_settings().password(), Some("p+@/&ä"));
        let info = access("redis?sentinel_password=p", "h:1").unwrap();
        assert_eq!((info.redis_settings().username(), info.redis_settings().password()), (None, Some("p")));
        let info = access("redis", "h:1").unwrap();
        assert_eq!((info.redis_settings().username(), info.redis_settings().password()), (None, None));
    }

    #[test]
    fn a_sentinel_has_its_own_default_port() {
        for (host, address) in [
            ("h", "h:26379"),
            ("h:1", "h:1"),
            ("127.0.0.1", "127.0.0.1:26379"),
            ("[::1]", "::1:26379"),
            ("[::1]:2", "::1:2"),
        ] {
            assert_eq!(access("redis", host).unwrap().addr().to_string(), address, "{host}");
        }
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn either_side_has_tls_or_not() {
        let is_tls = |url| matches!(access(url, "h:1").unwrap().addr(), ConnectionAddr::TcpTls { insecure: false, .. });
        assert!(!is_tls("redis") && is_tls("rediss"));
        assert!(is_tls("redis?sentinel_tls=true") && !is_tls("rediss?sentinel_tls=false"));
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_that_is_not_built_in_is_named() {
        assert!(access("redis?sentinel_tls=true", "h:1").unwrap_err().contains("`redis-tls`"));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_no_password_is() {
        for (query, told) in [
            ("sentinel_pasword=hunter2", "has a parameter `sentinel_pasword`, which is none of `sentinel_username`, "),
            ("sentinel_tls=hunter2", "neither `true` nor `false`"),
            ("sentinel_password=", "`sentinel_password` without a value"),
            ("sentinel_password", "`sentinel_password` without a value"),
            ("sentinel_password=hunter2&sentinel_password=hunter2", "`sentinel_password` twice"),
            ("sentinel_password=hunter2%zz", "`sentinel_password` that is not percent-encoded"),
            ("sentinel_username=ada", "no `sentinel_password`"),
            ("sentinel_password=hunter2@x", "as `%40` and `%3F`"),
        ] {
            let error = access(&format!("redis?{query}"), "h:1").unwrap_err();
            assert!(error.contains(told) && !error.contains("hunter2"), "{query}: {error}");
        }
    }
}
