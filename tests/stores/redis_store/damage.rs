//! Damaged keys cause no panic and do not harm other streams.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{Connection, cmd};
use resilient_sse::{
    EventId, RecordKind, RedisStore, StreamKey, StreamState,
    store::{Appended, Close, Interrupt, List, Open, Publish, Read, ReadFrom, Store as _},
};

use crate::{
    redis_store::steps::{
        ALL, LONG, append, beat, begin, close, connect, delivered, event, events, held, info, interrupt, open, page,
        put, read, reopen, stand_still, wait, write,
    },
    support::redis::RedisServer,
};

/// The replacements for numbers, ids and texts.
const VALUES: [&[u8]; 18] = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e300",
    b"nan",
    b"inf",
    b"-inf",
    b"abc",
    b"5-5",
    b"18446744073709551615-18446744073709551615",
    b"\0\xff\xfe\r\n{}",
    b"active",
];

fn admin(server: &RedisServer) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn run(admin: &mut Connection, words: &[&[u8]]) {
    let mut command = cmd(str::from_utf8(words[0]).unwrap());
    command.arg(&words[1..]);
    // A server may refuse the damage; then there is none.
    let _ = command.exec(admin);
}

/// Replaces a key by one of another type.
fn replace(admin: &mut Connection, key: &str, by: &str) {
    let key = key.as_bytes();
    run(admin, &[b"DEL", key]);
    match by {
        "string" => run(admin, &[b"SET", key, b"\xff text"]),
        "list" => run(admin, &[b"RPUSH", key, b"a", b"b"]),
        "set" => run(admin, &[b"SADD", key, b"a", b"\xff"]),
        "zset" => run(admin, &[b"ZADD", key, b"-inf", b"", b"inf", b"\xff", b"7", b"YWRh/x/y"]),
        "hash" => run(admin, &[b"HSET", key, b"state", b"\xff", b"\xfe", b"x"]),
        "stream" => run(admin, &[b"XADD", key, b"5-5", b"\xff", b"", b"e", b""]),
        _ => {}
    }
    run(admin, &[b"PEXPIRE", key, b"600000"]);
}

/// Counts panics of any task, such as the one that listens.
fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    });
    &PANICS
}

/// Makes a stream with everything that a stream can have (two runs, batches, metadata), and another with idempotency
/// keys.
async fn full(store: &RedisStore, id: &str) -> u64 {
    let (key, epoch) = begin(store, id).await;
    write(store, &key, epoch, 1, &["a", "b", "c"]).await;
    stand_still(store, &key, epoch).await;
    let (_, epoch) = begin(store, id).await;
    let mut batch = append(&key, epoch, 1, &["d", "e"]);
    (batch.inner_id, batch.metadata) = (Some("own".to_owned()), vec![("k".to_owned(), "v".to_owned())]);
    assert_eq!(put(store, batch).await, Appended::Stored);
    epoch
}

