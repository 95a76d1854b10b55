//! A part of a Cluster fails: streams with their keys on other masters are not affected, and the others recover.
//!
//! A seed decides which masters fail, and how. `HALVES_SEEDS=1..=200` runs other seeds than the suite does.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use resilient_sse::StreamState;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::{
    servers::{
        client::Listening,
        stage::{Node, STALE, Stage, for_a_while, quick, until},
    },
    support::redis::{Options, RedisCluster, RedisServer},
};

const SHARDS: usize = 3;

/// The fault of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Gone,
    Hung,
    Full,
    /// It refuses one command.
    Refuses(&'static str),
    /// It answers 300 ms late.
    Slow,
}

/// Commands of the store, any of which may be forbidden by mistake.
const COMMANDS: [&str; 8] = ["set", "zadd", "xadd", "evalsha", "hgetall", "publish", "pexpire", "time"];

/// A sequence of numbers that a seed makes (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn fault(&mut self) -> Fault {
        match self.below(5) {
            0 => Fault::Gone,
            1 => Fault::Hung,
            2 => Fault::Full,
            3 => Fault::Refuses(COMMANDS[self.below(COMMANDS.len())]),
            _ => Fault::Slow,
        }
    }
}

/// The faults of the masters.
struct Plan([Option<Fault>; SHARDS]);

impl Plan {
    /// Chooses a non-empty subset of the masters, each with a fault of its own.
    fn of(dice: &mut Dice) -> Self {
        let subset = dice.below((1 << SHARDS) - 1) + 1;
        let mut plan = [None; SHARDS];
        for (shard, fault) in plan.iter_mut().enumerate() {
            *fault = (subset >> shard & 1 == 1).then(|| dice.fault());
        }
        Self(plan)
    }

    /// Whether a stream must go on undisturbed.
    fn spares(&self, shard: usize) -> bool {
        self.0[shard].is_none()
    }

    fn begin(&self, cluster: &Arc<RedisCluster>) -> Vec<Slowness> {
        let mut slow = Vec::new();
        for (shard, fault) in self.0.iter().enumerate() {
            let master = cluster.master(shard);
            match fault {
                None => {}
                Some(Fault::Gone) => master.kill(),
                Some(Fault::Hung) => master.stop(),
                Some(Fault::Full) => drop(master.command(&["CONFIG", "SET", "maxmemory", "1"])),
                Some(Fault::Refuses(command)) => {
                    master.command(&["ACL", "SETUSER", "default", &format!("-{command}")]);
                }
                Some(Fault::Slow) => slow.push(Slowness::begin(Arc::clone(cluster), shard)),
            }
        }
        slow
    }

