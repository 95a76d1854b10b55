//! How a server is configured.

use std::fmt::Write as _;

use super::{Tls, folder::Folder, port::Port};

/// What a server gets beside its defaults: lines of `redis.conf`, and perhaps TLS.
///
/// Without any, nothing is persisted, so a restarted server is empty, and replication starts at once.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Options {
    lines: Vec<String>,
    pub(super) password: Option<String>,
    pub(super) tls: Option<Tls>,
    pub(super) role: Role,
}

/// What kind of process it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Role {
    #[default]
    Server,
    ClusterNode,
    Sentinel,
}

impl Options {
    /// An append-only file that is synced before each answer: what was acknowledged outlives a `SIGKILL`.
    pub fn durable() -> Self {
        Self::default().line("appendonly yes").line("appendfsync always")
    }

    /// So much memory, as `8mb`; writes beyond it are refused, nothing is evicted.
    pub fn bounded(memory: &str) -> Self {
        Self::default().line(&format!("maxmemory {memory}")).line("maxmemory-policy noeviction")
    }

    /// A line of `redis.conf`, which may be one of [`acl_user`](super::acl_user); the last of a kind holds.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// What the default user has to say; replicas, other Sentinels and this harness know it.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// A TLS port beside the plain one, over which replicas and Sentinels come too.
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
            // A replica's first copy would otherwise wait 5 s for others to share it with.
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
