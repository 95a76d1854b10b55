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
    /// If no server could be asked at all. What became of a command otherwise is in its reply.
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

    /// The same for what only reads, and may read much: logs and lists.
    ///
    /// It goes over a second connection to each server, so that acknowledgements of what is written do not queue behind
    /// megabytes. Replies to what was sent before may come later than these: what a read depends on must have been
    /// acknowledged before. A read whose connection is closed meanwhile is sent once more.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Self::send).
    pub(super) async fn look(&self, requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
        self.send(requests.into_iter().map(Request::in_bulk).collect()).await
    }

    /// Looks for one thing: [`look`](Self::look).
    pub(super) async fn look_for(&self, request: Request) -> Reply {
        let reply = self.look(vec![request]).await?.pop();
        reply.unwrap_or_else(|| Err(value::unexpected("a command")))
    }

    /// Sends one command.
    pub(super) async fn ask(&self, request: Request) -> Reply {
        let reply = self.send(vec![request]).await?.pop();
        reply.unwrap_or_else(|| Err(value::unexpected("a command")))
    }

    /// Any server, for what is the same on all of them.
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

    /// Whether commands go over this link.
    pub(super) fn uses(&self, link: &Link) -> bool {
        match self {
            Self::One(held) => held.is(link),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.uses(link),
        }
    }

    /// The run of the servers: another one after any of them has started again, or was replaced.
    pub(super) fn run(&self) -> String {
        match self {
            Self::One(link) => link.run().to_string(),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.runs(),
        }
    }

    /// Sees to it that every server is connected to, so that the run of each is known.
    ///
    /// # Errors
    ///
    /// If one is not, and cannot be.
    pub(super) async fn reach(&self) -> Result<(), RedisStoreError> {
        match self {
            Self::One(link) => link.connect().await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.reach().await,
        }
    }

    /// Connects; returns once it is known whether that worked.
    ///
    /// # Errors
    ///
    /// Also if the servers are not of the kind that they are taken for.
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