    async fn end(&self, cluster: &Arc<RedisCluster>, slow: Vec<Slowness>) {
        for slowness in slow {
            slowness.end().await;
        }
        for (shard, fault) in self.0.iter().enumerate() {
            let master = cluster.master(shard);
            match fault {
                None | Some(Fault::Slow) => {}
                Some(Fault::Gone) => master.restart(),
                Some(Fault::Hung) => master.cont(),
                Some(Fault::Full) => drop(master.command(&["CONFIG", "SET", "maxmemory", "0"])),
                Some(Fault::Refuses(_)) => drop(master.command(&["ACL", "SETUSER", "default", "+@all"])),
            }
        }
        cluster.wait_ok();
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A master that is hung for 300 ms, and then has a moment to answer, again and again.
struct Slowness {
    over: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Slowness {
    fn begin(cluster: Arc<RedisCluster>, shard: usize) -> Self {
        let over = Arc::new(Notify::new());
        let told = Arc::clone(&over);
        let task = tokio::spawn(async move {
            let master: &RedisServer = cluster.master(shard);
            loop {
                master.stop();
                for_a_while(Duration::from_millis(300)).await;
                master.cont();
                if tokio::time::timeout(Duration::from_millis(10), told.notified()).await.is_ok() {
                    return;
                }
            }
        });
        Self { over, task }
    }

    async fn end(self) {
        self.over.notify_one();
        self.task.await.expect("it ended well");
    }
}

/// An id whose stream lies in a shard.
fn id_in(cluster: &RedisCluster, shard: usize, name: &str) -> String {
    let ids = (0..).map(|n| format!("{name}-{n}"));
    let mut ids = ids.filter(|id| cluster.shard_of(cluster.slot_of(&format!("sse:stream:{{{id}}}"))) == shard);
    ids.next().expect("one of them does")
}

/// Returns whether a new stream is recorded. It gets an answer in time in any case.
async fn is_recorded(node: &Node, id: &str) -> bool {
    let begun = Instant::now();
    let request = Request::get(format!("/{id}")).header("accept", "text/event-stream").body(()).unwrap();
    let response = node.feed.clone().oneshot(request).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(7), "{id}: {:?}", begun.elapsed());
    assert_eq!(response.status(), 200, "{id}");
    !response.headers().contains_key("x-stream-recorded")
}

/// The streams that run when a part fails.
struct Running {
    shard: usize,
    id: String,
    client: Listening,
}

/// Two streams of each shard on a node: one that makes events, and one that is silent.
async fn running(stage: &Stage, node: &Node, cluster: &RedisCluster, plan: &Plan, seed: u64) -> Vec<Running> {
    let mut streams = Vec::new();
    for shard in 0..SHARDS {
        for kind in ["live", "silent"] {
            let id = id_in(cluster, shard, &format!("{kind}-{seed}"));
            let client = if plan.spares(shard) {
                stage.client(&node.generation, &id).attached().await
            } else {
                // A client that reconnects is told of missing events, so only live events are judged.
                stage.client_apart(&node.generation, &id).attached_once().await
            };
            streams.push(Running { shard, id, client });
        }
    }
    for Running { id, client, .. } in &streams {
        client.hears(if id.starts_with("silent") { 0 } else { 5 }).await;
    }
    streams
}

async fn a_part_fails(cluster: &Arc<RedisCluster>, seed: u64) {
    let plan = Plan::of(&mut Dice(seed));
    println!("seed {seed}: {plan}");
    for master in cluster.nodes() {
        // As in production, no master takes another one for lost within a scenario, which would have it refuse
        // everything.
        master.command(&["CONFIG", "SET", "cluster-node-timeout", "15000"]);
    }
    let stage = Stage::new();
    // The test judges which streams a fault concerns, not the speed of this machine.
    let patient = |hub| quick(hub).store_limit(Duration::from_secs(2));
    let [node, other] = [stage.node(&cluster.url(), patient).await, stage.node(&cluster.url(), patient).await];
    let streams = running(&stage, &node, cluster, &plan, seed).await;
    for node in [&node, &other] {
        node.until_trusting().await;
    }

    let ids: Vec<Vec<String>> = (0..SHARDS)
        .map(|shard| (0..100).map(|round| id_in(cluster, shard, &format!("new-{seed}-{round}"))).collect())
        .collect();
    let slow = plan.begin(cluster);
    let begun = Instant::now();
    for round in 0..100 {
        for (shard, ids) in ids.iter().enumerate() {
            let recorded = is_recorded(&node, &ids[round]).await;
            assert!(
                recorded || !plan.spares(shard),
                "seed {seed}: {plan}: a new stream of shard {shard}, {:?}",
                begun.elapsed()
            );
        }
        if begun.elapsed() > STALE * 5 / 2 {
            break;
        }
        for_a_while(Duration::from_millis(50)).await;
    }
    for Running { shard, id, .. } in streams.iter().filter(|stream| plan.spares(stream.shard)) {
        let state = node.info(id).await.map(|info| info.state);
        assert_eq!(state, Some(StreamState::Active), "seed {seed}: {plan}: {id} of shard {shard}");
    }
    plan.end(cluster, slow).await;

    for shard in 0..SHARDS {
        let healed = id_in(cluster, shard, &format!("healed-{seed}"));
        until("new streams are recorded again", async || is_recorded(&node, &healed).await).await;
    }
    stage.finish();
    for Running { shard, id, client } in streams {
        let client = client.done().await;
        assert!(client.witness.data.last().is_some_and(|data| data.ends_with(":end")), "seed {seed}: {plan}: {id}");
        if plan.spares(shard) {
            let made = client.has_all();
            stage.check_delays(&client, 0);
            let late = stage.client(&other.generation, &id).stay().await;
            assert_eq!(late.has_all(), made, "seed {seed}: {plan}: {id}");
        }
    }
    stage.verdict(&[&node, &other], false).await;
}

/// The seeds that are to be run, as `1..=200`.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(told) = std::env::var("HALVES_SEEDS") else { return 1..=6 };
    let (first, last) = told.split_once("..=").expect("HALVES_SEEDS is first..=last");
    first.parse().expect("a number")..=last.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g7_streams_whose_own_part_of_a_cluster_is_well_notice_nothing() {
    let options = Options::default().line("cluster-require-full-coverage no");
    let cluster = Arc::new(RedisCluster::with(&options));
    for seed in seeds() {
        a_part_fails(&cluster, seed).await;
    }
}
