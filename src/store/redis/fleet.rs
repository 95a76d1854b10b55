//! Which server has what: one for everything, or in a cluster the master of each slot.

#[cfg(feature = "redis-cluster")]
use std::sync::Arc;

use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};

#[cfg(feature = "redis-cluster")]
use super::masters::Masters;
use super::{error::RedisStoreError, link::Link, script::Script, source::field, value};

/// A command, and the slot of its keys.
pub(super) struct Request {
    #[cfg_attr(not(feature = "redis-cluster"), allow(dead_code, reason = "one server has all slots"))]
    pub(super) slot: u16,
    pub(super) command: Cmd,
    script: Option<&'static Script>,
    /// Whether it goes over the connection for bulk reads: see [`Fleet::look`].
    is_bulk: bool,
}

impl Request {
    pub(super) fn new(slot: u16, command: Cmd) -> Self {
        Self { slot, command, script: None, is_bulk: false }
    }

    pub(super) fn script(slot: u16, script: &'static Script, keys: &[&str]) -> Self {
        Self { slot, command: script.call(keys), script: Some(script), is_bulk: false }
    }

    pub(super) fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    /// Appends how many arguments another request has, and these: see each.lua.
    pub(super) fn with_all_of(self, one: &Self) -> Self {
        let counted = self.arg(one.command.args_iter().count());
        one.command.args_iter().fold(counted, |all, argument| match argument {
            redis::Arg::Simple(argument) => all.arg(argument),
            _ => all,
        })
    }

    /// The way that a flight of requests takes to a server: all of one flight were sent or looked for together.
    pub(super) async fn fly(&self, link: &Link, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        if self.is_bulk { link.look(commands).await } else { link.send(commands).await }
    }

    /// The same, to a server that does not know the script.
    pub(super) fn spell_out(&mut self) -> bool {
        let Some(script) = self.script.take() else { return false };
        self.command = script.spelled_out(&self.command);
        true
    }
}

pub(super) type Reply = Result<Value, RedisStoreError>;

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
    pub(super) async fn look(&self, mut requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
        for request in &mut requests {
            request.is_bulk = true;
        }
        self.send(requests).await
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

/// Whether a server has all keys, and takes writes. A server that turns into a replica later is another matter: its primary
/// is looked for.
async fn fits_alone(link: &Link) -> Result<(), RedisStoreError> {
    let mut info = Pipeline::with_capacity(2);
    info.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let replies = link.send(&info).await?;
    let mut told = String::new();
    for reply in replies {
        let part = redis::from_redis_value::<String>(server_error(link, reply)?);
        told += &part.map_err(|_| value::unexpected("INFO"))?;
    }
    // Valkey has another name for it.
    let mode = ["redis_mode", "server_mode"].map(|name| field(&told, name)).concat();
    let what = match (&*mode, field(&told, "role")) {
        ("cluster", _) => "a node of a cluster: its URL begins with redis+cluster:// (or rediss+cluster://)",
        ("sentinel", _) => "a Sentinel: its URL is redis+sentinel://host:port/name, with the name of the primary",
        (_, "slave" | "replica") => "a replica, which takes no writes: name its primary, or the Sentinels that know it",
        _ => return Ok(()),
    };
    Err(RedisStoreError::unfit(link.address(), what))
}

async fn send_to_one(link: &Link, mut requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
    let send = async |requests: &[Request], commands: &Pipeline| match requests.first() {
        Some(first) => first.fly(link, commands).await,
        None => Ok(Vec::new()),
    };
    let mut commands = Pipeline::with_capacity(requests.len());
    for request in &mut requests {
        // Only a script may have to be sent again.
        let command = if request.script.is_some() { request.command.clone() } else { request.command.take() };
        commands.add_command(command);
    }
    let replies = send(&requests, &commands).await?.into_iter();
    let mut replies: Vec<_> = replies.map(|reply| server_error(link, reply)).collect();
    let unknown: Vec<_> = (0..replies.len()).filter(|index| is(&replies[*index], ServerErrorKind::NoScript)).collect();
    // Each again, in order: what came after them has happened already, as it may where connections are shared.
    let mut again = Pipeline::with_capacity(unknown.len());
    for index in &unknown {
        requests[*index].spell_out();
        again.add_command(requests[*index].command.clone());
    }
    if !unknown.is_empty() {
        for (index, reply) in unknown.into_iter().zip(send(&requests, &again).await?) {
            replies[index] = server_error(link, reply);
        }
    }
    Ok(replies)
}

pub(super) fn server_error(link: &Link, reply: Value) -> Reply {
    match reply {
        Value::ServerError(error) => Err(RedisStoreError::redis(link.address(), RedisError::from(error))),
        reply => Ok(reply),
    }
}

fn is(reply: &Reply, kind: ServerErrorKind) -> bool {
    let error = reply.as_ref().err().and_then(RedisStoreError::as_redis);
    error.is_some_and(|error| error.kind() == redis::ErrorKind::Server(kind))
}
