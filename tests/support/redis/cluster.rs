//! A Redis Cluster of three shards.

use std::ops::RangeInclusive;

use super::{
    Options, RedisServer, SlotMove, eventually,
    options::Role,
    pair::{wait_linked, wait_replicated},
    topology::View,
};

/// The slots that each shard starts with.
const SLOTS: [RangeInclusive<u16>; 3] = [0..=5460, 5461..=10922, 10923..=16383];

/// Three masters, each with a replica if the test asks for replicas.
pub struct RedisCluster {
    masters: Vec<RedisServer>,
    replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three masters and waits until they form a Cluster.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Does what [`start`](Self::start) does, with options for all nodes.
    pub fn with(options: &Options) -> Self {
        Self::form(nodes(options), Vec::new())
    }

    /// Starts three masters with one replica each, and waits until every replica is linked to its master.
    pub fn with_replicas(options: &Options) -> Self {
        Self::form(nodes(options), nodes(options))
    }

    /// The addresses of the nodes that started as masters. A client discovers the Cluster from them.
    pub fn seeds(&self) -> Vec<String> {
        self.masters.iter().map(|node| node.address().to_string()).collect()
    }

    /// Returns a URL such as `redis+cluster://h:p,h:p,h:p`.
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.seeds().join(","))
    }

    /// The node that started as a shard's master.
    pub fn master(&self, shard: usize) -> &RedisServer {
        &self.masters[shard]
    }

    /// The node that started as a shard's replica.
    pub fn replica(&self, shard: usize) -> &RedisServer {
        &self.replicas[shard]
    }

    /// All nodes. Those that started as masters come first.
    pub fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    pub fn slot_of(&self, key: &str) -> u16 {
        self.any().ask(&["CLUSTER", "KEYSLOT", key])
    }

    /// The node that serves a slot now. Nodes may disagree on it until [`wait_ok`](Self::wait_ok) returns.
    pub fn owner_of(&self, slot: u16) -> &RedisServer {
        let port = self.owner_port(slot);
        self.nodes().find(|node| node.port() == port).expect("the owner is a node of this Cluster")
    }

    /// The shard that serves a slot now.
    pub fn shard_of(&self, slot: u16) -> usize {
        let port = self.owner_port(slot);
        let index = self.nodes().position(|node| node.port() == port).expect("the owner is a node of this Cluster");
        index % self.masters.len()
    }

    /// Returns the keys of all masters, sorted.
    pub fn keys(&self) -> Vec<String> {
        let masters = self.nodes().filter(|node| is_master(node));
        let mut keys: Vec<_> = masters.flat_map(RedisServer::keys).collect();
        keys.sort_unstable();
        keys
    }

    /// Moves a slot and its keys to a shard's master. Clients can use the slot meanwhile.
    pub fn move_slot(&self, slot: u16, to: usize) {
        self.begin_move(slot, to).finish();
    }

    /// Begins to move a slot to a shard's master. Its keys stay until the [`SlotMove`] moves them.
    pub fn begin_move(&self, slot: u16, to: usize) -> SlotMove<'_> {
        let masters: Vec<_> = self.running().filter(|node| is_master(node)).collect();
        let shard = [self.masters.get(to), self.replicas.get(to)].into_iter().flatten();
        let to = shard.into_iter().find(|node| masters.iter().any(|master| master.port() == node.port()));
        SlotMove::begin(slot, self.owner_of(slot), to.expect("the shard has a master"), masters)
    }

    /// Promotes a shard's replica without losing a write, and returns the new master.
    pub fn failover(&self, shard: usize) -> &RedisServer {
        let (master, replica) = self.roles(shard);
        wait_replicated(master, replica);
        replica.command(&["CLUSTER", "FAILOVER"]);
        self.wait_promoted(replica);
        replica
    }

    /// Kills a shard's master, waits until the Cluster has promoted the replica, and returns the new master.
    pub fn kill_and_wait_promoted(&self, shard: usize) -> &RedisServer {
        let (master, replica) = self.roles(shard);
        wait_replicated(master, replica);
        master.kill();
        self.wait_promoted(replica);
        replica
    }

    /// Waits until all slots are served, and all running nodes know each other and agree on the owner of each slot.
    pub fn wait_ok(&self) {
        eventually("the cluster is whole", || self.is_whole().then_some(()));
    }

    fn form(masters: Vec<RedisServer>, replicas: Vec<RedisServer>) -> Self {
        let cluster = Self { masters, replicas };
        cluster.introduce();
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            follow(replica, master);
        }
        cluster.wait_ok();
        cluster.replicas.iter().for_each(wait_linked);
        cluster
    }

    fn introduce(&self) {
        for (number, node) in self.nodes().enumerate() {
            // Distinct epochs, so that the nodes have no conflict to resolve. Must come before `MEET`, after which
            // nodes refuse the command.
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (number, node) in self.nodes().enumerate() {
            for other in self.nodes().skip(number + 1) {
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
            }
        }
        for (node, slots) in self.masters.iter().zip(SLOTS) {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &slots.start().to_string(), &slots.end().to_string()]);
        }
    }

    /// Returns a shard's current master and its replica.
    fn roles(&self, shard: usize) -> (&RedisServer, &RedisServer) {
        let (first, second) = (self.master(shard), self.replica(shard));
        if is_master(first) { (first, second) } else { (second, first) }
    }

    fn wait_promoted(&self, replica: &RedisServer) {
        eventually("the replica takes over", || is_master(replica).then_some(()));
        self.wait_ok();
    }

    fn owner_port(&self, slot: u16) -> u16 {
        let view = View::of(self.any()).expect("the node answers");
        view.owner(slot).expect("the slot has an owner").port
    }

    fn any(&self) -> &RedisServer {
        self.running().next().expect("a node runs")
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes().filter(|node| node.is_running())
    }

    fn is_whole(&self) -> bool {
        let serve = self.running().all(|node| says(node, &["cluster_state:ok", "cluster_slots_ok:16384"]));
        let Some(views) = self.running().map(View::of).collect::<Option<Vec<_>>>() else { return false };
        let met = views.iter().all(|view| self.running().all(|node| view.knows(node.port())));
        serve && met && views.windows(2).all(|pair| pair[0].owners() == pair[1].owners())
    }
}

fn nodes(options: &Options) -> Vec<RedisServer> {
    let options = options
        .clone()
        .role(Role::ClusterNode)
        .line("cluster-enabled yes")
        .line("cluster-node-timeout 1000")
        // A replica stays with the master that the test gave it.
        .line("cluster-allow-replica-migration no");
    SLOTS.iter().map(|_| RedisServer::with(&options)).collect()
}

fn follow(replica: &RedisServer, master: &RedisServer) {
    let id: String = master.ask(&["CLUSTER", "MYID"]);
    // The replica refuses until the Cluster's gossip has told it of the master.
    eventually("the replica knows its master", || replica.try_command(&["CLUSTER", "REPLICATE", &id]).ok());
}

fn is_master(node: &RedisServer) -> bool {
    node.info("role").is_some_and(|role| role == "master")
}

fn says(node: &RedisServer, facts: &[&str]) -> bool {
    let info = node.try_ask::<String>(&["CLUSTER", "INFO"]);
    info.is_ok_and(|info| facts.iter().all(|fact| info.lines().any(|line| line == *fact)))
}
