//! A master and its replica, and a failover that loses what the replica did not have yet.

use super::{Options, RedisServer, eventually};

/// Two servers, the second a replica of the first when they start.
pub struct Pair {
    pub master: RedisServer,
    pub replica: RedisServer,
}

impl Pair {
    /// Starts both, and waits until the replica follows.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// The same, with options for both.
    pub fn with(options: &Options) -> Self {
        let mut options = options.clone();
        if options.tls.is_some() {
            options = options.line("tls-replication yes");
        }
        let master = RedisServer::with(&options);
        let following = options.line(&format!("replicaof 127.0.0.1 {}", known_port(&master)));
        let replica = RedisServer::with(&following);
        wait_linked(&replica);
        Self { master, replica }
    }

    /// Waits until the replica has all that the master has now.
    pub fn wait_replicated(&self) {
        wait_replicated(&self.master, &self.replica);
    }

    /// From here on the master's writes reach no one: they are the tail that a promotion loses.
    ///
    /// All before it is on the replica.
    pub fn detach_replica(&self) {
        detach(&self.master, &self.replica);
    }

    /// Kills the master and promotes the replica, which has nothing from after [`detach_replica`](Self::detach_replica).
    pub fn promote_with_lost_tail(&self) {
        assert!(!self.replica.is_running(), "detach the replica first, then write the tail");
        lose_master(&self.master, &self.replica);
        promote(&self.replica);
    }

    /// Kills the master once the replica has everything, and promotes that.
    pub fn promote(&self) {
        self.wait_replicated();
        self.master.kill();
        promote(&self.replica);
    }
}

/// The port by which servers know each other: that for TLS if there is one.
pub(super) fn known_port(server: &RedisServer) -> u16 {
    server.tls_port().unwrap_or_else(|| server.port())
}

/// Cuts a replica off without its master's noticing more than a lost connection.
///
/// To pause it would not be enough: what the master sends meanwhile waits in the replica's socket, and is applied
/// when it goes on. So its connection is cut while it cannot make another.
pub(super) fn detach(master: &RedisServer, replica: &RedisServer) {
    wait_replicated(master, replica);
    replica.stop();
    let cut: usize = master.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert_eq!(cut, 1, "one replica was connected");
}

/// Kills a master before its detached replica can reach it again.
pub(super) fn lose_master(master: &RedisServer, replica: &RedisServer) {
    master.kill();
    replica.cont();
}

pub(super) fn wait_linked(replica: &RedisServer) {
    eventually("the replica follows", || (replica.info("master_link_status")? == "up").then_some(()));
}

pub(super) fn wait_replicated(master: &RedisServer, replica: &RedisServer) {
    wait_linked(replica);
    let reached: u64 = master.info("master_repl_offset").and_then(|offset| offset.parse().ok()).expect("an offset");
    eventually("the replica catches up", || {
        let offset: u64 = replica.info("slave_repl_offset")?.parse().ok()?;
        (offset >= reached).then_some(())
    });
}

fn promote(replica: &RedisServer) {
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    eventually("the replica is master", || (replica.info("role")? == "master").then_some(()));
}
