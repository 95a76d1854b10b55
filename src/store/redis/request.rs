//! A command to a server, and its reply.

use redis::{Cmd, Pipeline, RedisError, Value};

use super::{error::RedisStoreError, link::Link, script::Script};

/// A command, with the slot of its keys.
pub(super) struct Request {
    #[cfg_attr(not(feature = "redis-cluster"), allow(dead_code, reason = "one server has all slots"))]
    pub(super) slot: u16,
    command: Cmd,
    script: Option<&'static Script>,
    way: Way,
}

/// How a request is sent.
#[derive(Clone, Copy)]
enum Way {
    /// Once.
    Once,
    /// Once more if the connection is closed meanwhile: it only reads.
    Read,
    /// In the same way, over the connection for bulk reads: see [`Fleet::send_bulk`].
    BulkRead,
}

impl Request {
    pub(super) fn new(slot: u16, command: Cmd) -> Self {
        Self { slot, command, script: None, way: Way::Once }
    }

    pub(super) fn script(slot: u16, script: &'static Script, keys: &[&str]) -> Self {
        Self { slot, command: script.call(keys), script: Some(script), way: Way::Once }
    }

    pub(super) fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    /// Appends the number of arguments of another request, and then those arguments: see each.lua.
    pub(super) fn with_all_of(self, one: &Self) -> Self {
        let counted = self.arg(one.command.args_iter().count());
        one.command.args_iter().fold(counted, |all, argument| match argument {
            redis::Arg::Simple(argument) => all.arg(argument),
            _ => all,
        })
    }

    /// Takes the command to send it. A call of a script is copied instead, since it may have to be sent again.
    pub(super) fn take_command(&mut self) -> Cmd {
        if self.script.is_some() { self.command.clone() } else { self.command.take() }
    }

    /// A copy of the command, for a request that may have to be sent again.
    pub(super) fn command(&self) -> Cmd {
        self.command.clone()
    }

    /// The same request, which only reads, to be sent again if the connection is closed meanwhile.
    pub(super) fn reading(self) -> Self {
        Self { way: Way::Read, ..self }
    }

    /// The same request, which only reads, to be sent over the connection for bulk reads.
    pub(super) fn in_bulk(self) -> Self {
        Self { way: Way::BulkRead, ..self }
    }

    /// Sends the commands of a flight in the way of this request, which is that of all requests of the flight.
    pub(super) async fn send_flight(&self, link: &Link, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        match self.way {
            Way::Once => link.send(commands).await,
            Way::Read => link.send_read(commands).await,
            Way::BulkRead => link.send_bulk(commands).await,
        }
    }

    /// Replaces the hash of the script by its text, for a server that does not know the script. Returns whether that changed
    /// anything.
    pub(super) fn spell_out(&mut self) -> bool {
        let Some(script) = self.script.take() else { return false };
        self.command = script.spelled_out(&self.command);
        true
    }
}

/// The reply to one request. A refusal by the server is an error.
pub(super) type Reply = Result<Value, RedisStoreError>;

/// Turns a refusal by the server into an error.
pub(super) fn server_error(link: &Link, reply: Value) -> Reply {
    match reply {
        Value::ServerError(error) => Err(RedisStoreError::redis(link.address(), RedisError::from(error))),
        reply => Ok(reply),
    }
}
