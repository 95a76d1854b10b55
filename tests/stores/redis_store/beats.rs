//! Beats and sweeps with broken servers and shared names.

use std::time::Duration;

use resilient_sse::{
    NodeId,
    store::{Close, Closed, Open, Retention, Store as _},
};

use crate::{
    redis_store::steps::{LONG, beat, close, connect, key, open, open_as, retention, until, write},
    support::redis::RedisServer,
};

/// Two processes have the same name: neither mistakes the other's key for a sign that the store lost its own.
#[tokio::test(flavor = "multi_thread")]
async fn g5_processes_of_one_name_do_not_disturb_each_other() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let runs = [one.beat(beat(&[])).await.unwrap().run, two.beat(beat(&[])).await.unwrap().run];
    for _ in 0..5 {
        assert_eq!(one.beat(beat(&[])).await.unwrap().run, runs[0]);
        assert_eq!(two.beat(beat(&[])).await.unwrap().run, runs[1]);
    }
    server.flushall();
    assert_ne!(one.beat(beat(&[])).await.unwrap().run, runs[0], "what was lost is noticed all the same");
}

/// A sweep finds a waiting hook even while the server is full, since leasing it takes no room.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_full_server_hands_out_hooks() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let window = Retention { recovery_window: Duration::from_secs(30), ..retention() };
    let epoch = open_as(&store, Open { retention: window, ..open("s") }).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    // The stream ends on a node that dies right after.
    let close = Close { hook: Some(Duration::from_millis(1)), ..close(&key("s"), epoch) };
    assert!(matches!(store.close(close).await.unwrap(), Closed::Now { .. }));
    until("the hook is due", async || !store.due(10, LONG, None).await.unwrap().is_empty()).await;
}

/// A server that refuses one command of a beat has not taken the beat: a node that learns this claims no streams there.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_server_that_refuses_what_beats_need_takes_no_beat() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for command in ["set", "zadd", "time"] {
        store.beat(beat(&[])).await.unwrap();
        server.command(&["ACL", "SETUSER", "default", &format!("-{command}")]);
        assert_eq!(store.beat(beat(&[])).await.unwrap_err().code(), Some("NOPERM"), "{command}");
        server.command(&["ACL", "SETUSER", "default", "+@all"]);
    }
}

/// An index may refuse a node's beats while the stream's own server takes its events: a node that writes is alive.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_stream_that_was_written_to_lately_is_not_stale() {
    let server = RedisServer::start();
    let (store, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let stale = Duration::from_millis(400);
    let epoch =
        open_as(&store, Open { retention: Retention { stale, ..retention() }, reruns: false, ..open("s") }).await;
    let node = NodeId::new("other");
    let vouched = async || {
        let streams = Vec::new();
        other
            .beat(resilient_sse::store::Beat { node: node.clone(), streams: streams.into(), stale, lifetime: LONG })
            .await
            .unwrap()
            .now
    };
    for seq in 1..=20 {
        write(&store, &key("s"), epoch, seq, &["x"]).await;
        tokio::time::sleep(stale / 10).await;
        let due = other.due(10, Duration::from_millis(1), Some(vouched().await)).await.unwrap();
        assert!(due.is_empty(), "after event {seq}: {due:?}");
    }
    // Once the node is silent, its stream is overdue.
    until("the stream is overdue", async || {
        !other.due(10, Duration::from_millis(1), Some(vouched().await)).await.unwrap().is_empty()
    })
    .await;
}