/// Sends every request for a stream. The answers do not matter, but each request must be answered.
async fn everything(store: &RedisStore, id: &str, epoch: u64) {
    let key = crate::redis_store::steps::key(id);
    let all = async {
        let mut tail = store.tail(&key);
        wait(&mut tail).await;
        let cursors = [EventId::default(), EventId::new(epoch, 1), EventId::new(u64::MAX, u64::MAX)];
        let from = cursors.into_iter().map(ReadFrom::After).chain([ReadFrom::Start, ReadFrom::Newest]);
        for (from, max_bytes) in from.flat_map(|from| [(from, 1), (from, usize::MAX)]) {
            let _ = store.read(Read { key: key.clone(), from, max_events: 100, max_bytes }).await;
        }
        let _ = store.info(key.clone()).await;
        let _ = store.list(List { owner: key.owner.clone(), after: None, limit: 10 }).await;
        let _ = store.active_count().await;
        let _ = store.stale(Duration::ZERO, 1000).await;
        let _ = store.open(open(id)).await;
        let _ = store.open(Open { limit: Some(3), create: false, ..open(id) }).await;
        let mut batch = append(&key, epoch, 3, &["f"]);
        let _ = store.append(vec![batch.clone()]).await;
        batch.inner_id = Some("own".to_owned());
        let _ = store.append(vec![batch]).await;
        let _ = store.append(vec![append(&key, u64::MAX, 1, &["g"])]).await;
        let _ = store.beat(beat(&[(key.clone(), epoch)])).await;
        let sent = Publish { idempotency_key: Some("k".to_owned()), ..event(id, "x") };
        let _ = store.publish(sent.clone()).await;
        let _ = store.publish(Publish { ends: Some(StreamState::Failed), ..sent }).await;
        let _ = store.due(1000, Duration::from_millis(1), ALL).await;
        let _ = store.interrupt(Interrupt { last: Some(9), if_deadline: Some(7), ..interrupt(&key, epoch) }).await;
        let _ = store.interrupt(Interrupt { last: Some(9), ..interrupt(&key, epoch) }).await;
        let _ = store.withdraw(key.clone(), 1).await;
        let _ = store.reopen(reopen(open(id), epoch, 2)).await;
        let _ = store.close(Close { if_deadline: Some(7), ..close(&key, epoch) }).await;
        let _ = store.close(Close { hook: Some(Duration::ZERO), last: Some(9), ..close(&key, epoch) }).await;
        let _ = store.due(1000, Duration::from_millis(1), ALL).await;
        let _ = store.hook_done(key.clone()).await;
        let _ = store.info(key.clone()).await;
        let _ = store.delete(key.clone()).await;
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), all).await.is_ok(), "{id} keeps a request for ever");
}

/// An undamaged stream, and its next event.
struct Sound {
    key: StreamKey,
    epoch: u64,
    next: u64,
}

impl Sound {
    async fn goes_on(&mut self, store: &RedisStore, after: &str) {
        write(store, &self.key, self.epoch, self.next, &["x"]).await;
        self.next += 1;
        assert_eq!(events(store, &self.key).await.len() as u64, self.next - 1, "after {after}");
        let beaten = store.beat(beat(&[(self.key.clone(), self.epoch)])).await.unwrap();
        assert_eq!(beaten.lost, [0; 0], "after {after}");
        assert_eq!(info(store, &self.key).await.top.seq, self.next - 1, "after {after}");
    }
}

struct Damaged {
    server: RedisServer,
    store: RedisStore,
    admin: Connection,
    sound: Sound,
    cases: usize,
    only_ended: bool,
}

impl Damaged {
    async fn new() -> Self {
        count_panics();
        let server = RedisServer::start();
        let store = connect(&server.url()).await;
        let (key, epoch) = begin(&store, "sound").await;
        let admin = admin(&server);
        Self { server, store, admin, sound: Sound { key, epoch, next: 1 }, cases: 0, only_ended: false }
    }

    /// Damages a stream, and sends every request for it.
    async fn case(&mut self, what: &str, damage: impl FnOnce(&mut Connection, &str, u64)) {
        let id = format!("s{}", self.cases);
        self.cases += 1;
        let epoch = full(&self.store, &id).await;
        if self.only_ended || self.cases.is_multiple_of(2) {
            // Half of them after they have ended.
            let _ = self.store.close(close(&crate::redis_store::steps::key(&id), epoch)).await.unwrap();
        }
        damage(&mut self.admin, &format!("YWRh/{id}"), epoch);
        let panics = count_panics().load(Ordering::Relaxed);
        everything(&self.store, &id, epoch).await;
        assert_eq!(count_panics().load(Ordering::Relaxed), panics, "a task panicked after {what}");
        self.sound.goes_on(&self.store, what).await;
        assert_eq!(self.without_ttl(), [""; 0], "after {what}");
        for kind in ["stream", "events", "completion", "sent"] {
            run(&mut self.admin, &[b"DEL", format!("sse:{kind}:{{YWRh/{id}}}").as_bytes()]);
        }
    }

