//! The data of earlier versions, as files that later versions must read.
//!
//! `tests/fixtures/redis/v2.json` holds the raw keys of streams in every state, and what was read of them when they were
//! written. To write the file of a new version of the format: `WRITE_REDIS_FIXTURE=v3 cargo test --all-features --test
//! stores write_a_fixture`. Files of earlier versions stay as they are.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use resilient_sse::{
    Ending, Origin, Owner, RecordKind, RedisStore, StreamId, StreamKey, StreamState, reason,
    store::{Appended, Close, Interrupt, Open, Opened, Publish, Published, ReadFrom, Store as _},
};
use serde_json::{Value, json};

use crate::{
    redis_store::steps::{
        LONG, append, begin, block, brief, close, connect, event, finish, held, key, last, open, open_as, page, put,
        read, reopen, send, stand_still, write,
    },
    support::redis::RedisServer,
};

/// The streams of a fixture. All but one are Ada's.
const STREAMS: [&str; 14] = [
    "active",
    "rerun",
    "interrupted",
    "completed",
    "failed",
    "cancelled",
    "orphaned",
    "expired",
    "published",
    "published-end",
    "deleted",
    "withdrawn",
    "forgotten",
    "nobodys",
];

fn file(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/redis/{version}.json"))
}

fn named(id: &str) -> StreamKey {
    let owner = if id == "nobodys" { Owner::ANONYMOUS } else { key(id).owner };
    StreamKey::new(owner, StreamId::new(id).unwrap())
}

async fn make_all(store: &RedisStore) {
    let metadata = vec![("title".to_owned(), "Hällo \"you\"".to_owned())];
    let request = Open { metadata, fingerprint: Some("print".to_owned()), started: true, ..open("active") };
    let epoch = open_as(store, request).await;
    write(store, &key("active"), epoch, 1, &["1", "2", "3"]).await;
    let mut batch = append(&key("active"), epoch, 4, &["4", "5"]);
    (batch.inner_id, batch.metadata) = (Some("own-5".to_owned()), vec![("more".to_owned(), String::new())]);
    assert_eq!(put(store, batch).await, Appended::Stored);
    write(store, &key("active"), epoch, 8, &["8 after a hole"]).await;

    for _ in 0..2 {
        let (key, epoch) = begin(store, "rerun").await;
        write(store, &key, epoch, 1, &["a", "b"]).await;
        let last = Interrupt { key, epoch, last: Some(3), if_deadline: None };
        store.interrupt(last).await.unwrap();
    }
    let (rerun, epoch) = begin(store, "rerun").await;
    write(store, &rerun, epoch, 1, &["c"]).await;

    let epoch = open_as(store, Open { reruns: false, origin: Origin::Generated, ..open("interrupted") }).await;
    write(store, &key("interrupted"), epoch, 1, &["a"]).await;
    stand_still(store, &key("interrupted"), epoch).await;

    let done = bytes::Bytes::from_static(b"event: done\ndata: {\"answer\":42}\n");
    let endings = [
        ("completed", Ending::with_event(StreamState::Completed, done)),
        ("failed", Ending::supplied(StreamState::Failed, reason::ERROR)),
        ("cancelled", Ending::supplied(StreamState::Cancelled, reason::STOPPED)),
        ("orphaned", Ending::supplied(StreamState::Orphaned, reason::NODE_LOST)),
        ("expired", Ending::supplied(StreamState::Expired, reason::LIFETIME)),
    ];
    for (id, ending) in endings {
        let (key, epoch) = begin(store, id).await;
        write(store, &key, epoch, 1, &["a", "b"]).await;
        let hook = (id == "completed").then_some(LONG);
        finish(store, Close { ending, last: Some(4), hook, ..close(&key, epoch) }).await;
    }

    for (data, idempotency_key) in [("a", Some("key-a")), ("b", None), ("c", Some("key-c"))] {
        let idempotency_key = idempotency_key.map(str::to_owned);
        send(store, Publish { idempotency_key, ..event("published", data) }).await;
    }
    send(store, event("published-end", "a")).await;
    let end = Publish { idempotency_key: Some("end".to_owned()), hook: Some(LONG), ..last("published-end", "the end") };
    assert!(matches!(store.publish(end).await.unwrap(), Published::Ended(_)));

    let (deleted, epoch) = begin(store, "deleted").await;
    write(store, &deleted, epoch, 1, &["a"]).await;
    store.delete(deleted).await.unwrap();
    let request = open("withdrawn");
    open_as(store, request.clone()).await;
    store.withdraw(request.key, request.token).await.unwrap();
    let request = open("forgotten");
    let epoch = open_as(store, request.clone()).await;
    store.withdraw(request.key.clone(), request.token).await.unwrap();
    store.reopen(reopen(request, epoch, 5)).await.unwrap();
    write(store, &key("forgotten"), epoch, 6, &["f"]).await;
    let epoch = open_as(store, Open { key: named("nobodys"), ..open("nobodys") }).await;
    write(store, &named("nobodys"), epoch, 1, &["n"]).await;
}

