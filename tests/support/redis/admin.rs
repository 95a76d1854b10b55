//! Commands that a test sends to a server directly.

use std::time::Duration;

use redis::{Client, Connection, FromRedisValue, IntoConnectionInfo as _, RedisResult, Value, cmd};

use super::RedisServer;

/// The time limit for each step of a command. A server that is not stopped answers much sooner.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The time to live of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ttl {
    Missing,
    Forever,
    Left(Duration),
}

impl RedisServer {
    /// Runs a command as the default user.
    pub fn command(&self, words: &[&str]) -> Value {
        self.ask(words)
    }

    /// Runs a command that may fail.
    pub fn try_command(&self, words: &[&str]) -> RedisResult<Value> {
        self.try_ask(words)
    }

    /// Runs a command and converts its reply to a Rust type.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?} on {}: {error}", self.address()))
    }

    /// Runs a command that may fail, and converts its reply to a Rust type.
    ///
    /// Each command opens a new connection, because an earlier one may have broken when the server was killed or stopped.
    pub fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let (name, arguments) = words.split_first().expect("a command");
        cmd(name).arg(arguments).query(&mut self.connect()?)
    }

    fn connect(&self) -> RedisResult<Connection> {
        let info = self.url().into_connection_info()?;
        // Skip `CLIENT SETINFO`: the `redis` crate would send it with a time limit other than `ANSWER_WITHIN`.
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let client = Client::open(info.set_redis_settings(settings))?;
        let connection = client.get_connection_with_timeout(ANSWER_WITHIN)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        connection.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(connection)
    }

    /// Returns a field of `INFO`, such as `role` or `master_link_status`.
    pub fn info(&self, field: &str) -> Option<String> {
        let info: String = self.try_ask(&["INFO", "everything"]).ok()?;
        info.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
    }

    pub fn dbsize(&self) -> usize {
        self.ask(&["DBSIZE"])
    }

    pub fn flushall(&self) {
        self.command(&["FLUSHALL"]);
    }

    /// Makes the server forget all scripts, as a restart would.
    pub fn script_flush(&self) {
        self.command(&["SCRIPT", "FLUSH", "SYNC"]);
    }

    /// Returns all keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, page): (String, Vec<String>) = self.ask(&["SCAN", &cursor, "COUNT", "1000"]);
            keys.extend(page);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // `SCAN` may return a key more than once.
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Returns a key's time to live, with a resolution of one millisecond.
    pub fn ttl(&self, key: &str) -> Ttl {
        match self.ask::<i64>(&["PTTL", key]) {
            -2 => Ttl::Missing,
            -1 => Ttl::Forever,
            left => Ttl::Left(Duration::from_millis(left.unsigned_abs())),
        }
    }

    /// Returns the keys without a TTL.
    pub fn keys_without_ttl(&self) -> Vec<String> {
        let mut keys = self.keys();
        keys.retain(|key| self.ttl(key) == Ttl::Forever);
        keys
    }
}