    /// Returns the keys without a TTL, asked over one connection.
    fn without_ttl(&mut self) -> Vec<String> {
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut self.admin).unwrap();
        let mut ask = redis::pipe();
        for key in &keys {
            ask.cmd("PTTL").arg(key);
        }
        let left: Vec<i64> = ask.query(&mut self.admin).unwrap();
        keys.into_iter().zip(left).filter(|(_, left)| *left == -1).map(|(key, _)| key).collect()
    }

    /// Afterwards the store is as good as new.
    async fn works(mut self) {
        let due = self.store.due(1000, LONG, ALL).await.unwrap();
        assert!(due.iter().all(|due| due.info.key != self.sound.key));
        assert!(
            crate::redis_store::steps::list(&self.store, self.sound.key.owner.clone())
                .await
                .iter()
                .any(|info| info.key == self.sound.key)
        );
        self.store.stale(Duration::ZERO, 1000).await.unwrap();
        self.sound.goes_on(&self.store, "all of it").await;
        full(&self.store, "new").await;
        assert_eq!(
            held(&self.store, &crate::redis_store::steps::key("new")).await,
            ["r", "a", "b", "c", "r", "d", "e"]
        );
    }
}

const TYPES: [&str; 7] = ["string", "list", "set", "zset", "hash", "stream", "nothing"];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_type_in_a_streams_place() {
    let mut damaged = Damaged::new().await;
    for key in ["stream", "events", "completion", "sent"] {
        for by in TYPES {
            for _ in 0..2 {
                let damage =
                    |admin: &mut Connection, name: &str, _: u64| replace(admin, &format!("sse:{key}:{{{name}}}"), by);
                damaged.case(&format!("a {by} for {key}"), damage).await;
            }
        }
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_in_the_fields_of_a_stream() {
    const FIELDS: [&str; 20] = [
        "v",
        "state",
        "epoch",
        "token",
        "node",
        "kind",
        "owner",
        "reruns",
        "started",
        "startedAt",
        "stale",
        "life",
        "window",
        "maxEvents",
        "maxBytes",
        "runEnd",
        "inner",
        "lost",
        "heard",
        "leased",
    ];
    let mut damaged = Damaged::new().await;
    for field in FIELDS {
        for value in VALUES {
            let damage = |admin: &mut Connection, name: &str, _: u64| {
                run(admin, &[b"HSET", format!("sse:stream:{{{name}}}").as_bytes(), field.as_bytes(), value]);
            };
            damaged.case(&format!("{field} = {}", value.escape_ascii()), damage).await;
        }
        let damage = |admin: &mut Connection, name: &str, _: u64| {
            run(admin, &[b"HDEL", format!("sse:stream:{{{name}}}").as_bytes(), field.as_bytes()]);
        };
        damaged.case(&format!("no {field}"), damage).await;
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_in_the_fields_of_a_completion() {
    const FIELDS: [&str; 9] =
        ["v", "state", "id", "last", "completedAt", "reason", "event", "terminalEventType", "onEnd"];
    let mut damaged = Damaged { only_ended: true, ..Damaged::new().await };
    for field in FIELDS {
        for value in VALUES.into_iter().map(Some).chain([None]) {
            let damage = |admin: &mut Connection, name: &str, _: u64| {
                let key = format!("sse:completion:{{{name}}}");
                match value {
                    Some(value) => run(admin, &[b"HSET", key.as_bytes(), field.as_bytes(), value]),
                    None => run(admin, &[b"HDEL", key.as_bytes(), field.as_bytes()]),
                }
                run(admin, &[b"PEXPIRE", key.as_bytes(), b"600000"]);
            };
            damaged.case(&format!("{field} of the completion"), damage).await;
        }
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_in_the_entries_of_a_log() {
    let mut damaged = Damaged::new().await;
    for field in ["t", "n", "b", "k", "e", "r", "s", "x", ""] {
        for value in VALUES {
            let damage = |admin: &mut Connection, name: &str, epoch: u64| {
                let id = format!("{epoch}-7");
                let log = format!("sse:events:{{{name}}}");
                let add: [&[u8]; 5] = [b"XADD", log.as_bytes(), id.as_bytes(), field.as_bytes(), value];
                run(admin, &add);
            };
            damaged.case(&format!("{field} = {} in the log", value.escape_ascii()), damage).await;
        }
    }
    for id in ["0-1", "1-18446744073709551615", "18446744073709551615-0", "18446744073709551615-18446744073709551615"] {
        for _ in 0..2 {
            let damage = |admin: &mut Connection, name: &str, _: u64| {
                let log = format!("sse:events:{{{name}}}");
                run(admin, &[b"DEL", log.as_bytes()]);
                run(admin, &[b"XADD", log.as_bytes(), id.as_bytes(), b"k", b"2", b"e", b"\x02a\n\nb\n\n"]);
                run(admin, &[b"PEXPIRE", log.as_bytes(), b"600000"]);
            };
            damaged.case(&format!("an entry {id}"), damage).await;
        }
    }
    // The entry claims more events than it can hold.
    for count in ["9000000000000000000", "100000000000", "3", "0", "-1", "x"] {
        let damage = |admin: &mut Connection, name: &str, _: u64| {
            let log = format!("sse:events:{{{name}}}");
            run(admin, &[b"DEL", log.as_bytes()]);
            let id = b"5-9000000000000000000";
            run(admin, &[b"XADD", log.as_bytes(), id, b"k", count.as_bytes(), b"e", b"\x02a"]);
            run(admin, &[b"PEXPIRE", log.as_bytes(), b"600000"]);
        };
        damaged.case(&format!("an entry of {count} events"), damage).await;
    }
    for seq in [u64::MAX - 1, u64::MAX] {
        let damage = |admin: &mut Connection, name: &str, epoch: u64| {
            let (log, id) = (format!("sse:events:{{{name}}}"), format!("{epoch}-{seq}"));
            run(admin, &[b"XADD", log.as_bytes(), id.as_bytes(), b"k", b"2", b"e", b"\x02a\n\nb\n\n"]);
        };
        damaged.case(&format!("an entry of seq {seq}"), damage).await;
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_any_type() {
    let mut damaged = Damaged::new().await;
    for index in ["sse:active", "sse:due", "sse:user:{YWRh}:streams", "sse:node:node-1:"] {
        for by in TYPES {
            // The name of a node's own key contains the name of its process.
            let names = damaged.server.keys();
            let index = names.iter().map(String::as_str).find(|name| name.starts_with(index)).unwrap_or(index);
            let (id, panics) = (format!("i{}", damaged.cases), count_panics().load(Ordering::Relaxed));
            damaged.cases += 1;
            let epoch = full(&damaged.store, &id).await;
            replace(&mut damaged.admin, index, by);
            everything(&damaged.store, &id, epoch).await;
            assert_eq!(count_panics().load(Ordering::Relaxed), panics, "a task panicked: {index} was a {by}");
            // A key that all streams share is damaged. Once it is removed by hand, everything works again.
            damaged.server.command(&["DEL", index]);
            damaged.sound.goes_on(&damaged.store, &format!("a {by} for {index}")).await;
            assert_eq!(damaged.without_ttl(), [""; 0], "after a {by} for {index}");
        }
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_any_size() {
    let mut damaged = Damaged::new().await;
    for index in ["sse:active", "sse:due", "sse:user:{YWRh}:streams"] {
        for score in ["-inf", "-1", "0", "0.5", "9007199254740993", "1e19", "1e300", "inf"] {
            let damage = |admin: &mut Connection, name: &str, _: u64| {
                let member = if index.contains("user") { name.trim_start_matches("YWRh/") } else { name };
                run(admin, &[b"ZADD", index.as_bytes(), score.as_bytes(), member.as_bytes()]);
                run(admin, &[b"PEXPIRE", index.as_bytes(), b"600000", b"NX"]);
            };
            damaged.case(&format!("{score} in {index}"), damage).await;
        }
    }
    damaged.works().await;
}

/// The same with random damage: several kinds at once, from a seed.
#[tokio::test(flavor = "multi_thread")]
async fn several_damages_at_once() {
    let mut damaged = Damaged::new().await;
    for seed in 1..=200_u64 {
        let mut state = seed;
        let mut next = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let damage = |admin: &mut Connection, name: &str, epoch: u64| {
            for _ in 0..1 + next(4) {
                let value = VALUES[next(VALUES.len())];
                let fields = ["state", "epoch", "stale", "life", "window", "maxEvents", "maxBytes", "runEnd", "node"];
                let field = fields[next(fields.len())].as_bytes();
                let (stream, completion) = (format!("sse:stream:{{{name}}}"), format!("sse:completion:{{{name}}}"));
                let (log, id) = (format!("sse:events:{{{name}}}"), format!("{epoch}-{}", 3 + next(9)));
                match next(6) {
                    0 | 1 => run(admin, &[b"HSET", stream.as_bytes(), field, value]),
                    2 => run(admin, &[b"HDEL", stream.as_bytes(), field]),
                    3 => run(admin, &[b"HSET", completion.as_bytes(), field, value]),
                    4 => run(
                        admin,
                        &[b"XADD", log.as_bytes(), id.as_bytes(), b"e", value, b"n", value, b"k", value, b"e", b"\x02"],
                    ),
                    _ => replace(admin, &[&stream, &log, &completion][next(3)].clone(), TYPES[next(TYPES.len())]),
                }
                for key in [&stream, &log, &completion] {
                    run(admin, &[b"PEXPIRE", key.as_bytes(), b"600000"]);
                }
            }
        };
        damaged.case(&format!("seed {seed}"), damage).await;
    }
    damaged.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_version_are_a_gap() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["1"]).await;
    let five = format!("\u{2}{}", delivered(epoch, 5, "5"));
    for (seq, events) in [(2, "\u{1}data: old\n"), (3, "\u{3}new"), (4, ""), (5, &five)] {
        let (log, id) = ("sse:events:{YWRh/chat}", format!("{epoch}-{seq}"));
        let mut add = cmd("XADD");
        add.arg(log).arg(id).arg("t").arg(0).arg("n").arg(seq).arg("b").arg(24).arg("e").arg(events);
        add.exec(&mut admin(&server)).unwrap();
    }
    write(&store, &key, epoch, 6, &["6"]).await;
    let seen: Vec<_> = events(&store, &key).await.into_iter().map(|(id, data)| (id.seq, data)).collect();
    assert_eq!(seen, [(1, "1".to_owned()), (5, "5".to_owned()), (6, "6".to_owned())]);
    let after = page(&store, &key, ReadFrom::After(EventId::new(epoch, 2))).await;
    assert!(after.known && after.top.seq == 6);
    assert!(after.records.iter().all(|record| matches!(record.kind, RecordKind::Events(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_another_version_is_not_touched() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["1"]).await;
    server.command(&["HSET", "sse:stream:{YWRh/chat}", "state", "paused"]);
    assert_eq!(store.info(key.clone()).await.unwrap(), None);
    assert_eq!(read(&store, &key, ReadFrom::Start).await, None);
    let opened = store.open(open("chat")).await.unwrap();
    assert_eq!(opened, resilient_sse::store::Opened::Missing, "not run a second time beside whoever knows what it is");
    assert_eq!(server.ask::<String>(&["HGET", "sse:stream:{YWRh/chat}", "state"]), "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_cursor_is_one_like_any_other() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["1"]).await;
    for cursor in [EventId::new(u64::MAX, u64::MAX), EventId::new(u64::MAX, 0), EventId::new(epoch, u64::MAX)] {
        let page = page(&store, &key, ReadFrom::After(cursor)).await;
        assert_eq!((page.records.len(), page.known), (0, cursor.epoch == epoch));
    }
}
