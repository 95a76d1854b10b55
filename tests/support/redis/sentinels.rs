//! A master and its replica under three Sentinels.

use super::{
    Options, Pair, RedisServer, eventually,
    options::Role,
    pair::{detach, known_port, lose_master, wait_linked, wait_replicated},
};

/// What the Sentinels call the master.
const NAME: &str = "mymaster";

/// How often Sentinels that know each other say hello, in milliseconds.
///
/// Whoever claims for four such periods to be a master and is not theirs, they demote. They must not do so to a
/// replica that one of them is about to promote, and that one notices only within a second.
const UNHURRIED: &str = "750";

/// Two servers and three Sentinels of quorum 2, which take a master for dead after half a second.
pub struct Sentinels {
    nodes: [RedisServer; 2],
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts all, and waits until the Sentinels know each other and the replica.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// The same, with options for both servers.
    pub fn with(options: &Options) -> Self {
        Self::guarded(options, &Options::default())
    }

    /// The same, with options for the servers, and others for the Sentinels, which know the servers' password.
    ///
    /// Where the servers have TLS, the Sentinels reach them and each other over that, and so have it too.
    pub fn guarded(servers: &Options, sentinels: &Options) -> Self {
        let Pair { master, replica } = Pair::with(servers);
        let sentinels = (0..3).map(|_| sentinel(&master, servers, sentinels)).collect();
        let all = Self { nodes: [master, replica], sentinels };
        eventually("the Sentinels know each other", || all.sentinels.iter().all(is_acquainted).then_some(()));
        all.sentinels.iter().for_each(|sentinel| publish_every(sentinel, UNHURRIED));
        all
    }

    /// As `redis+sentinel://h:p,h:p,h:p/mymaster`.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{NAME}", self.addresses())
    }

    /// As `h:p,h:p,h:p`.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        addresses.join(",")
    }

    /// The same for TLS.
    pub fn tls_addresses(&self) -> String {
        let urls: Vec<_> = self.sentinels.iter().map(RedisServer::tls_url).collect();
        urls.join(",").replace("rediss://", "")
    }

    pub fn sentinel(&self, number: usize) -> &RedisServer {
        &self.sentinels[number]
    }

    /// The master, as the Sentinels have agreed.
    pub fn master(&self) -> &RedisServer {
        self.agreed().expect("the Sentinels agree on one of these servers")
    }

    /// The server that is not the master.
    pub fn replica(&self) -> &RedisServer {
        self.other(self.master())
    }

    /// Has the Sentinels swap master and replica; returns the new master when the other follows it.
    pub fn failover(&self) -> &RedisServer {
        let (old, new) = (self.master(), self.replica());
        wait_replicated(old, new);
        // Refused until that Sentinel has seen the replica in good order.
        eventually("the failover begins", || self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", NAME]).ok());
        eventually("the replica is master", || (self.promoted()?.port() == new.port()).then_some(()));
        wait_linked(old);
        new
    }

    /// Kills the master, as it is; the replica has all of its data if it had the time.
    pub fn kill_master(&self) {
        self.master().kill();
    }

    /// Waits until the Sentinels have agreed on a master that is alive and is one.
    pub fn wait_promoted(&self) -> &RedisServer {
        eventually("the Sentinels promote", || self.promoted())
    }

    /// Starts a server that was killed, and waits until it follows the master.
    pub fn revive_replica(&self) {
        let replica = self.replica();
        replica.restart();
        eventually("the Sentinels demote the old master", || (replica.info("role")? == "slave").then_some(()));
        wait_linked(replica);
    }

    /// From here on the master's writes reach no one: they are the tail that a promotion loses.
    pub fn detach_replica(&self) {
        detach(self.master(), self.replica());
    }

    /// Kills the master and waits until the Sentinels have promoted the replica, which has nothing from after
    /// [`detach_replica`](Self::detach_replica).
    pub fn promote_with_lost_tail(&self) -> &RedisServer {
        let (master, replica) = (self.master(), self.replica());
        assert!(!replica.is_running(), "detach the replica first, then write the tail");
        lose_master(master, replica);
        self.wait_promoted()
    }

    fn other(&self, node: &RedisServer) -> &RedisServer {
        let [first, second] = &self.nodes;
        if node.port() == first.port() { second } else { first }
    }

    /// The server that all Sentinels in service name.
    fn agreed(&self) -> Option<&RedisServer> {
        let running = self.sentinels.iter().filter(|sentinel| sentinel.is_running());
        let named: Vec<_> = running.map(named_by).collect::<Option<_>>()?;
        let port = *named.first()?;
        let all = named.iter().all(|other| *other == port);
        self.nodes.iter().find(|node| all && known_port(node) == port)
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
    hasten(&sentinel);
    sentinel
}

/// Makes a Sentinel look around more often; and should this machine stall for two seconds, so that it distrusts its
/// clock, makes it trust that again after half a second instead of thirty.
///
/// The ping period has to be well below the time after which a master is down, because a Sentinel waits that long
/// before it connects to the master it has just promoted. But five of them must be more than a second: it promotes no
/// replica that it has older news of, and while the master is down it asks for news once a second.
fn hasten(sentinel: &RedisServer) {
    let periods = [["PING-PERIOD", "300"], ["INFO-PERIOD", "500"], ["ASK-PERIOD", "100"], ["TILT-PERIOD", "500"]];
    sentinel.command(&[&["SENTINEL", "DEBUG"], periods.concat().as_slice()].concat());
    publish_every(sentinel, "100");
}

/// Sets how many milliseconds a Sentinel lets pass between its hellos, by which Sentinels find each other.
fn publish_every(sentinel: &RedisServer, period: &str) {
    sentinel.command(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", period]);
}

fn is_acquainted(sentinel: &RedisServer) -> bool {
    let told = sentinel.info("master0").unwrap_or_default();
    ["status=ok", "slaves=1", "sentinels=3"].iter().all(|fact| told.split(',').any(|other| other == *fact))
}

/// The port of the master that a Sentinel names.
fn named_by(sentinel: &RedisServer) -> Option<u16> {
    let address: Vec<String> = sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
    address.get(1)?.parse().ok()
}
