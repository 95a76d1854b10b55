//! The commands of a stream's plain life in Redis, which every request pays for.

use std::{collections::BTreeMap, time::Duration};

use resilient_sse::{
    Ending, StreamState,
    store::{Close, Open, ReadFrom, Retention},
};

use crate::{
    redis_store::steps::{close, connect, finish, info, key, open, open_as, read, retention, until, write},
    support::redis::RedisServer,
};

const INDEX: &str = "sse:user:{YWRh}:streams";

/// Returns how often each command has run, including those within scripts.
fn calls(server: &RedisServer) -> BTreeMap<String, u64> {
    let stats: String = server.ask(&["INFO", "commandstats"]);
    let call = |line: &str| {
        let (name, told) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        Some((name.to_owned(), told.split(',').find_map(|field| field.strip_prefix("calls=")?.parse().ok())?))
    };
    stats.lines().filter_map(call).collect()
}

/// Returns the commands that ran meanwhile, without those that ask the server for these counts or keep connections
/// alive.
fn between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after.iter().map(|(name, calls)| (name.clone(), calls - before.get(name).copied().unwrap_or(0)));
    more.filter(|(name, calls)| *calls > 0 && !["info", "ping"].contains(&&**name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_life_is_three_requests_and_few_commands() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    // From here on the scripts are known and the indexes exist.
    for id in ["first", "second"] {
        let epoch = open_as(&store, open(id)).await;
        if id == "first" {
            finish(&store, Close { last: Some(0), ..close(&key(id), epoch) }).await;
        }
    }
    let before = calls(&server);
    let epoch = open_as(&store, open("chat")).await;
    write(&store, &key("chat"), epoch, 1, &["a", "b"]).await;
    let ended = finish(&store, Close { last: Some(2), ..close(&key("chat"), epoch) }).await;
    assert_eq!((ended.last.seq, ended.id.epoch), (2, epoch + 1));
    let mut made = between(&before, &calls(&server));
    assert_eq!(
        (made.remove("evalsha"), made.remove("xadd")),
        (Some(2), Some(3)),
        "the batch, a marker and a seal: {made:?}"
    );
    assert_eq!(made.get("xrevrange"), None, "no entry of the log is loaded");
    let within: u64 = made.values().sum();
    assert!(within <= 25, "{within} commands within the scripts: {made:?}");
}

/// A producer's account of its log is used only if it is complete. Otherwise the log is read.
#[tokio::test(flavor = "multi_thread")]
async fn g1_an_end_says_the_last_event_whoever_knows_it() {
    let server = RedisServer::start();
    let (store, other) = (connect(&server.url()).await, connect(&server.url()).await);
    for (id, last, closer, expected) in
        [("made", Some(5), &store, 5), ("unsaid", None, &store, 2), ("elsewhere", Some(2), &other, 2)]
    {
        let epoch = open_as(&store, open(id)).await;
        write(&store, &key(id), epoch, 1, &["a", "b"]).await;
        let told = finish(closer, Close { last, ..close(&key(id), epoch) }).await;
        assert_eq!(told.last.seq, expected, "{id}");
        let stored = info(&other, &key(id)).await.ended.unwrap();
        assert_eq!(stored, told, "{id}: what the closer is told is what is stored");
        let seal: Vec<(String, Vec<String>)> =
            server.ask(&["XREVRANGE", &format!("sse:events:{{YWRh/{id}}}"), "+", "-", "COUNT", "1"]);
        let field = |name: &str| seal[0].1.iter().skip_while(|field| *field != name).nth(1).cloned();
        assert_eq!(field("n").as_deref(), Some("3"), "{id}: the marker and two events");
    }
}

/// Whatever value stood in the place of an end, no part of it is read as part of the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_takes_the_place_of_what_was_left_there() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let left: [&[&str]; 3] = [
        &["HSET", "sse:completion:{YWRh/chat}", "v", "1", "state", "failed", "reason", "old", "event", "\u{1}old"],
        &["SET", "sse:completion:{YWRh/chat}", "x"],
        &["RPUSH", "sse:completion:{YWRh/chat}", "x"],
    ];
    for left in left {
        server.flushall();
        let epoch = open_as(&store, open("chat")).await;
        write(&store, &key("chat"), epoch, 1, &["a"]).await;
        server.command(left);
        let ending = Ending { state: StreamState::Completed, reason: None, event: None };
        let ended = finish(&store, Close { last: Some(1), ending, ..close(&key("chat"), epoch) }).await;
        assert_eq!((&ended.ending.reason, &ended.ending.event), (&None, &None));
        assert_eq!(info(&store, &key("chat")).await.ended.unwrap(), ended);
        assert_eq!(server.keys_without_ttl(), [""; 0]);
    }
}

/// An owner's index lives as long as its active streams may. Once none is left, it lives as long as the ended streams
/// are kept.
#[tokio::test(flavor = "multi_thread")]
async fn g6_an_owners_index_goes_with_its_last_stream() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let retention = retention();
    let short = Duration::from_millis(400);
    let window = Retention { recovery_window: short, ..retention };
    let ttl = || server.ask::<i64>(&["PTTL", INDEX]);
    let lives = i64::try_from(retention.lifetime.as_millis()).unwrap();
    let mut epochs = Vec::new();
    for id in ["a", "b"] {
        epochs.push(open_as(&store, Open { retention: window, ..open(id) }).await);
        assert!(ttl() >= lives, "{} ms for an active one", ttl());
    }
    finish(&store, Close { last: Some(0), ..close(&key("a"), epochs[0]) }).await;
    assert!(ttl() >= lives, "{} ms: one is active", ttl());
    finish(&store, Close { last: Some(0), ..close(&key("b"), epochs[1]) }).await;
    assert!(ttl() <= 400, "{} ms, and none is active", ttl());
    until("all goes", async || server.dbsize() == 0).await;
    assert!(read(&store, &key("a"), ReadFrom::Start).await.is_none());
}
