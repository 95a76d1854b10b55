//! A Cluster's indexes lie on other servers than its streams: failures, delays and races there do not harm the streams.

use std::time::{Duration, Instant};

use resilient_sse::{
    RedisStore, StreamState,
    store::{Close, Closed, DueReason, Interrupted, Open, Opened, Retention, Store as _},
};

use crate::{
    redis_store::steps::{
        ALL, LONG, beat, begin, close, connect, event, finish, interrupt, key, open, open_as, retention, send, until,
    },
    support::redis::{Options, RedisCluster, RedisServer},
};

/// A cluster that serves the slots of the masters that are there.
fn partial() -> RedisCluster {
    RedisCluster::with(&Options::default().line("cluster-require-full-coverage no"))
}

fn index(name: &str, slot: u16) -> String {
    format!("sse:{name}:{{p{:02}}}", slot % 16)
}

/// Returns ids of Ada's whose own keys lie on one master and whose part of the indexes lies on another, and that other
/// master.
fn apart(cluster: &RedisCluster) -> (Vec<String>, usize) {
    let owner = cluster.shard_of(cluster.slot_of("sse:user:{YWRh}:streams"));
    let shards = |id: &String| {
        let slot = cluster.slot_of(&format!("sse:stream:{{YWRh/{id}}}"));
        (cluster.shard_of(slot), cluster.shard_of(cluster.slot_of(&index("active", slot))))
    };
    let ids = (0..).map(|number| format!("apart{number}"));
    let ids = ids.filter(|id| shards(id).0 != owner && shards(id).1 == owner).take(12).collect();
    (ids, owner)
}

fn ended(id: &str, epoch: u64) -> Close {
    Close { hook: Some(Duration::ZERO), ..close(&key(id), epoch) }
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Gone,
    Hung,
    Full,
    /// The master refuses scripts.
    Refuses,
}

impl Trouble {
    fn begins(self, server: &RedisServer) {
        match self {
            Self::Gone => server.kill(),
            Self::Hung => server.stop(),
            Self::Full => drop(server.command(&["CONFIG", "SET", "maxmemory", "1"])),
            Self::Refuses => drop(server.command(&["ACL", "SETUSER", "default", "-evalsha", "-eval"])),
        }
    }

    fn ends(self, server: &RedisServer) {
        match self {
            Self::Gone => server.restart(),
            Self::Hung => server.cont(),
            Self::Full => drop(server.command(&["CONFIG", "SET", "maxmemory", "0"])),
            Self::Refuses => drop(server.command(&["ACL", "SETUSER", "default", "+evalsha", "+eval"])),
        }
    }
}

