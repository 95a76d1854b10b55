//! A master and its replica, and a failover that loses the writes that the replica had not received.

use super::{Options, RedisServer, eventually};

/// Two servers. At the start, the second is a replica of the first.
pub struct Pair {
    pub master: RedisServer,
    pub replica: RedisServer,
}

impl Pair {
    /// Starts both servers and waits until the replica is linked to the master.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Does what [`start`](Self::start) does, with options for both servers.
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

    /// Waits until the replica has received all writes that the master has now.
    pub fn wait_replicated(&self) {
        wait_replicated(&self.master, &self.replica);
    }

    /// Cuts the replica off, so that a promotion loses all later writes of the master (the "tail"). The replica has all
    /// earlier ones.
    pub fn detach_replica(&self) {
        detach(&self.master, &self.replica);
    }

    /// Kills the master and promotes the replica, which lacks all writes after [`detach_replica`](Self::detach_replica).
    pub fn promote_with_lost_tail(&self) {
        assert!(!self.replica.is_running(), "call detach_replica first, then write the tail");
        lose_master(&self.master, &self.replica);
        promote(&self.replica);
    }

    /// Waits until the replica has all writes, then kills the master and promotes the replica.
    pub fn promote(&self) {
        self.wait_replicated();
        self.master.kill();
        promote(&self.replica);
    }
}

/// The port by which other servers know this one: its TLS port, if it has one.
pub(super) fn known_port(server: &RedisServer) -> u16 {
    server.tls_port().unwrap_or_else(|| server.port())
}

/// Cuts a replica off. To the master this is only a lost connection.
///
/// The replica is paused, and its connection is cut while it cannot open another one. A pause alone would not be
/// enough: the master's later writes would wait in the replica's socket, and the replica would apply them when resumed.
pub(super) fn detach(master: &RedisServer, replica: &RedisServer) {
    wait_replicated(master, replica);
    replica.stop();
    let cut: usize = master.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert_eq!(cut, 1, "one replica was connected");
}

/// Kills a master, then resumes its detached replica, which must not reach the master again.
pub(super) fn lose_master(master: &RedisServer, replica: &RedisServer) {
    master.kill();
    replica.cont();
}

pub(super) fn wait_linked(replica: &RedisServer) {
    eventually("the replica is linked", || (replica.info("master_link_status")? == "up").then_some(()));
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
