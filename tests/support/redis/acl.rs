//! Redis users with as few rights as a production server would grant to the library.

use std::collections::HashMap;

use redis::Value;

use super::RedisServer;

/// Returns the `redis.conf` line for a user who may run only these commands, on keys and channels with one prefix.
///
/// The line fits [`Options::line`](super::Options::line). Without its first word, it holds the arguments of
/// `ACL SETUSER`. The password and the prefix must not contain spaces, and the prefix must not contain glob characters.
pub fn acl_user(name: &str, password: &str, commands: &[&str], prefix: &str) -> String {
    let allowed: String = commands.iter().map(|command| format!(" +{command}")).collect();
    format!("user {name} reset on >{password} ~{prefix}* &{prefix}* -@all{allowed}")
}

impl RedisServer {
    /// Returns the command, key or channel of each request that the server refused to a user, from `ACL LOG`.
    ///
    /// `CLIENT SETINFO` is left out. The `redis` crate sends it on each connection and ignores a refusal.
    pub fn denied(&self) -> Vec<String> {
        let log: Vec<HashMap<String, Value>> = self.ask(&["ACL", "LOG"]);
        let text = |entry: &HashMap<String, Value>, field: &str| match &entry[field] {
            Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{field}: {other:?}"),
        };
        let entries = log.iter().map(|entry| (text(entry, "reason"), text(entry, "object")));
        entries
            .filter(|entry| *entry != ("command".into(), "client|setinfo".into()))
            .map(|(_, object)| object)
            .collect()
    }
}
