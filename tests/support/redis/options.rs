//! The configuration of a server.

use std::fmt::Write as _;

use super::{Tls, folder::Folder, port::Port};

/// The configuration of a server: lines of `redis.conf`, a password, TLS.
///
/// By default the server persists nothing, so it is empty after a restart, and replication starts at once.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Options {
    lines: Vec<String>,
    pub(super) password: Option<String>,
    pub(super) tls: Option<Tls>,
    pub(super) role: Role,
}

/// The kind of a server process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Role {
    #[default]
    Server,
    ClusterNode,
    Sentinel,
}

impl Options {
    /// Makes the server sync an append-only file before each reply, so that acknowledged writes survive a `SIGKILL`.
    pub fn durable() -> Self {
        Self::default().line("appendonly yes").line("appendfsync always")
    }

    /// Limits the server's memory, to `8mb` for example. The server refuses writes beyond the limit and evicts no key.
    pub fn bounded(memory: &str) -> Self {
        Self::default().line(&format!("maxmemory {memory}")).line("maxmemory-policy noeviction")
    }

    /// Adds a line of `redis.conf`, such as one from [`acl_user`](super::acl_user). If two lines set the same option,
    /// the last one wins.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Sets the password of the default user. Replicas, Sentinels and the helpers of this module use it too.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a TLS port beside the plain one. Replicas and Sentinels then connect over TLS.
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    pub(super) fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    pub(super) fn file(&self, folder: &Folder, port: &Port, tls_port: Option<&Port>) -> String {
        let mut file = format!("bind 127.0.0.1\nport {}\ndir \"{}\"\n", port.number(), folder.path().display());
        if self.role != Role::Sentinel {
            // By default a master waits 5 s for more replicas before it sends the first copy.
            file.push_str("save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n");
        }
        if let (Some(tls), Some(port)) = (&self.tls, tls_port) {
            file.push_str(&tls.lines(folder, port));
        }
        if let Some(password) = &self.password {
            writeln!(file, "requirepass {password}\nmasterauth {password}").expect("a String takes text");
        }
        for line in &self.lines {
            writeln!(file, "{line}").expect("a String takes text");
        }
        file
    }
}
