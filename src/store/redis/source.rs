//! Where connections come from: a client, or the primary that Sentinels name.

use std::{convert::Infallible, sync::Arc, time::Duration};

use redis::{AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, RedisError, aio::MultiplexedConnection};

use super::{error::RedisStoreError, sentinels::Sentinels};

/// How long making a connection may take, with the commands that set it up.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the library waits for a reply. Callers wait less.
const RESPONSE: Duration = Duration::from_secs(5);
/// How many requests may wait to be written.
const QUEUE: usize = 1024;
/// The oldest major version that knows scripts with flags and `EXPIRE` with conditions.
const OLDEST: u32 = 7;

/// Where connections come from.
pub(super) enum Source {
    Client(Box<Client>),
    Sentinel(Box<Sentinels>),
}

/// A new connection.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    /// The run id of its server, which changes with each start.
    pub(super) run: Arc<str>,
}

impl Source {
    /// Makes a connection, and checks the version of the server. `push` gets the messages of subscriptions, and notice when the
    /// connection is closed, even if no request is under way.
    pub(super) async fn connect(
        &self,
        address: &Arc<str>,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connected, RedisStoreError> {
        let push = move |info| {
            push(info);
            Ok::<_, Infallible>(())
        };
        let connecting = tokio::time::timeout(CONNECT, self.establish(address, config().set_push_sender(push)));
        connecting.await.unwrap_or_else(|_| Err(RedisStoreError::slow(address)))
    }

    async fn establish(&self, address: &Arc<str>, config: AsyncConnectionConfig) -> Result<Connected, RedisStoreError> {
        let failed = |error| RedisStoreError::redis(address, error);
        let client = prepared(&self.client().await?).map_err(failed)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(failed)?;
        let version = field(&info, "redis_version");
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < OLDEST {
            return Err(RedisStoreError::too_old(address, version));
        }
        Ok(Connected { connection, run: field(&info, "run_id").into() })
    }

    async fn client(&self) -> Result<Client, RedisStoreError> {
        match self {
            Self::Client(client) => Ok(Client::clone(client)),
            Self::Sentinel(sentinels) => sentinels.primary().await,
        }
    }
}

/// A field of a reply to `INFO`, or an empty text.
pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).unwrap_or_default()
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_pipeline_buffer_size(QUEUE)
}

/// The client with settings that the library leaves out: `TCP_NODELAY`; RESP3, without which the library does not report a
/// closed connection; and on Linux a limit for bytes that the peer does not acknowledge.
fn prepared(client: &Client) -> Result<Client, RedisError> {
    let info = client.get_connection_info().clone();
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(RESPONSE);
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
}
