//! A node's beat vouches for its streams. Each stream is named only once in several rounds of beats, and still no live
//! stream is taken for an orphan, and no dead one is missed.

use std::{collections::HashMap, time::Duration};

use resilient_sse::{
    NodeId, RedisStore, StreamKey,
    store::{Beat, Beaten, Close, Closed, Open, Retention, Store as _},
};

use crate::{
    redis_store::steps::{ALL, LONG, begin, close, connect, finish, info, key, open, open_as, retention, until},
    support::redis::RedisServer,
};

/// The stale threshold. Beats come three times as often, and a stream is named in one of sixteen of them.
const STALE: Duration = Duration::from_millis(1200);
const HOUR: Duration = Duration::from_secs(3600);
/// Scores from this number on are leases.
const LEASES: f64 = (1_u64 << 52) as f64;

type Streams = Vec<(StreamKey, u64)>;

async fn streams(store: &RedisStore, node: &str, stale: Duration, count: usize) -> Streams {
    let mut streams = Vec::new();
    for number in 0..count {
        let retention = Retention { stale, lifetime: HOUR, ..retention() };
        let id = format!("{node}-{number}");
        let request = Open { reruns: false, node: NodeId::new(node), retention, ..open(&id) };
        streams.push((key(&id), open_as(store, request).await));
    }
    streams
}

async fn beat(store: &RedisStore, node: &str, stale: Duration, streams: &[(StreamKey, u64)]) -> Beaten {
    let beat = Beat { node: NodeId::new(node), streams: streams.into(), stale, lifetime: HOUR };
    store.beat(beat).await.unwrap()
}

/// Beats for a number of rounds, as often as a guardian would. Sweeps in between find nothing.
async fn rounds(store: &RedisStore, node: &str, streams: &[(StreamKey, u64)], count: u32, sweeper: &RedisStore) {
    for _ in 0..count {
        assert_eq!(beat(store, node, STALE, streams).await.lost, [0; 0]);
        assert_eq!(sweeper.due(100, LONG, ALL).await.unwrap(), []);
        tokio::time::sleep(STALE / 3).await;
    }
}

/// Returns all scores in the index of active streams.
fn scores(server: &RedisServer) -> HashMap<String, f64> {
    let all: Vec<String> = server.ask(&["ZRANGE", "sse:active", "0", "-1", "WITHSCORES"]);
    all.chunks(2).map(|pair| (pair[0].clone(), pair[1].parse().unwrap())).collect()
}

/// The store's clock.
async fn now(store: &RedisStore) -> u64 {
    beat(store, "clock", STALE, &[]).await.now
}

/// Sweeps until each of these streams is found, and no other. Returns the time by the store's clock.
async fn all_found(sweeper: &RedisStore, dead: &[(StreamKey, u64)], mut meanwhile: impl AsyncFnMut()) -> u64 {
    let mut left: Vec<&StreamKey> = dead.iter().map(|(key, _)| key).collect();
    until("all are found", async || {
        meanwhile().await;
        for due in sweeper.due(7, LONG, ALL).await.unwrap() {
            let found = left.iter().position(|key| **key == due.info.key);
            left.remove(found.unwrap_or_else(|| panic!("a stream that lives, or a second time: {due:?}")));
        }
        left.is_empty()
    })
    .await;
    now(sweeper).await
}

/// The cost of 100,000 streams depends on how many of them a beat names.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_named_once_in_several_rounds() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let all = streams(&store, "a", STALE, 64).await;
    // Wait until no stream is inspected any more because its node is new.
    rounds(&store, "a", &all, 4, &store).await;
    server.command(&["CONFIG", "RESETSTAT"]);
    let (mut before, mut named) = (scores(&server), 0);
    const BEATS: usize = 80;
    for _ in 0..BEATS {
        assert_eq!(beat(&store, "a", STALE, &all).await.lost, [0; 0]);
        let after = scores(&server);
        named += after.iter().filter(|(name, score)| before[*name] != **score).count();
        before = after;
        tokio::time::sleep(STALE / 12).await;
    }
    assert!(before.values().all(|score| *score >= LEASES), "{before:?}");
    assert!(named >= all.len(), "each had its turn: {named}");
    assert!(named < all.len() * BEATS / 16, "{named} of {} were named in {BEATS} beats", all.len());
    // Commands besides those of a beat without streams: the leases, the named streams, the index's expiry.
    let stats = server.ask::<String>(&["INFO", "commandstats"]);
    let calls = |command: &str| {
        let of = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        of.map_or(0, |line| line.split(',').next().unwrap().parse::<usize>().unwrap())
    };
    assert!(calls("evalsha") < BEATS * 4, "scripts: {}", calls("evalsha"));
    assert!(calls("zadd") <= BEATS * 4, "ZADD: {}", calls("zadd"));
}