/// Returns the commands that restore a key.
fn dump(server: &RedisServer, key: &str) -> Vec<Vec<String>> {
    let start = |command: &str| vec![command.to_owned(), key.to_owned()];
    match &*server.ask::<String>(&["TYPE", key]) {
        "hash" => {
            let mut fields: Vec<_> = server.ask::<HashMap<String, String>>(&["HGETALL", key]).into_iter().collect();
            fields.sort();
            vec![fields.into_iter().fold(start("HSET"), |command, (name, field)| [command, vec![name, field]].concat())]
        }
        "zset" => {
            let members: Vec<(String, String)> = server.ask(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
            vec![
                members
                    .into_iter()
                    .fold(start("ZADD"), |command, (member, score)| [command, vec![score, member]].concat()),
            ]
        }
        "stream" => {
            let entries: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", key, "-", "+"]);
            entries.into_iter().map(|(id, fields)| [start("XADD"), vec![id], fields].concat()).collect()
        }
        other => panic!("{key} is a {other}"),
    }
}

/// Returns everything that is read of a stream, except what depends on the time of reading.
async fn reading(store: &RedisStore, id: &str) -> Value {
    let key = named(id);
    let Some(info) = store.info(key.clone()).await.unwrap() else {
        assert_eq!(read(store, &key, ReadFrom::Start).await, None);
        return Value::Null;
    };
    let page = page(store, &key, ReadFrom::Start).await;
    let record = |record: &resilient_sse::Record| {
        let holds = match &record.kind {
            RecordKind::Run { previous } => {
                format!("run after {}", previous.map(|id| id.to_string()).unwrap_or_default())
            }
            RecordKind::Events(_) => format!("event {}", brief(record)),
            RecordKind::End(ended) => format!("end after {}", ended.last),
        };
        json!([record.id.to_string(), record.at, holds])
    };
    let ended = info.ended.as_ref().map(|ended| {
        let event = ended.ending.event.as_deref().map(String::from_utf8_lossy);
        json!({
            "state": ended.ending.state.as_str(), "reason": ended.ending.reason, "event": event,
            "id": ended.id.to_string(), "last": ended.last.to_string(), "at": ended.at,
        })
    });
    json!({
        "kind": info.kind, "origin": info.origin.as_str(), "fingerprint": info.fingerprint,
        "state": info.state.as_str(), "epoch": info.epoch, "started": info.started, "reruns": info.reruns,
        "node": info.node.as_ref().map(resilient_sse::NodeId::as_str), "startedAt": info.started_at,
        "metadata": info.metadata, "innerId": info.inner_id, "top": info.top.to_string(), "ended": ended,
        "records": page.records.iter().map(record).collect::<Vec<_>>(),
    })
}

/// Writes a fixture if the environment asks for it; otherwise this is not a test.
#[tokio::test(flavor = "multi_thread")]
async fn write_a_fixture() {
    let Ok(version) = std::env::var("WRITE_REDIS_FIXTURE") else { return };
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    make_all(&store).await;
    let commands: Vec<_> = server.keys().iter().flat_map(|key| dump(&server, key)).collect();
    let mut streams = serde_json::Map::new();
    for id in STREAMS {
        streams.insert(id.to_owned(), reading(&store, id).await);
    }
    let time: Vec<String> = server.ask(&["TIME"]);
    let lines = |values: Vec<String>| values.join(",\n    ");
    let commands = lines(commands.iter().map(|command| json!(command).to_string()).collect());
    let streams = lines(streams.iter().map(|(id, stream)| format!("{}: {stream}", json!(id))).collect());
    let text = format!(
        "{{\n  \"written\": {},\n  \"commands\": [\n    {commands}\n  ],\n  \"streams\": {{\n    {streams}\n  }}\n}}\n",
        time[0]
    );
    std::fs::write(file(&version), text).unwrap();
}

/// Writes the keys of a fixture, as if no time had passed since.
fn restore(server: &RedisServer, fixture: &Value) {
    let written = fixture["written"].as_u64().unwrap();
    let now: Vec<String> = server.ask(&["TIME"]);
    let passed = (now[0].parse::<u64>().unwrap() - written) * 1000;
    for command in fixture["commands"].as_array().unwrap() {
        let mut words: Vec<String> =
            command.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        if words[0] == "ZADD" && !words[1].contains(":sent:") {
            // These scores are times. A shift by whole seconds keeps them odd or even, which may matter.
            for score in words[2..].iter_mut().step_by(2) {
                *score = (score.parse::<u64>().unwrap() + passed).to_string();
            }
        }
        server.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        server.command(&["PEXPIRE", &words[1], "3600000"]);
    }
}

async fn restored(version: &str) -> (RedisServer, RedisStore, Value) {
    let fixture: Value = serde_json::from_slice(&std::fs::read(file(version)).unwrap()).unwrap();
    let server = RedisServer::start();
    restore(&server, &fixture);
    let store = connect(&server.url()).await;
    (server, store, fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_is_read() {
    let (_server, store, fixture) = restored("v2").await;
    for id in STREAMS {
        assert_eq!(reading(&store, id).await, fixture["streams"][id], "{id}");
    }
    let listed = crate::redis_store::steps::list(&store, key("x").owner).await;
    let held = STREAMS.iter().filter(|id| **id != "nobodys" && !fixture["streams"][**id].is_null());
    assert_eq!(listed.len(), held.count());
    // Assert the main facts here, so that a reader need not decode the fixture.
    let brief = async |id| held_of(&store, id).await.join(" ");
    assert_eq!(brief("active").await, "r 1 2 3 4 5 8 after a hole");
    assert_eq!(brief("rerun").await, "r a b r a b r c");
    assert_eq!((brief("interrupted").await, brief("completed").await), ("r a".to_owned(), "r a b e".to_owned()));
    assert_eq!((brief("published").await, brief("forgotten").await), ("r a b c".to_owned(), "r f".to_owned()));
}

async fn held_of(store: &RedisStore, id: &str) -> Vec<String> {
    held(store, &named(id)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_goes_on() {
    let (_server, store, fixture) = restored("v2").await;
    let epoch = |id: &str| fixture["streams"][id]["epoch"].as_u64().unwrap();
    // Its producer is still there.
    write(&store, &key("active"), epoch("active"), 9, &["9"]).await;
    assert_eq!(store.open(open("active")).await.unwrap(), Opened::Active { started: true });
    let other = Open { fingerprint: Some("other".to_owned()), ..open("active") };
    assert_eq!(store.open(other).await.unwrap(), Opened::OtherFingerprint);
    assert_eq!(store.active_count().await.unwrap(), 5);
    // It is run again.
    let rerun = epoch("rerun");
    stand_still(&store, &key("rerun"), rerun).await;
    let Opened::New { epoch: again, previous, .. } = store.open(open("rerun")).await.unwrap() else {
        panic!("not run")
    };
    assert!(again > rerun);
    assert_eq!(previous, Some(resilient_sse::EventId::new(rerun, 1)));
    // Keys are still known.
    let again = Publish { idempotency_key: Some("key-a".to_owned()), ..event("published", "again") };
    assert_eq!(send(&store, again).await.seq, 1);
    assert_eq!(send(&store, event("published", "d")).await.seq, 4);
    let end = Publish {
        ends: Some(StreamState::Completed),
        idempotency_key: Some("end".to_owned()),
        ..event("published-end", "again")
    };
    assert!(
        matches!(store.publish(end).await.unwrap(), Published::Ended(ended) if ended.ending.event == Some(block("the end")))
    );
    // An ended stream stays ended, and a sweep hands out its hook.
    assert!(matches!(store.open(open("completed")).await.unwrap(), Opened::Ended(_)));
    for id in ["completed", "published-end"] {
        store.hook_done(key(id)).await.unwrap();
    }
    assert_eq!(store.due(100, Duration::ZERO, None).await.unwrap(), []);
    // Epochs rise above those of streams that are gone, too.
    begin(&store, "deleted").await;
    begin(&store, "withdrawn").await;
}

/// A stream from before streams stored their origin counts as named by a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_an_origin_was_named_by_a_request() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, _) = begin(&store, "old").await;
    server.command(&["HDEL", "sse:stream:{YWRh/old}", "origin", "fp"]);
    let info = store.info(key).await.unwrap().expect("held");
    assert_eq!((info.origin, info.fingerprint), (Origin::Named, None));
    let other = Open { kind: "other".into(), ..open("old") };
    assert_eq!(store.open(other).await.unwrap(), Opened::OtherKind { kind: "check".into() });
    assert_eq!(store.open(open("old")).await.unwrap(), Opened::Active { started: false });
}
