//! Nodes that die.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use crate::{
    QUICK,
    client::{Client, Visit},
    figure, node, sum,
    support::{
        example::{PATIENCE, eventually},
        redis::RedisServer,
    },
    trusting,
};

/// The stale threshold and sweep of [`QUICK`], plus the delay of a busy machine: a guardian whose own beats are late
/// must build up trust again.
const FOUND_WITHIN: Duration = Duration::from_secs(2 + 4);

/// How many events a stream's log holds.
fn logged(redis: &RedisServer, id: &str) -> u64 {
    let log: Vec<(String, Vec<Value>)> = redis.ask(&["XRANGE", &format!("sse:events:{{{id}}}"), "-", "+"]);
    let field = |fields: &[Value], name: &str| {
        let is_it = |pair: &&[Value]| matches!(&pair[0], Value::BulkString(bytes) if bytes == name.as_bytes());
        let Value::BulkString(bytes) = &fields.chunks(2).find(is_it)?[1] else { return None };
        Some(bytes.clone())
    };
    let events = |fields: &[Value]| {
        field(fields, "e")?;
        Some(field(fields, "k").map_or(1, |count| String::from_utf8(count).unwrap().parse().unwrap()))
    };
    log.iter().filter_map(|(_, fields)| events(fields)).sum::<u64>()
}