/// The streams are found whichever leases they stand under.
#[tokio::test(flavor = "multi_thread")]
async fn g5_the_streams_of_a_node_that_died_are_found_at_its_threshold() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let all = streams(&store, "a", STALE, 20).await;
    rounds(&store, "a", &all, 12, &sweeper).await;
    let under: Vec<f64> = scores(&server).into_values().collect();
    assert!(under.iter().any(|lease| *lease != under[0]), "under several leases: {under:?}");
    let last = beat(&store, "a", STALE, &all).await.now;
    drop(store);
    let found = all_found(&sweeper, &all, async || {}).await - last;
    let stale = STALE.as_millis() as u64;
    assert!((stale..2 * stale).contains(&found), "found after {found} ms");
    let listed = sweeper.stale(STALE, 100).await.unwrap();
    assert_eq!(listed.len(), all.len());
    assert!(listed.iter().all(|info| info.last_heartbeat >= last), "it is known when they were last heard of");
    assert_eq!(server.keys_without_ttl(), [""; 0]);
}

/// Two hubs of one process on one store: the beats of one hub do not vouch for the other's streams.
#[tokio::test(flavor = "multi_thread")]
async fn g5_nodes_on_one_store_die_each_for_itself() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let (dies, lives) = (streams(&store, "a", STALE, 5).await, streams(&store, "b", STALE, 5).await);
    for _ in 0..10 {
        beat(&store, "a", STALE, &dies).await;
        rounds(&store, "b", &lives, 1, &sweeper).await;
    }
    let last = beat(&store, "a", STALE, &dies).await.now;
    let found = all_found(&sweeper, &dies, async || drop(beat(&store, "b", STALE, &lives).await)).await - last;
    let stale = STALE.as_millis() as u64;
    assert!((stale..2 * stale).contains(&found), "found after {found} ms");
    let listed: Vec<_> = sweeper.stale(STALE, 100).await.unwrap().into_iter().map(|info| info.key).collect();
    assert!(dies.iter().all(|(key, _)| listed.contains(key)) && listed.len() == dies.len(), "{listed:?}");
}

/// A live process no longer lists a stream: its leases vouch for the stream for a while, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_stream_that_its_process_left_is_found() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut kept = streams(&store, "a", STALE / 4, 10).await;
    beat(&store, "a", STALE / 4, &kept).await;
    let left = kept.split_off(5);
    all_found(&sweeper, &left, async || drop(beat(&store, "a", STALE / 4, &kept).await)).await;
}

/// A node was away for longer than its threshold, and a guardian took its streams. From the node's first beat on they
/// are its own again, and the guardian closes none.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_node_that_comes_back_has_its_streams_again() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let all = streams(&store, "a", STALE / 4, 10).await;
    beat(&store, "a", STALE / 4, &all).await;
    let mut due = Vec::new();
    until("some are due", async || {
        due = sweeper.due(4, LONG, ALL).await.unwrap();
        !due.is_empty()
    })
    .await;
    assert_eq!(beat(&store, "a", STALE, &all).await.lost, [0; 0]);
    for due in due {
        let close = Close { if_deadline: Some(due.info.deadline), ..close(&due.info.key, due.info.epoch) };
        assert_eq!(sweeper.close(close).await.unwrap(), Closed::Moved);
    }
    assert_eq!(sweeper.due(100, LONG, ALL).await.unwrap(), []);
    let back = now(&sweeper).await;
    for (key, _) in &all {
        assert!(info(&store, key).await.deadline > back);
    }
}

