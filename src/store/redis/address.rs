//! Reads URLs that name several hosts or have parameters.

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::error::RedisStoreError;
use crate::model::percent;

/// The parts of `[user:password@]host:port,host:port[/path]`.
pub(super) struct Hosts<'a> {
    /// The user and password up to and including the `@`; empty if there is none.
    pub(super) login: &'a str,
    pub(super) hosts: Vec<&'a str>,
    pub(super) path: &'a str,
}

impl<'a> Hosts<'a> {
    pub(super) fn read(url: &str, rest: &'a str) -> Result<Self, RedisStoreError> {
        let at = rest.rfind('@').map_or(0, |at| at + 1);
        let (login, rest) = rest.split_at(at);
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(RedisStoreError::address(url, "must name hosts, as host:port, with commas between them"));
        }
        Ok(Self { login, hosts, path })
    }
}

/// The parameters of a URL, percent-decoded. A `+` is a plus sign, not a space.
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Reads the part of the URL after the `?`. Each parameter must be one of `known`, have a value, and appear once.
    pub(super) fn read(url: &str, query: Option<&str>, known: &[&'static str]) -> Result<Self, RedisStoreError> {
        let refused = |rule: String| Err(RedisStoreError::address(url, rule));
        let mut read = Self(Vec::new());
        let Some(query) = query else { return Ok(read) };
        // An unescaped `?` in a password would cut the URL there, and an error would show the rest of the password as a
        // parameter's name.
        if query.contains('@') {
            return refused("must have `@` and `?` within a name or password as `%40` and `%3F`".to_owned());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(&name) = known.iter().find(|known| **known == name) else {
                return refused(format!("has a parameter `{name}`, {}", expected(known)));
            };
            if read.get(name).is_some() {
                return refused(format!("has the parameter `{name}` twice"));
            }
            match percent::decoded(value) {
                Ok(value) if !value.is_empty() => read.0.push((name, value.into_owned())),
                Ok(_) => return refused(format!("has a parameter `{name}` without a value")),
                Err(_) => return refused(format!("has a parameter `{name}` that is not percent-encoded UTF-8")),
            }
        }
        Ok(read)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

fn expected(known: &[&str]) -> String {
    if known.is_empty() {
        return "and such a URL has none".to_owned();
    }
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("which is none of {}", known.join(", "))
}

/// Reads the address of one server. `whole` is the complete URL, for the error.
pub(super) fn connection_info(url: &str, whole: &str) -> Result<ConnectionInfo, RedisStoreError> {
    url.into_connection_info().map_err(|error| RedisStoreError::unreadable(whole, error))
}
