//! The servers of a store: one for everything, or in a Cluster the master of each slot.

#[cfg(feature = "redis-cluster")]
use std::sync::Arc;

#[cfg(feature = "redis-cluster")]
use super::masters::Masters;
use super::{
    error::RedisStoreError,
    link::Link,
    request::{Reply, Request},
    single::{fits_alone, send_to_one},
    value,
};

/// The servers.
pub(super) enum Fleet {
    One(Link),
    #[cfg(feature = "redis-cluster")]
    Cluster(Arc<Masters>),
}

impl Fleet {
    /// Sends commands, each to the server of its slot, those of one server in order. One reply each, in order.
    ///
    /// # Errors
    ///
    /// If no server could be asked at all. Otherwise each reply says whether its command worked.
    pub(super) async fn send(&self, requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::One(link) => send_to_one(link, requests).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.send(requests).await,
        }
    }

    /// Sends commands that only read, and may read much, such as pages of logs and lists.
    ///
    /// They go over a second connection to each server, so that acknowledgements of writes do not queue behind megabytes. The
    /// two connections are not ordered: a write that a read depends on must have been acknowledged before the read is sent. If the
    /// connection closes meanwhile, the read is sent again.
    ///
    /// # Errors
    ///
    /// The same as those of [`send`](Self::send).
    pub(super) async fn send_bulk(&self, requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
        self.send(requests.into_iter().map(Request::in_bulk).collect()).await
    }

    /// Sends one command that only reads, as [`send_bulk`](Self::send_bulk) does.
    pub(super) async fn ask_bulk(&self, request: Request) -> Reply {
        let reply = self.send_bulk(vec![request]).await?.pop();
        reply.unwrap_or_else(|| Err(value::unexpected("a command")))
    }

    /// Sends one command.
    pub(super) async fn ask(&self, request: Request) -> Reply {
        let reply = self.send(vec![request]).await?.pop();
        reply.unwrap_or_else(|| Err(value::unexpected("a command")))
    }

    /// Any server, for requests that all of them answer alike.
    pub(super) fn any(&self) -> Result<Link, RedisStoreError> {
        match self {
            Self::One(link) => Ok(link.clone()),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.any(),
        }
    }

    /// The server of a slot, as a number: see [`Store::part`](crate::store::Store::part).
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables, reason = "one server has all slots"))]
    pub(super) fn part(&self, slot: u16) -> u64 {
        match self {
            Self::One(_) => 0,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.part(slot),
        }
    }

    /// How many servers there are.
    pub(super) fn parts(&self) -> usize {
        match self {
            Self::One(_) => 1,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.parts(),
        }
    }

    /// Whether this link is to a server that commands are sent to.
    pub(super) fn uses(&self, link: &Link) -> bool {
        match self {
            Self::One(held) => held.is(link),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.uses(link),
        }
    }

    /// The run ids of the servers. The text changes when any server restarts or is replaced.
    pub(super) fn run(&self) -> String {
        match self {
            Self::One(link) => link.run().to_string(),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.runs(),
        }
    }

    /// Connects to every server that is not connected, so that the run id of each is known.
    ///
    /// # Errors
    ///
    /// If any of them cannot be reached.
    pub(super) async fn reach(&self) -> Result<(), RedisStoreError> {
        match self {
            Self::One(link) => link.connect().await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.reach().await,
        }
    }

    /// Connects for the first time.
    ///
    /// # Errors
    ///
    /// If no server can be reached, or the servers are not of the kind that the URL says.
    pub(super) async fn connect(&self) -> Result<(), RedisStoreError> {
        match self {
            Self::One(link) => {
                link.connect().await?;
                fits_alone(link).await
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.refresh().await.map_err(|error| match error.names_no_cluster() {
                Some(address) => RedisStoreError::unfit(address, NO_CLUSTER),
                None => error,
            }),
        }
    }
}

#[cfg(feature = "redis-cluster")]
const NO_CLUSTER: &str = "no node of a cluster: its URL begins with redis:// (or rediss://)";