/// Beats and claims race at the moment at which all leases are overdue. Once the beat is acknowledged, no claim leads
/// to the closing of a stream.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_claim_that_races_with_a_beat_closes_nothing() {
    let server = RedisServer::start();
    let (store, one, two) = (connect(&server.url()).await, connect(&server.url()).await, connect(&server.url()).await);
    let all = streams(&store, "a", STALE, 3).await;
    // Wait until the node names no more streams than it has to.
    rounds(&store, "a", &all, 4, &one).await;
    let mut claimed = 0;
    for round in 0..100 {
        for lease in server.ask::<Vec<String>>(&["ZRANGE", "sse:leases", "0", "-1"]) {
            server.command(&["ZADD", "sse:leases", "1", &lease]);
        }
        let late = async || {
            // So many round trips later.
            for _ in 0..round % 5 {
                two.info(key("none")).await.unwrap();
            }
            beat(&store, "a", STALE, &all).await
        };
        let (first, second, beaten) = tokio::join!(one.due(2, LONG, ALL), two.due(2, LONG, ALL), late());
        assert_eq!(beaten.lost, [0; 0]);
        for due in [first.unwrap(), second.unwrap()].concat() {
            claimed += 1;
            let close = Close { if_deadline: Some(due.info.deadline), ..close(&due.info.key, due.info.epoch) };
            assert_eq!(one.close(close).await.unwrap(), Closed::Moved, "round {round}");
        }
    }
    assert!(claimed > 0, "no claim ever came first");
}

/// Only the index of leases is lost. A live node writes its leases again, and a dead node's streams are found all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn g5_leases_that_are_lost_alone() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let (dead, lives) = (streams(&store, "a", STALE, 5).await, streams(&store, "b", STALE, 5).await);
    beat(&store, "a", STALE, &dead).await;
    beat(&store, "b", STALE, &lives).await;
    server.command(&["DEL", "sse:leases"]);
    assert_eq!(sweeper.due(100, LONG, ALL).await.unwrap(), []);
    assert_eq!(server.keys_without_ttl(), [""; 0]);
    assert!(info(&store, &dead[0].0).await.deadline > now(&sweeper).await, "as if it had just been heard of");
    all_found(&sweeper, &dead, async || drop(beat(&store, "b", STALE, &lives).await)).await;
}

/// The index is restored to a state of some rounds ago, as by a failover, or has lost a part: the next beat repairs it.
#[tokio::test(flavor = "multi_thread")]
async fn g5_an_index_of_yesterday_is_mended_by_the_next_beat() {
    let server = RedisServer::start();
    let (store, sweeper) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let all = streams(&store, "a", STALE, 40).await;
    rounds(&store, "a", &all, 2, &sweeper).await;
    let dump: Vec<u8> = redis::cmd("DUMP").arg("sse:active").query(&mut connection).unwrap();
    rounds(&store, "a", &all, 10, &sweeper).await;
    redis::cmd("RESTORE").arg("sse:active").arg(600_000).arg(dump).arg("REPLACE").exec(&mut connection).unwrap();
    let beaten = beat(&store, "a", STALE, &all).await;
    assert_eq!((beaten.lost, beaten.missed), (Vec::new(), Vec::new()));
    for (key, _) in &all {
        assert!(info(&store, key).await.deadline > beaten.now, "{key:?}");
    }
    // One stream alone, and one that is marked (see mark.lua).
    server.command(&["ZREM", "sse:active", "YWRh/a-7"]);
    let lease = scores(&server)["YWRh/a-8"];
    server.command(&["ZADD", "sse:active", &format!("{:.0}", lease - 1.0), "YWRh/a-8"]);
    assert!(info(&store, &key("a-8")).await.deadline > beaten.now, "it stands under its lease all the same");
    assert_eq!(beat(&store, "a", STALE, &all).await.lost, [0; 0]);
    let mended = scores(&server);
    assert_eq!(mended.len(), all.len());
    assert!(mended["YWRh/a-8"] % 2.0 > 0.0);
    rounds(&store, "a", &all, 10, &sweeper).await;
}

