//! A master and its replica under three Sentinels.

use super::{
    Options, Pair, RedisServer, eventually,
    options::Role,
    pair::{detach, known_port, lose_master, wait_linked, wait_replicated},
};

/// The name of the master in the Sentinels' configuration.
const NAME: &str = "mymaster";

/// The milliseconds between a Sentinel's hello messages, once the Sentinels know each other.
///
/// A Sentinel demotes a server that has claimed to be a master for four such periods without being the master it knows.
/// The Sentinel that leads a failover may take a second to notice that its replica is a master. Four periods must be
/// longer, or another Sentinel would demote that replica first.
const HELLO_PERIOD: &str = "750";

/// Two servers and three Sentinels with a quorum of 2. The Sentinels consider a master dead after half a second.
pub struct Sentinels {
    nodes: [RedisServer; 2],
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts all processes and waits until the Sentinels know each other and the replica.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// Does what [`start`](Self::start) does, with options for both servers.
    pub fn with(options: &Options) -> Self {
        Self::with_each(options, &Options::default())
    }

    /// Does what [`start`](Self::start) does, with options for the servers and others for the Sentinels.
    ///
    /// The Sentinels get the servers' password. If the servers have TLS, the Sentinels have it too, and use it to reach
    /// the servers and each other.
    pub fn with_each(servers: &Options, sentinels: &Options) -> Self {
        let Pair { master, replica } = Pair::with(servers);
        let sentinels = (0..3).map(|_| sentinel(&master, servers, sentinels)).collect();
        let all = Self { nodes: [master, replica], sentinels };
        eventually("the Sentinels know each other", || all.sentinels.iter().all(is_acquainted).then_some(()));
        all.sentinels.iter().for_each(|sentinel| publish_every(sentinel, HELLO_PERIOD));
        all
    }

    /// Returns a URL such as `redis+sentinel://h:p,h:p,h:p/mymaster`.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{NAME}", self.addresses())
    }

    /// Returns the Sentinels' addresses as `h:p,h:p,h:p`.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        addresses.join(",")
    }

    /// Returns the Sentinels' TLS addresses as `h:p,h:p,h:p`.
    pub fn tls_addresses(&self) -> String {
        let urls: Vec<_> = self.sentinels.iter().map(RedisServer::tls_url).collect();
        urls.join(",").replace("rediss://", "")
    }

    pub fn sentinel(&self, number: usize) -> &RedisServer {
        &self.sentinels[number]
    }

    /// The master that all running Sentinels name.
    pub fn master(&self) -> &RedisServer {
        self.agreed().expect("the Sentinels agree on one of these servers")
    }

    /// The server that is not the master.
    pub fn replica(&self) -> &RedisServer {
        self.other(self.master())
    }

    /// Makes the Sentinels swap master and replica. Returns the new master once the old one is its replica.
    pub fn failover(&self) -> &RedisServer {
        let (old, new) = (self.master(), self.replica());
        wait_replicated(old, new);
        // The Sentinel refuses until it has seen a healthy replica.
        eventually("the failover begins", || self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", NAME]).ok());
        eventually("the replica is master", || (self.promoted()?.port() == new.port()).then_some(()));
        wait_linked(old);
        new
    }

    /// Kills the master at once. The replica may lack its latest writes.
    pub fn kill_master(&self) {
        self.master().kill();
    }

    /// Waits until the Sentinels agree on a running server that has the role of a master.
    pub fn wait_promoted(&self) -> &RedisServer {
        eventually("the Sentinels promote", || self.promoted())
    }

    /// Restarts the server that was killed, and waits until it is a replica of the master.
    pub fn revive_replica(&self) {
        let replica = self.replica();
        replica.restart();
        eventually("the Sentinels demote the old master", || (replica.info("role")? == "slave").then_some(()));
        wait_linked(replica);
    }

    /// Cuts the replica off, so that a promotion loses all later writes of the master (the "tail").
    pub fn detach_replica(&self) {
        detach(self.master(), self.replica());
    }

    /// Kills the master and waits until the Sentinels have promoted the replica, which lacks all writes after
    /// [`detach_replica`](Self::detach_replica).
    pub fn promote_with_lost_tail(&self) -> &RedisServer {
        let (master, replica) = (self.master(), self.replica());
        assert!(!replica.is_running(), "call detach_replica first, then write the tail");
        lose_master(master, replica);
        self.wait_promoted()
    }

    fn other(&self, node: &RedisServer) -> &RedisServer {
        let [first, second] = &self.nodes;
        if node.port() == first.port() { second } else { first }
    }

    /// Returns the server that all running Sentinels name as the master, if they agree.
    fn agreed(&self) -> Option<&RedisServer> {
        let running = self.sentinels.iter().filter(|sentinel| sentinel.is_running());
        let ports: Vec<_> = running.map(master_port).collect::<Option<_>>()?;
        let port = *ports.first()?;
        let is_agreed = ports.iter().all(|other| *other == port);
        self.nodes.iter().find(|node| is_agreed && known_port(node) == port)
    }

    fn promoted(&self) -> Option<&RedisServer> {
        let master = self.agreed().filter(|node| node.is_running())?;
        (master.info("role")? == "master").then_some(master)
    }
}

fn sentinel(master: &RedisServer, servers: &Options, options: &Options) -> RedisServer {
    let mut options = options
        .clone()
        .role(Role::Sentinel)
        .line(&format!("sentinel monitor {NAME} 127.0.0.1 {} 2", known_port(master)))
        .line(&format!("sentinel down-after-milliseconds {NAME} 500"))
        .line(&format!("sentinel failover-timeout {NAME} 2000"));
    if let Some(password) = &servers.password {
        options = options.line(&format!("sentinel auth-pass {NAME} {password}"));
    }
    if let Some(tls) = &servers.tls {
        options = options.tls(tls).line("tls-replication yes");
    }
    let sentinel = RedisServer::with(&options);
    shorten_periods(&sentinel);
    sentinel
}

/// Shortens a Sentinel's periods, so that it notices changes sooner.
///
/// `TILT-PERIOD`: a Sentinel that stalls for two seconds distrusts its clock and does nothing for that period, 30 s by
/// default.
///
/// `PING-PERIOD` has two bounds. It must be well below `down-after-milliseconds`, because a Sentinel waits one such
/// period before it connects to the master it has just promoted. Five of them must be longer than a second: a Sentinel
/// promotes no replica whose last `INFO` is older than that, and it asks for `INFO` once a second while a master is down.
fn shorten_periods(sentinel: &RedisServer) {
    let periods = [["PING-PERIOD", "300"], ["INFO-PERIOD", "500"], ["ASK-PERIOD", "100"], ["TILT-PERIOD", "500"]];
    sentinel.command(&[&["SENTINEL", "DEBUG"], periods.concat().as_slice()].concat());
    publish_every(sentinel, "100");
}

/// Sets the milliseconds between a Sentinel's hello messages, by which Sentinels find each other.
fn publish_every(sentinel: &RedisServer, period: &str) {
    sentinel.command(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", period]);
}

fn is_acquainted(sentinel: &RedisServer) -> bool {
    let master = sentinel.info("master0").unwrap_or_default();
    ["status=ok", "slaves=1", "sentinels=3"].iter().all(|field| master.split(',').any(|other| other == *field))
}

/// Returns the port of the master that a Sentinel names.
fn master_port(sentinel: &RedisServer) -> Option<u16> {
    let address: Vec<String> = sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
    address.get(1)?.parse().ok()
}
