//! Indexes may name too many streams or, after damage, too few: beats and sweeps repair them.

use std::time::Duration;

use resilient_sse::store::Store as _;

use crate::{
    redis_store::steps::{ALL, LONG, beat, begin, close, connect, finish, key},
    support::redis::RedisServer,
};

/// The number that is added to the expiry of an active stream in its owner's index.
#[cfg(feature = "redis-cluster")]
const ACTIVE: f64 = (1_u64 << 50) as f64;

fn score(server: &RedisServer, index: &str, member: &[u8]) -> Option<f64> {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("ZSCORE").arg(index).arg(member).query(&mut connection).unwrap()
}

fn put_in(server: &RedisServer, index: &str, score: &str, member: &[u8]) {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("ZADD").arg(index).arg(score).arg(member).exec(&mut connection).unwrap();
    redis::cmd("PEXPIRE").arg(index).arg(600_000).arg("NX").exec(&mut connection).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_beat_puts_a_stream_back() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let streams = [begin(&store, "one").await, begin(&store, "two").await];
    store.beat(beat(&streams)).await.unwrap();
    server.command(&["ZREM", "sse:active", "YWRh/one"]);
    server.command(&["DEL", "sse:user:{YWRh}:streams"]);
    assert_eq!(store.active_count().await.unwrap(), 1);
    let beaten = store.beat(beat(&streams)).await.unwrap();
    assert_eq!(beaten.lost, [0; 0]);
    let deadline = score(&server, "sse:active", b"YWRh/one").unwrap();
    assert_eq!(deadline, (beaten.now + LONG.as_millis() as u64) as f64);
    assert_eq!(store.active_count().await.unwrap(), 2);
    let listed = crate::redis_store::steps::list(&store, key("one").owner).await;
    assert!(listed.iter().any(|info| info.key == key("one")), "also among its owner's");
    server.command(&["DEL", "sse:active"]);
    store.beat(beat(&streams)).await.unwrap();
    assert_eq!(store.active_count().await.unwrap(), 2);
    assert_eq!(server.keys_without_ttl(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_out_what_is_no_stream_to_look_after() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (ended, epoch) = begin(&store, "ended").await;
    finish(&store, close(&ended, epoch)).await;
    let (overdue, epoch) = begin(&store, "overdue").await;
    let no_names: [&[u8]; 8] =
        [b"", b"no/such/name", b"\xff\xfe", b" ", b"YWRh/ended", b"YWRh/never", b"never", b"?/x"];
    for index in ["sse:active", "sse:due"] {
        for (number, member) in no_names.iter().enumerate() {
            put_in(&server, index, ["0", "-inf", "-5", "1.5"][number % 4], member);
        }
    }
    store.beat(beat(&[(overdue.clone(), epoch)])).await.unwrap();
    assert_eq!(store.due(100, Duration::ZERO, ALL).await.unwrap(), []);
    for index in ["sse:active", "sse:due"] {
        for member in no_names {
            assert_eq!(score(&server, index, member), None, "{} in {index}", String::from_utf8_lossy(member));
        }
    }
    assert!(score(&server, "sse:active", b"YWRh/overdue").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_gets_past_a_page_of_it() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for number in 0..50 {
        put_in(&server, "sse:active", "0", format!("nobody{number}").as_bytes());
    }
    let (hooked, epoch) = begin(&store, "hooked").await;
    let close = resilient_sse::store::Close { hook: Some(Duration::ZERO), ..close(&hooked, epoch) };
    finish(&store, close).await;
    let due = store.due(10, LONG, ALL).await.unwrap();
    assert_eq!(due.iter().map(|due| &due.info.key).collect::<Vec<_>>(), [&hooked]);
    assert_eq!(store.active_count().await.unwrap(), 0);
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_also_from_where_it_does_not_belong() {
    let cluster = crate::support::redis::RedisCluster::start();
    let store = connect(&cluster.url()).await;
    let (lost, epoch) = begin(&store, "lost").await;
    let slot = cluster.slot_of("sse:stream:{YWRh/lost}");
    let index = |part: u16| format!("sse:active:{{p{part:02}}}");
    let master = |part| cluster.owner_of(cluster.slot_of(&index(part)));
    for part in 0..16 {
        for member in [&b"YWRh/lost"[..], b"never", b"\xff", b""] {
            put_in(master(part), &index(part), "0", member);
        }
    }
    master(slot % 16).command(&["ZREM", &index(slot % 16), "YWRh/lost"]);
    store.beat(beat(&[(lost, epoch)])).await.unwrap();
    assert_eq!(store.due(100, Duration::ZERO, ALL).await.unwrap(), []);
    assert_eq!(store.active_count().await.unwrap(), 1);
    assert!(score(master(slot % 16), &index(slot % 16), b"YWRh/lost").is_some());
}

/// A place in an owner's index is reserved before the stream is opened. A request that gives up in between must not
/// shorten the time for which an existing stream is listed.
#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_request_that_is_dropped_leaves_its_owners_index_as_it_was() {
    use std::future::poll_fn;

    use resilient_sse::store::Open;

    let cluster = crate::support::redis::RedisCluster::start();
    let store = connect(&cluster.url()).await;
    let (chat, epoch) = begin(&store, "chat").await;
    finish(&store, close(&chat, epoch)).await;
    let index = "sse:user:{YWRh}:streams";
    let server = cluster.owner_of(cluster.slot_of(index));
    let before = score(server, index, b"chat").unwrap();
    // The first poll sends the first request, and nothing waits for it.
    let mut request = Box::pin(store.open(Open { limit: Some(3), ..crate::redis_store::steps::open("chat") }));
    let polled = poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    crate::redis_store::steps::until("the place is taken", async || score(server, index, b"chat").unwrap() >= ACTIVE)
        .await;
    drop(request);
    assert!(score(server, index, b"chat").unwrap() >= ACTIVE + before);
    store.open(Open { limit: Some(3), ..crate::redis_store::steps::open("chat") }).await.unwrap();
    assert!(score(server, index, b"chat").unwrap() < ACTIVE, "the next one sets it right");
}