/// Another node runs a quiet stream by now. The old producer's next beat notices that, and does not take the stream
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_taken_over_is_noticed_at_once() {
    let server = RedisServer::start();
    let (old, new) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut all = streams(&old, "a", STALE, 5).await;
    rounds(&old, "a", &all, 3, &new).await;
    let (taken, epoch) = all[2].clone();
    finish(&new, close(&taken, epoch)).await;
    new.delete(taken.clone()).await.unwrap();
    let (_, epoch) = begin(&new, "a-2").await;
    let theirs = [(taken, epoch)];
    beat(&new, "b", STALE, &theirs).await;
    assert_eq!(beat(&old, "a", STALE, &all).await.lost, [2]);
    all.remove(2);
    for _ in 0..3 {
        assert_eq!(beat(&new, "b", STALE, &theirs).await.lost, [0; 0]);
        assert_eq!(beat(&old, "a", STALE, &all).await.lost, [0; 0]);
    }
}

/// An orphan whose job runs on is kept until its lifetime is over, however long ago its node renewed it.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_kept_for_its_lifetime() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    streams(&store, "a", Duration::from_millis(20), 1).await;
    let keys = ["sse:stream:{YWRh/a-0}", "sse:events:{YWRh/a-0}"];
    for key in keys {
        server.command(&["PEXPIRE", key, "60000"]);
    }
    for time in ["the first", "another"] {
        let lease = Duration::from_millis(1);
        until(time, async || !store.due(10, lease, ALL).await.unwrap().is_empty()).await;
    }
    for key in keys {
        assert!(server.ask::<u64>(&["PTTL", key]) > HOUR.as_millis() as u64, "{key}");
    }
}

/// One master of three, which has some of the streams' indexes, is full, hangs, or refuses the scripts. The beats lose
/// none of the other masters' streams, and no stream is taken for an orphan, then or afterwards.
#[cfg(feature = "redis-cluster")]
async fn a_master_that_fails_costs_the_others_nothing(begins: &[&str], ends: &[&str]) {
    let cluster = crate::support::redis::RedisCluster::start();
    let (store, sweeper) = (connect(&cluster.url()).await, connect(&cluster.url()).await);
    let all = streams(&store, "a", STALE, 120).await;
    let fails = cluster.master(1);
    // A full server still renews a stream's keys.
    let scripts = begins[0] == "ACL";
    let on_it = |stream: &(StreamKey, u64)| {
        let slot = cluster.slot_of(&format!("sse:stream:{{YWRh/{}}}", stream.0.id));
        let index = cluster.slot_of(&format!("sse:active:{{p{:02}}}", slot % 16));
        cluster.shard_of(index) == 1 || (scripts && cluster.shard_of(slot) == 1)
    };
    let round = async |in_trouble: bool| {
        for page in all.chunks(40) {
            let beaten = beat(&store, "a", STALE, page).await;
            assert_eq!(beaten.lost, [0; 0]);
            assert!(beaten.missed.iter().all(|index| in_trouble && on_it(&page[*index])), "{beaten:?}");
        }
        // Act like a guardian that beats and so knows which parts it may trust.
        let now = beat(&sweeper, "b", STALE, &[]).await.now;
        assert_eq!(sweeper.due(100, LONG, Some(now)).await.unwrap(), []);
        tokio::time::sleep(STALE / 4).await;
    };
    for _ in 0..4 {
        round(false).await;
    }
    fails.command(begins);
    for _ in 0..12 {
        round(true).await;
    }
    fails.command(ends);
    for _ in 0..8 {
        round(false).await;
    }
    let now = now(&sweeper).await;
    for (key, _) in &all {
        assert!(info(&store, key).await.deadline > now, "{key:?}");
    }
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_master_that_is_full_costs_the_streams_of_the_others_nothing() {
    let full = ["CONFIG", "SET", "maxmemory", "1"];
    a_master_that_fails_costs_the_others_nothing(&full, &["CONFIG", "SET", "maxmemory", "0"]).await;
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_master_that_refuses_scripts_costs_no_stream_its_life() {
    let refuses = ["ACL", "SETUSER", "default", "-evalsha", "-eval"];
    a_master_that_fails_costs_the_others_nothing(&refuses, &["ACL", "SETUSER", "default", "+@all"]).await;
}