/// G5, G3: the clients of a killed node get the recorded events from another node, then `orphaned`, in time. One
/// guardian of two closes each stream.
#[tokio::test(flavor = "multi_thread")]
async fn g5_the_streams_of_a_killed_node_are_orphaned_once() {
    for durability in ["buffered", "before-send"] {
        let redis = RedisServer::start();
        let options = [&QUICK[..], &["--durability", durability]].concat();
        let [a, b, c] = [(); 3].map(|()| node(&redis.url(), &options));
        trusting(&b).await;
        trusting(&c).await;
        let paths: Vec<_> = (0..20).map(|n| format!("/api/stream/s{n}?n=100000&rate=200")).collect();
        let mut readers = Vec::new();
        let mut followers = Vec::new();
        for (n, path) in paths.iter().enumerate() {
            let (mut reader, a) = (Client::of(path), a.address);
            assert_eq!(reader.visit(a, 10).await, Visit::Cut);
            // Every other client stays until its node dies. Every other stream is followed on another node meanwhile.
            readers.push(tokio::spawn(async move {
                if n % 2 == 0 {
                    assert_eq!(reader.visit(a, usize::MAX).await, Visit::Broken);
                }
                reader
            }));
            if n % 4 < 2 {
                let (mut follower, b) = (Client::of(path), b.address);
                followers.push(tokio::spawn(async move {
                    assert_eq!(follower.visit(b, usize::MAX).await, Visit::Over, "it stays connected");
                    (n, follower)
                }));
            }
        }
        eventually(async || (figure(&b, "followers").await == followers.len() as u64).then_some(())).await;
        let killed = Instant::now();
        a.kill();

        let recorded = |n: usize| logged(&redis, &format!("s{n}"));
        let mut latest = Duration::ZERO;
        for follower in followers {
            let (n, follower) = follower.await.unwrap();
            follower.has_all(recorded(n), "orphaned");
            let (end, at) = follower.seen.last().unwrap();
            assert_eq!(end.data, r#"{"reason":"node_lost"}"#);
            latest = latest.max(*at - killed);
        }
        eprintln!("{durability}: followers were told within {latest:?}");
        assert!(latest < FOUND_WITHIN, "{latest:?}");
        eventually(async || (sum(&[&b, &c], "orphaned").await == 20).then_some(())).await;

        for (n, reader) in readers.into_iter().enumerate() {
            let mut reader = reader.await.unwrap();
            let had = reader.numbers().len() as u64;
            // A `Buffered` client may have been ahead of the store: it lacks nothing, so it is told of no gap.
            assert!(durability == "buffered" || had <= recorded(n), "{had} of {}", recorded(n));
            assert!(had <= recorded(n) + 1024, "{had} of {}", recorded(n));
            reader.follow(&[if n % 2 == 0 { b.address } else { c.address }], usize::MAX).await;
            reader.has_all(had.max(recorded(n)), "orphaned");
        }
        let [b_closed, c_closed] = [figure(&b, "orphaned").await, figure(&c, "orphaned").await];
        eprintln!("{durability}: {b_closed} and {c_closed} closed");
        assert_eq!(b_closed + c_closed, 20, "each by one guardian");
    }
}

/// G5: a feed of a killed node is not over. Its followers are let go, and the next request runs it again.
#[tokio::test(flavor = "multi_thread")]
async fn g5_the_feeds_of_a_killed_node_run_again() {
    let redis = RedisServer::start();
    let options = [&QUICK[..], &["--on-disconnect", "interrupt"]].concat();
    let [a, b, c] = [(); 3].map(|()| node(&redis.url(), &options));
    trusting(&b).await;
    trusting(&c).await;
    let path = "/api/stream/feed?n=300&rate=100";
    let mut reader = Client::of(path);
    let mut follower = Client::of(path);
    let (first, second) = (a.address, b.address);
    // The work of an `Interrupt` route ends with its client, so the client stays until the node is gone.
    let reading = tokio::spawn(async move {
        assert_eq!(reader.visit(first, usize::MAX).await, Visit::Broken);
        reader
    });
    b.until_status("feed", "active").await;
    let following = tokio::spawn(async move {
        assert_eq!(follower.visit(second, usize::MAX).await, Visit::Broken, "it is not over");
        follower
    });
    eventually(async || (figure(&b, "followers").await == 1 && logged(&redis, "feed") > 20).then_some(())).await;
    a.kill();
    let mut reader = reading.await.unwrap();
    let mut follower = following.await.unwrap();
    assert!(!follower.has_ended(), "{:?}", follower.seen.last());
    let recorded = logged(&redis, "feed");
    assert_eq!(follower.numbers(), Vec::from_iter(0..recorded));
    b.until_status("feed", "interrupted").await;

    // The first client runs the feed again, the other one follows.
    let before = reader.numbers().len() as u64;
    let (to_b, to_c) = ([b.address], [c.address]);
    tokio::join!(reader.follow(&to_b, usize::MAX), follower.follow(&to_c, usize::MAX));
    for client in [&reader, &follower] {
        client.check();
        assert_eq!((client.ending(), client.restarts()), ("completed", 1));
        assert_eq!(client.numbers()[client.numbers().len() - 300..], Vec::from_iter(0..300));
    }
    assert!(before.saturating_sub(64) <= recorded, "{before} of {recorded}");
    assert_eq!((sum(&[&b, &c], "orphaned").await, sum(&[&b, &c], "started").await), (0, 1));
}

/// G3: a late client gets the end, although the node died right after it.
#[tokio::test(flavor = "multi_thread")]
async fn g3_the_end_outlives_its_node() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| node(&redis.url(), &QUICK));
    let path = "/api/stream/done?n=50&rate=0";
    let mut first = Client::of(path);
    assert_eq!(first.visit(a.address, usize::MAX).await, Visit::Over);
    a.kill();
    let mut late = Client::of(path);
    assert_eq!(late.visit(b.address, usize::MAX).await, Visit::Over);
    assert_eq!(
        late.seen.iter().map(|(seen, _)| seen).collect::<Vec<_>>(),
        first.seen.iter().map(|(seen, _)| seen).collect::<Vec<_>>()
    );
    late.has_all(50, "completed");
    let (_, told) = b.json("/api/stream/done/recover").await;
    assert_eq!((&told["status"], &told["terminalEventData"]["tokens"]), (&"completed".into(), &50.into()));
    assert_eq!(figure(&b, "orphaned").await, 0);
}

/// G5: a node that drains leaves no orphan. Streams that may run again are interrupted, clients of all others get an
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_node_that_goes_down_in_order_leaves_no_orphan() {
    let redis = RedisServer::start();
    let options = [&QUICK[..], &["--drain", "0.5"]].concat();
    let [a, b] = [(); 2].map(|()| node(&redis.url(), &options));
    let path = "/api/stream/long?n=100000&rate=100";
    let mut client = Client::of(path);
    client.visit(a.address, 20).await;
    let mut follower = Client::of(path);
    let to_b = [b.address];
    a.signal("TERM");
    let gone = async {
        let status = tokio::time::timeout(PATIENCE, a.exit()).await.expect("it goes down in time");
        assert!(status.success());
    };
    tokio::join!(client.follow(&to_b, usize::MAX), follower.follow(&to_b, usize::MAX), gone);
    for client in [&client, &follower] {
        client.check();
        assert_eq!((client.gaps(), client.ending()), (0, "failed"));
        assert_eq!(client.end().unwrap().data, r#"{"reason":"shutdown"}"#);
    }
    assert_eq!(client.numbers(), follower.numbers());
    assert_eq!(figure(&b, "orphaned").await, 0);
}
