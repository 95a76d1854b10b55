//! The user that a production server would give the library.

use std::collections::HashMap;

use redis::Value;

use super::RedisServer;

/// A user who may run exactly these commands, on keys and channels of one prefix.
///
/// The line is one of `redis.conf`, for [`Options::line`](super::Options::line); without its first word it is the
/// words of `ACL SETUSER`. Neither password nor prefix may have spaces, the prefix no glob characters.
pub fn acl_user(name: &str, password: &str, commands: &[&str], prefix: &str) -> String {
    let allowed: String = commands.iter().map(|command| format!(" +{command}")).collect();
    format!("user {name} reset on >{password} ~{prefix}* &{prefix}* -@all{allowed}")
}

impl RedisServer {
    /// What users were refused: the command, key or channel of each entry of the server's log.
    ///
    /// The client library introduces itself with `CLIENT SETINFO`, whatever comes of it. Redis 7.0 does not know that, newer
    /// servers refuse and log it.
    pub fn denied(&self) -> Vec<String> {
        let log: Vec<HashMap<String, Value>> = self.ask(&["ACL", "LOG"]);
        let told = |entry: &HashMap<String, Value>, field: &str| match &entry[field] {
            Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{field}: {other:?}"),
        };
        let entries = log.iter().map(|entry| (told(entry, "reason"), told(entry, "object")));
        entries
            .filter(|entry| *entry != ("command".into(), "client|setinfo".into()))
            .map(|(_, object)| object)
            .collect()
    }
}