/// The master of a stream's indexes fails: the stream still lives its whole life, and each step is quick.
async fn lives_without_its_indexes(trouble: Trouble) {
    let cluster = partial();
    let store = connect(&cluster.url()).await;
    let (ids, elsewhere) = apart(&cluster);
    let server = cluster.master(elsewhere);
    // Connect all nodes first.
    begin(&store, &ids[0]).await;
    trouble.begins(server);
    let mut slowest = Duration::ZERO;
    let mut epochs = Vec::new();
    for (number, id) in ids[2..].iter().enumerate() {
        let limit = (number % 2 == 1).then_some(20);
        let since = Instant::now();
        let epoch = open_as(&store, Open { limit, ..open(id) }).await;
        assert!(matches!(store.open(open(id)).await.unwrap(), Opened::Active { .. }), "{id}");
        match number % 4 {
            0 => drop(finish(&store, ended(id, epoch)).await),
            1 => assert_eq!(store.interrupt(interrupt(&key(id), epoch)).await.unwrap(), Interrupted::Done),
            2 => store.delete(key(id)).await.unwrap(),
            _ => epochs.push((key(id), epoch)),
        }
        slowest = slowest.max(since.elapsed());
    }
    let since = Instant::now();
    send(&store, event(&ids[1], "x")).await;
    slowest = slowest.max(since.elapsed());
    println!("{trouble:?}: the slowest stream took {slowest:?}");
    // The steps must not each wait for a link's time limit.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    trouble.ends(server);
    cluster.wait_ok();
    // Beats and sweeps repair the indexes.
    until("the running streams are in the index again", async || {
        let _ = store.beat(beat(&epochs)).await;
        let mut listed = 0;
        for (key, _) in &epochs {
            listed +=
                usize::from(store.info(key.clone()).await.is_ok_and(|info| info.is_some_and(|info| info.deadline > 0)));
        }
        listed == epochs.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_streams_live_while_the_master_of_their_indexes_is_gone() {
    lives_without_its_indexes(Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_streams_live_while_the_master_of_their_indexes_hangs() {
    lives_without_its_indexes(Trouble::Hung).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_streams_live_while_the_master_of_their_indexes_is_full() {
    lives_without_its_indexes(Trouble::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_streams_live_while_the_master_of_their_indexes_refuses_scripts() {
    lives_without_its_indexes(Trouble::Refuses).await;
}

/// The master of the indexes refuses an end's changes, and the node dies: a sweep finds the rest.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_hook_that_no_index_was_told_of_is_found_by_a_sweep() {
    let cluster = partial();
    let (ids, elsewhere) = apart(&cluster);
    let server = cluster.master(elsewhere);
    let soon = Retention { stale: Duration::from_millis(300), ..retention() };
    let node = connect(&cluster.url()).await;
    let mut epochs = Vec::new();
    for id in &ids[..3] {
        epochs.push(open_as(&node, Open { retention: soon, reruns: false, ..open(id) }).await);
    }
    Trouble::Refuses.begins(server);
    server.command(&["ACL", "SETUSER", "default", "-zrem"]);
    finish(&node, ended(&ids[0], epochs[0])).await;
    assert_eq!(node.interrupt(interrupt(&key(&ids[1]), epochs[1])).await.unwrap(), Interrupted::Done);
    node.delete(key(&ids[2])).await.unwrap();
    drop(node);
    Trouble::Refuses.ends(server);
    server.command(&["ACL", "SETUSER", "default", "+zrem"]);
    let other = connect(&cluster.url()).await;
    until("the hook is found", async || {
        let due = other.due(100, LONG, ALL).await.unwrap();
        due.iter().any(|due| due.info.key == key(&ids[0]) && due.reason == DueReason::Hook)
    })
    .await;
    until("nothing else is in the index", async || {
        other.due(100, LONG, ALL).await.unwrap();
        other.active_count().await.unwrap() == 0
    })
    .await;
    // A guardian must close a stream that may not be run again at the end of its lifetime.
    assert!(other.info(key(&ids[1])).await.unwrap().unwrap().deadline > 0);
}

/// The owner's index cannot be asked: the limit of its streams admits them.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_cannot_be_asked_for_admits() {
    let cluster = partial();
    let store = connect(&cluster.url()).await;
    let (ids, elsewhere) = apart(&cluster);
    let one = |id: &str| Open { limit: Some(1), ..open(id) };
    open_as(&store, one(&ids[0])).await;
    assert_eq!(store.open(one(&ids[1])).await.unwrap(), Opened::OverLimit);
    cluster.master(elsewhere).kill();
    for id in &ids[1..4] {
        open_as(&store, one(id)).await;
    }
}

/// G5: of two nodes that open one stream the loser takes back its own reservation, and never what the winner wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_the_winner_of_a_race_is_in_the_index() {
    let cluster = RedisCluster::start();
    let (a, b) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let total = 1000;
    let mut missing = Vec::new();
    for number in 0..total {
        let id = format!("r{number}");
        let short = Retention { stale: Duration::from_millis(50), ..retention() };
        let ask = |store: &RedisStore| {
            let (store, open) = (store.clone(), Open { retention: short, reruns: false, ..open(&id) });
            tokio::spawn(async move { store.open(open).await.unwrap() })
        };
        let (x, y) = (ask(&a), ask(&b));
        let both = [x.await.unwrap(), y.await.unwrap()];
        assert_eq!(both.iter().filter(|opened| matches!(opened, Opened::New { .. })).count(), 1);
        if crate::redis_store::steps::info(&a, &key(&id)).await.deadline == 0 {
            missing.push(id);
        }
    }
    assert!(missing.is_empty(), "{} of {total}: {:?}", missing.len(), &missing[..missing.len().min(5)]);
    // A leased stream that cannot be inspected in time is handed out again.
    let found = std::cell::RefCell::new(std::collections::BTreeSet::new());
    until("a sweep finds each of them", async || {
        let due = a.due(200, Duration::from_secs(2), ALL).await.unwrap();
        found.borrow_mut().extend(due.into_iter().map(|due| due.info.key.id.to_string()));
        found.borrow().len() == total
    })
    .await;
}

/// G5: the same with runs that follow each other at once: ending one run leaves the next one's registration alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g5_a_run_that_follows_at_once_is_in_the_index() {
    let cluster = RedisCluster::start();
    let (a, b) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let mut epoch = open_as(&a, open("again")).await;
    for number in 0..300 {
        let other = {
            let (b, number) = (b.clone(), number);
            tokio::spawn(async move {
                let opened = async || match b.open(open("again")).await.unwrap() {
                    Opened::New { epoch, .. } => Some(epoch),
                    Opened::Active { .. } => None,
                    other => panic!("{number}: {other:?}"),
                };
                loop {
                    if let Some(epoch) = opened().await {
                        return epoch;
                    }
                }
            })
        };
        a.interrupt(interrupt(&key("again"), epoch)).await.unwrap();
        epoch = other.await.unwrap();
        assert!(crate::redis_store::steps::info(&a, &key("again")).await.deadline > 0, "run {number}");
        assert_eq!(a.active_count().await.unwrap(), 1, "run {number}");
    }
}

/// The server's time goes on while this process's monotonic clock stands still. The sleep is that time itself and waits
/// for nothing.
fn suspend_for(time: Duration) {
    tokio::time::pause();
    std::thread::sleep(time);
    tokio::time::resume();
}

/// G5: a machine that was suspended for a while (its monotonic clock stood still) opens a stream.
#[tokio::test]
async fn g5_a_machine_that_slept_opens_a_stream_that_is_not_overdue() {
    let cluster = RedisCluster::start();
    let (a, b) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let short = Retention { stale: Duration::from_secs(2), ..retention() };
    suspend_for(Duration::from_secs(5));
    let epoch = open_as(&a, Open { retention: short, reruns: false, ..open("s") }).await;
    send(&a, resilient_sse::store::Publish { retention: short, ..event("p", "x") }).await;
    // Another node's guardian has beaten all the time and trusts its store.
    let now = b.beat(beat(&[])).await.unwrap().now;
    assert_eq!(b.due(10, LONG, Some(now)).await.unwrap(), []);
    suspend_for(Duration::from_secs(2));
    // A sweep must look after its end, too, but only once the hook's time is over.
    let close = Close { hook: Some(Duration::from_secs(2)), ..close(&key("s"), epoch) };
    assert!(matches!(a.close(close).await.unwrap(), Closed::Now { .. }));
    assert_eq!(b.due(10, LONG, None).await.unwrap(), []);
}

/// In an index of deadlines the odd members are registered.
#[tokio::test(flavor = "multi_thread")]
async fn reservations_and_registrations_are_told_apart() {
    let cluster = RedisCluster::start();
    let store = connect(&cluster.url()).await;
    let slot = cluster.slot_of("sse:stream:{YWRh/s}");
    let master = cluster.owner_of(cluster.slot_of(&index("active", slot)));
    let score = |index: &str| master.ask::<Option<f64>>(&["ZSCORE", index, "YWRh/s"]);
    let active = index("active", slot);
    let (key, epoch) = begin(&store, "s").await;
    assert!(score(&active).unwrap() % 2.0 < 1.0, "reserved, which is as good until the first beat");
    store.beat(beat(&[(key.clone(), epoch)])).await.unwrap();
    assert!(score(&active).unwrap() % 2.0 > 0.0);
    assert_eq!(store.interrupt(interrupt(&key, epoch)).await.unwrap(), Interrupted::Done);
    until("it is taken out", async || score(&active).is_none()).await;
    let epoch = open_as(&store, open("s")).await;
    finish(&store, ended("s", epoch)).await;
    until("its end stands in the other index", async || {
        score(&active).is_none() && score(&index("due", slot)).is_some()
    })
    .await;
    assert_eq!(crate::redis_store::steps::info(&store, &key).await.state, StreamState::Failed);
}

/// G5: sweeps that may take only a few streams each find every overdue stream, in all parts of the indexes.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_sweep_with_little_room_gets_to_every_part() {
    let cluster = RedisCluster::start();
    let store = connect(&cluster.url()).await;
    let soon = Retention { stale: Duration::from_millis(20), ..retention() };
    for number in 0..40 {
        open_as(&store, Open { retention: soon, reruns: false, ..open(&format!("s{number}")) }).await;
    }
    let found = std::cell::Cell::new(0);
    until("each is found", async || {
        let due = store.due(3, LONG, ALL).await.unwrap();
        assert!(due.len() <= 3);
        found.set(found.get() + due.len());
        found.get() == 40
    })
    .await;
}
