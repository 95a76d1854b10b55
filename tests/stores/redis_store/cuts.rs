//! Guarantees G7 and G8: keeping a log within its limits costs little, however large its events are.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use resilient_sse::{
    EventId, Frame, RedisStore, StreamKey,
    store::{Append, Appended, Closed, Open, Publish, ReadFrom, Retention, Store as _},
};

use crate::{
    redis_store::steps::{
        append, close, connect, delivered, event, events, finish, open, open_as, page, put, retention, send,
        stand_still, write,
    },
    support::redis::RedisServer,
};

const MAX_BYTES: usize = 8 << 20;

/// The default limits.
fn limits() -> Retention {
    Retention { max_events: 10_000, max_bytes: MAX_BYTES, ..retention() }
}

fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info(&format!("cmdstat_{command}")).unwrap_or_default();
    stats.split(',').find_map(|part| part.strip_prefix("calls=")?.parse().ok()).unwrap_or(0)
}

fn watch(server: &RedisServer) {
    server.command(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.command(&["CONFIG", "SET", "slowlog-max-len", "50000"]);
    server.command(&["SLOWLOG", "RESET"]);
    server.command(&["CONFIG", "RESETSTAT"]);
}

/// Returns how many scripts ran. Asserts that half of them took well under 4 ms; a busy machine interrupts some.
fn scripts(server: &RedisServer, what: &str) -> u64 {
    let all: Vec<(u64, u64, u64, Vec<String>, String, String)> = server.ask(&["SLOWLOG", "GET", "-1"]);
    let mut times: Vec<u64> = all.into_iter().filter(|one| one.3[0] == "EVALSHA").map(|one| one.2).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(0);
    println!("{what}: {} scripts, {median} us in the middle, at most {:?}", times.len(), times.last());
    assert!(median <= 4000, "{what}: {median} us");
    calls(server, "evalsha")
}

async fn bytes_held(store: &RedisStore, key: &StreamKey) -> usize {
    events(store, key).await.iter().map(|(id, data)| delivered(id.epoch, id.seq, data).len()).sum()
}

/// Makes a batch of events of this size.
fn batch(key: &StreamKey, epoch: u64, first: u64, size: usize, count: usize) -> Append {
    let event = |seq| {
        let around = delivered(epoch, seq, "").len();
        delivered(epoch, seq, &"x".repeat(size - around))
    };
    let bytes = (first..).take(count).map(event).collect::<String>();
    let events = Frame { count: count as u64, bytes: Bytes::from(bytes) };
    Append { events, ..append::<&str>(key, epoch, first, &[]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_log_is_cut_without_a_script() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for (size, count, per_entry) in [(1_000_000, 200, 1), (64_000, 2000, 1), (1000, 30_000, 60)] {
        let request = Open { retention: limits(), ..open(&format!("s{size}")) };
        let key = request.key.clone();
        let epoch = open_as(&store, request).await;
        watch(&server);
        for first in (1..=count).step_by(per_entry) {
            assert_eq!(put(&store, batch(&key, epoch, first, size, per_entry)).await, Appended::Stored);
        }
        let scripts = scripts(&server, &format!("{count} events of {size} B"));
        assert_eq!(scripts, 0, "a plain command writes and cuts");
        let held = bytes_held(&store, &key).await;
        assert!(held <= MAX_BYTES && held + MAX_BYTES / 16 + 2 * size.max(60_000) > MAX_BYTES, "{held} bytes");
        let page = page(&store, &key, ReadFrom::After(EventId::new(epoch, 1))).await;
        assert_eq!(page.records.last().unwrap().id.seq, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_what_is_sent_without_a_producer_is_cut_without_being_loaded() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for (size, count) in [(700_000, 60), (100_000, 300), (1000, 12_000)] {
        let id = format!("s{size}");
        let request =
            Publish { retention: limits(), ..event(&id, &"x".repeat(size - delivered(1 << 40, 1234, "").len())) };
        let key = request.key.clone();
        send(&store, request.clone()).await;
        watch(&server);
        for _ in 1..count {
            send(&store, request.clone()).await;
        }
        assert_eq!(scripts(&server, &format!("{count} sends of {size} B")), count - 1);
        assert_eq!((calls(&server, "xrange"), calls(&server, "xrevrange")), (0, 0), "no entry is loaded");
        let held = events(&store, &key).await;
        let bytes = held.len() * size;
        assert!(bytes <= MAX_BYTES && held.len() <= 10_000, "{bytes} bytes, {} events", held.len());
        let fewest = (MAX_BYTES - MAX_BYTES / 16).saturating_sub(size).min(size * 9_374);
        assert!(bytes >= fewest, "{bytes} bytes");
        let seqs: Vec<u64> = held.iter().map(|(id, _)| id.seq).collect();
        assert_eq!(seqs, (count + 1 - seqs.len() as u64..=count).collect::<Vec<_>>(), "the newest, without holes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_log_holds_no_more_than_it_may_and_hardly_less() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for (max_events, max_bytes) in
        [(100, 1 << 20), (10, 1 << 20), (1, 1 << 20), (10_000, 3000), (10_000, 120), (50, 1500)]
    {
        let id = format!("s-{max_events}-{max_bytes}");
        let limits = Retention { max_events, max_bytes, ..retention() };
        for seq in 1..=300_u64 {
            let data = format!("{seq}:{}", "x".repeat((seq * 37 % 50) as usize));
            send(&store, Publish { retention: limits, ..event(&id, &data) }).await;
            let held = events(&store, &crate::redis_store::steps::key(&id)).await;
            let bytes: usize = held.iter().map(|(id, data)| delivered(id.epoch, id.seq, data).len()).sum();
            assert!(
                held.len() <= max_events && (bytes <= max_bytes || held.len() == 1),
                "{bytes} bytes of {max_bytes}"
            );
            assert_eq!(held.last().unwrap().0.seq, seq);
            if held.len() < seq as usize {
                let is_full = held.len() + max_events / 16 + 1 >= max_events;
                assert!(
                    is_full || bytes + max_bytes / 16 + 2 * 90 >= max_bytes,
                    "{} events, {bytes} bytes",
                    held.len()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_whoever_takes_a_log_over_cuts_it_in_small_steps() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    for (size, per_entry) in [(1_000_000, 1), (64_000, 1), (1000, 60), (100, 1)] {
        let request = || Open { retention: limits(), ..open(&format!("s{size}")) };
        let key = request().key;
        let epoch = open_as(&one, request()).await;
        let count = (MAX_BYTES / size).min(10_100) as u64;
        for first in (1..=count).step_by(per_entry) {
            put(&one, batch(&key, epoch, first, size, per_entry)).await;
        }
        stand_still(&one, &key, epoch).await;
        let before = bytes_held(&one, &key).await;
        watch(&server);
        let epoch = open_as(&two, request()).await;
        let appends = if size == 100 { 1000 } else { (MAX_BYTES + MAX_BYTES / 4) / (per_entry * size) };
        for number in 0..appends {
            put(&two, batch(&key, epoch, (number * per_entry) as u64 + 1, size, per_entry)).await;
            if number % (appends / 10) == 0 {
                let held = bytes_held(&one, &key).await;
                assert!(held <= MAX_BYTES, "{held} bytes");
                assert!(held + MAX_BYTES / 8 + 2 * size.max(60_000) > before, "{held} bytes of {before}");
            }
        }
        scripts(&server, &format!("a takeover of {size} B events"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_batch_of_which_a_part_stands_in_the_log_is_not_stored() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let small = Retention { max_events: 32, ..retention() };
    let epoch = open_as(&store, Open { retention: small, ..open("s") }).await;
    let key = crate::redis_store::steps::key("s");
    let (log, id) = ("sse:events:{YWRh/s}", format!("{epoch}-4"));
    let fields = ["t", "0", "n", "5", "b", "32", "k", "2", "e", "\u{2}data: c\n\ndata: d\n\n"];
    server.command(&[&["XADD", log, "NOMKSTREAM", &id], &fields[..]].concat());
    assert_eq!(put(&store, append(&key, epoch, 1, &["a", "b", "c", "d"])).await, Appended::Refused);
}

/// A batch is stored whole or not at all, even if the server is full for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn g2_a_batch_is_all_or_nothing() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let small = Retention { max_events: 512, ..retention() };
    let epoch = open_as(&store, Open { retention: small, ..open("s") }).await;
    let key = crate::redis_store::steps::key("s");
    let is_over = AtomicBool::new(false);
    let flap = || {
        while !is_over.load(Ordering::Relaxed) {
            server.command(&["CONFIG", "SET", "maxmemory", "1"]);
            server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        }
    };
    let make = async {
        let mut next = 1;
        for _ in 0..400 {
            let data: Vec<_> = (next..next + 60).map(|seq: u64| seq.to_string()).collect();
            let stored = resilient_sse::Store::append(&store, vec![append(&key, epoch, next, &data)]).await;
            if stored.is_ok_and(|outcomes| outcomes == [Appended::Stored]) {
                next += 60;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        next - 1
    };
    let runtime = tokio::runtime::Handle::current();
    let made = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(flap);
            runtime.block_on(make)
        })
    });
    write(&store, &key, epoch, made + 1, &["last"]).await;
    let seqs: Vec<u64> = events(&store, &key).await.into_iter().map(|(id, _)| id.seq).collect();
    assert_eq!(seqs, (made + 2 - seqs.len() as u64..=made + 1).collect::<Vec<_>>(), "without holes");
}

/// Beginning and ending a run loads the newest event of the log once, however large, and frees the log in the
/// background.
#[tokio::test(flavor = "multi_thread")]
async fn g7_no_transition_takes_long_because_events_are_large() {
    const STREAMS: usize = 7;
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut all = Vec::new();
    for number in 0..STREAMS {
        let request = Open { retention: limits(), ..open(&format!("s{number}")) };
        let key = request.key.clone();
        let epoch = open_as(&store, request).await;
        for seq in 1..=4 {
            assert_eq!(put(&store, batch(&key, epoch, seq, 1_000_000, 1)).await, Appended::Stored);
        }
        all.push((key, epoch));
    }
    let is_quick = |what: &str, looks: u64| {
        scripts(&server, what);
        let looked = calls(&server, "xrevrange");
        assert!(looked <= looks * STREAMS as u64, "{what}: {looked} looks at the ends of {STREAMS} logs");
        watch(&server);
    };
    watch(&server);
    for (key, epoch) in &all {
        stand_still(&store, key, *epoch).await;
    }
    is_quick("interruptions", 1);
    for (number, (_, epoch)) in all.iter_mut().enumerate() {
        *epoch = open_as(&store, Open { retention: limits(), ..open(&format!("s{number}")) }).await;
    }
    // The seal and the event before it.
    is_quick("second runs", 2);
    for (key, epoch) in &all {
        assert_eq!(put(&store, batch(key, *epoch, 1, 1_000_000, 1)).await, Appended::Stored);
    }
    watch(&server);
    for (key, epoch) in &all[..4] {
        finish(&store, close(key, *epoch)).await;
    }
    is_quick("ends", 1);
    for (key, _) in &all {
        store.delete(key.clone()).await.unwrap();
    }
    is_quick("deletions", 1);
    assert_eq!(calls(&server, "del"), 0);
}

/// Ends that are sent together load the newest entry of each log, so one script takes many only if the entries are
/// small.
#[tokio::test(flavor = "multi_thread")]
async fn g7_many_ends_take_no_longer_because_events_are_large() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut closes = Vec::new();
    for number in 0..24 {
        let request = Open { retention: limits(), ..open(&format!("s{number}")) };
        let key = request.key.clone();
        let epoch = open_as(&store, request).await;
        let size = if number % 2 == 0 { 1_000_000 } else { 100 };
        assert_eq!(put(&store, batch(&key, epoch, 1, size, 1)).await, Appended::Stored);
        closes.push(close(&key, epoch));
    }
    watch(&server);
    let closed = store.close_all(closes).await.unwrap();
    assert!(closed.iter().all(|closed| matches!(closed, Some(Closed::Now { .. }))), "{closed:?}");
    let asked = scripts(&server, "many ends");
    assert!(asked >= 12, "{asked} scripts for twelve large entries");
}
