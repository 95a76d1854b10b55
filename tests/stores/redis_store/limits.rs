//! An owner's limit costs the same however many of its streams have ended.

use std::time::Duration;

use resilient_sse::store::{Open, Opened, Store as _};

use crate::{
    redis_store::steps::{connect, open, open_as},
    support::redis::RedisServer,
};

const INDEX: &str = "sse:user:{YWRh}:streams";

/// The longest time for which a script may block the server, in microseconds.
const LONGEST: u64 = 4000;

fn connection(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

/// Puts ended streams into Ada's index, with this time until or since their expiry.
fn fill(server: &RedisServer, prefix: &str, count: u64, expires_in: i64) {
    let (seconds, _): (i64, i64) = server.ask(&["TIME"]);
    let mut connection = connection(server);
    let all: Vec<u64> = (0..count).collect();
    for page in all.chunks(1000) {
        let mut add = redis::cmd("ZADD");
        add.arg(INDEX);
        for number in page {
            add.arg(seconds * 1000 + expires_in + *number as i64 % 1000).arg(format!("{prefix}{number}"));
        }
        add.exec(&mut connection).unwrap();
    }
    redis::cmd("PEXPIRE").arg(INDEX).arg(600_000).exec(&mut connection).unwrap();
}

/// Returns the times of the scripts since the last call, in microseconds: the median and the longest.
fn scripts(server: &RedisServer) -> (u64, u64) {
    let log: Vec<Vec<redis::Value>> = server.ask(&["SLOWLOG", "GET", "100000"]);
    server.command(&["SLOWLOG", "RESET"]);
    let took = |entry: &Vec<redis::Value>| {
        let command: Vec<String> = redis::from_redis_value(entry[3].clone()).ok()?;
        command[0].to_lowercase().starts_with("eval").then(|| redis::from_redis_value::<u64>(entry[2].clone()).unwrap())
    };
    let mut took: Vec<u64> = log.iter().filter_map(took).collect();
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() - 1])
}

/// Opens streams under a limit until it is reached, and is refused some times. Returns the times of the scripts.
async fn up_to_the_limit(server: &RedisServer, ended: u64) -> (u64, u64) {
    server.flushall();
    let store = connect(&server.url()).await;
    // From here on the server knows the script.
    open_as(&store, Open { limit: Some(1), ..open("first") }).await;
    fill(server, "ended", ended, 300_000);
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.command(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    server.command(&["SLOWLOG", "RESET"]);
    for number in 0..20 {
        open_as(&store, Open { limit: Some(21), ..open(&format!("s{number}")) }).await;
        assert_eq!(store.open(Open { limit: Some(2), ..open("more") }).await.unwrap(), Opened::OverLimit);
    }
    assert_eq!(store.open(Open { limit: Some(21), ..open("more") }).await.unwrap(), Opened::OverLimit);
    scripts(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_costs_the_same_with_ten_ended_streams_and_with_many() {
    let server = RedisServer::start();
    let mut medians = Vec::new();
    for ended in [10, 1000, 100_000] {
        let (median, longest) = up_to_the_limit(&server, ended).await;
        println!("{ended} ended streams: {median} µs, at most {longest} µs");
        assert!(longest < LONGEST, "{ended} ended streams: {longest} µs");
        medians.push(median);
    }
    // Linear in the number of streams, the time would be a thousand times as long.
    assert!(medians[2] < 10 * medians[0].max(50), "{medians:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_removed_in_portions() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    open_as(&store, open("first")).await;
    fill(&server, "expired", 100_000, -10_000);
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.command(&["SLOWLOG", "RESET"]);
    for number in 0..10 {
        let before: u64 = server.ask(&["ZCARD", INDEX]);
        open_as(&store, Open { limit: Some(100), ..open(&format!("s{number}")) }).await;
        let after: u64 = server.ask(&["ZCARD", INDEX]);
        assert!(after < before && before - after <= 100, "{before}, then {after}");
    }
    let (_, longest) = scripts(&server);
    assert!(longest < LONGEST, "{longest} µs");
}

/// Active streams whose node has died count only until they expire, and are then removed.
#[tokio::test(flavor = "multi_thread")]
async fn active_streams_that_have_expired_do_not_count() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    open_as(&store, Open { limit: Some(2), ..open("lives") }).await;
    let active = 1_i64 << 50;
    fill(&server, "ended", 3, 300_000);
    fill(&server, "dead", 150, active - 10_000);
    open_as(&store, Open { limit: Some(2), ..open("more") }).await;
    assert_eq!(store.open(Open { limit: Some(2), ..open("third") }).await.unwrap(), Opened::OverLimit);
    // A refusal removes nothing, the next stream does.
    open_as(&store, Open { limit: Some(3), ..open("third") }).await;
    assert_eq!(server.ask::<u64>(&["ZCARD", INDEX]), 6);
    assert_eq!(crate::redis_store::steps::list(&store, crate::redis_store::steps::key("lives").owner).await.len(), 3);
    let ttl = server.ask::<u64>(&["PTTL", INDEX]);
    assert!(
        Duration::from_millis(ttl) <= 4 * crate::redis_store::steps::LONG,
        "as long as its furthest member: {ttl} ms"
    );
}
