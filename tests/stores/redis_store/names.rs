//! The names and types of keys, which other programs read.

use std::{collections::HashMap, time::Duration};

use resilient_sse::{
    Ending, Owner, RedisStore, StreamId, StreamKey, StreamState,
    store::{Close, Opened, Store as _},
};

use crate::{
    redis_store::steps::{
        LONG, begin, block, close, connect, delivered, event, finish, held, open, open_as, send, write,
    },
    support::redis::RedisServer,
};

type Fields = HashMap<String, String>;

fn kind(server: &RedisServer, key: &str) -> String {
    server.ask(&["TYPE", key])
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_named_as_documented() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let metadata = vec![("title".to_owned(), "Hello".to_owned())];
    let epoch = open_as(&store, resilient_sse::store::Open { metadata, ..open("chat") }).await;
    let (key, _) = (crate::redis_store::steps::key("chat"), epoch);
    write(&store, &key, epoch, 1, &["a", "b"]).await;
    assert_eq!(
        server.keys(),
        ["sse:active", "sse:events:{YWRh/chat}", "sse:stream:{YWRh/chat}", "sse:user:{YWRh}:streams"]
    );
    let hash: Fields = server.ask(&["HGETALL", "sse:stream:{YWRh/chat}"]);
    let say = |name: &str| hash[name].clone();
    assert_eq!([say("kind"), say("owner"), say("node"), say("state")], ["check", "ada", "node-1", "active"]);
    assert_eq!((say("epoch"), say("m:title"), say("v")), (epoch.to_string(), "Hello".to_owned(), "1".to_owned()));
    let started: u64 = say("startedAt").parse().unwrap();
    assert!(started <= epoch && epoch - started < 1000 && !say("token").is_empty());

    let log: Vec<(String, Vec<String>)> = server.ask(&["XRANGE", "sse:events:{YWRh/chat}", "-", "+"]);
    assert_eq!(log.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [format!("{epoch}-0"), format!("{epoch}-2")]);
    let entry: Fields = log[1].1.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let events = format!("\u{2}{}{}", delivered(epoch, 1, "a"), delivered(epoch, 2, "b"));
    assert_eq!((&entry["e"], &*entry["k"]), (&events, "2"), "a version byte, and what goes over the wire");

    let deadline: f64 = server.ask(&["ZSCORE", "sse:active", "YWRh/chat"]);
    assert_eq!(deadline, (started + LONG.as_millis() as u64) as f64);
    let expiry: f64 = server.ask(&["ZSCORE", "sse:user:{YWRh}:streams", "chat"]);
    assert!(expiry > deadline);
    assert_eq!(kind(&server, "sse:stream:{YWRh/chat}"), "hash");
    assert_eq!(kind(&server, "sse:events:{YWRh/chat}"), "stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_a_hash_of_its_own() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    let event = bytes::Bytes::from_static(b"event: done\ndata: {\"answer\":42}\n");
    let ending = Ending::with_event(StreamState::Completed, event);
    let ended = finish(&store, Close { ending, hook: Some(LONG), ..close(&key, epoch) }).await;
    let name = "sse:completion:{YWRh/chat}";
    let completion: Fields = server.ask(&["HGETALL", name]);
    assert_eq!(completion["terminalEventType"], "done");
    assert_eq!(completion["terminalEventData"], r#"{"answer":42}"#);
    assert_eq!(completion["completedAt"], ended.at.to_string());
    assert_eq!((&*completion["state"], &*completion["onEnd"]), ("completed", "due"));
    assert_eq!(server.ask::<Fields>(&["HGETALL", "sse:stream:{YWRh/chat}"])["state"], "completed");
    assert_eq!(server.ask::<Option<f64>>(&["ZSCORE", "sse:active", "YWRh/chat"]), None);
    store.hook_done(key).await.unwrap();
    assert_eq!(server.ask::<String>(&["HGET", name, "onEnd"]), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_encoded_and_nobody_has_a_name_of_his_own() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for owner in [Owner::ANONYMOUS, Owner::new("a/b}\u{e9}").unwrap()] {
        let key = StreamKey::new(owner, StreamId::new("x").unwrap());
        open_as(&store, resilient_sse::store::Open { key, ..open("x") }).await;
    }
    let keys = server.keys();
    for name in ["sse:stream:{x}", "sse:user:{}:streams", "sse:stream:{YS9ifcOp/x}", "sse:user:{YS9ifcOp}:streams"] {
        assert!(keys.iter().any(|key| key == name), "{name} is none of {keys:?}");
    }
}

#[cfg(feature = "redis-cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_indexes_are_parted() {
    let cluster = crate::support::redis::RedisCluster::start();
    let store = connect(&cluster.url()).await;
    for id in ["one", "two", "three"] {
        let (key, epoch) = begin(&store, id).await;
        write(&store, &key, epoch, 1, &["a"]).await;
        let slot = cluster.slot_of(&format!("sse:stream:{{YWRh/{id}}}"));
        assert_eq!(cluster.slot_of(&format!("sse:events:{{YWRh/{id}}}")), slot);
        assert_eq!(cluster.slot_of(&format!("sse:completion:{{YWRh/{id}}}")), slot);
        let part = format!("sse:active:{{p{:02}}}", slot % 16);
        let master = cluster.owner_of(cluster.slot_of(&part));
        assert!(master.ask::<Option<f64>>(&["ZSCORE", &part, &format!("YWRh/{id}")]).is_some(), "{id} in {part}");
    }
    assert_eq!(store.active_count().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_part_services_on_one_server() {
    let server = RedisServer::start();
    let with =
        async |prefix: &str| RedisStore::builder(&server.url()).unwrap().key_prefix(prefix).connect().await.unwrap();
    let (one, two) = (with("one:").await, with("two:").await);
    let (key, epoch) = begin(&one, "chat").await;
    write(&one, &key, epoch, 1, &["one"]).await;
    assert_eq!(two.info(key.clone()).await.unwrap(), None);
    let (_, other) = begin(&two, "chat").await;
    write(&two, &key, other, 1, &["two"]).await;
    send(&two, event("sent", "x")).await;
    assert_eq!(
        (held(&one, &key).await, held(&two, &key).await),
        (vec!["r".into(), "one".into()], vec!["r".into(), "two".into()])
    );
    assert_eq!((one.active_count().await.unwrap(), two.active_count().await.unwrap()), (1, 2));
    assert_eq!(crate::redis_store::steps::list(&one, key.owner.clone()).await.len(), 1);
    assert_eq!(two.due(9, Duration::ZERO, crate::redis_store::steps::ALL).await.unwrap(), []);
    two.delete(key.clone()).await.unwrap();
    assert_eq!(held(&one, &key).await, ["r", "one"]);
    assert!(server.keys().iter().all(|key| key.starts_with("one:") || key.starts_with("two:")));
    let braces = RedisStore::builder(&server.url()).unwrap().key_prefix("{x}").connect().await.unwrap_err();
    assert_eq!(braces.to_string(), "`key_prefix` must have no braces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_chosen_by_its_number() {
    let server = RedisServer::start();
    let (three, zero) = (connect(&format!("{}/3", server.url())).await, connect(&server.url()).await);
    let (key, epoch) = begin(&three, "chat").await;
    finish(&three, Close { ending: Ending::with_event(StreamState::Completed, block("x")), ..close(&key, epoch) })
        .await;
    assert_eq!((server.dbsize(), zero.info(key.clone()).await.unwrap()), (0, None));
    assert!(matches!(three.open(open("chat")).await.unwrap(), Opened::Ended(_)));
}
