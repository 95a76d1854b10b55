//! Every key has a TTL from its first write, and expires.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use resilient_sse::{
    NodeId, RedisStore, StreamState,
    store::{Beat, Close, Open, Publish, Retention, Store as _},
};

use crate::{
    redis_store::steps::{
        ALL, LONG, append, beat, begin, close, connect, event, finish, interrupt, key, last, open, open_as, reopen,
        retention, send, stand_still, until, write,
    },
    support::redis::{RedisCluster, RedisServer},
};

/// Reads each key's TTL repeatedly until it is stopped. Returns the number of reads, and the keys without a TTL.
fn watch(server: &RedisServer, stop: &AtomicBool) -> (usize, Vec<String>) {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (mut looked, mut without) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let mut cursor = 0_u64;
        loop {
            let scan = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(200).to_owned();
            let (next, keys): (u64, Vec<String>) = scan.query(&mut connection).unwrap();
            let mut ask = redis::pipe();
            for key in &keys {
                ask.cmd("PTTL").arg(key);
            }
            let left: Vec<i64> = if keys.is_empty() { Vec::new() } else { ask.query(&mut connection).unwrap() };
            looked += left.len();
            without.extend(keys.into_iter().zip(left).filter(|(_, left)| *left == -1).map(|(key, _)| key));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    (looked, without)
}

/// Runs the life of one stream. The number chooses which.
async fn live(store: RedisStore, number: u64, retention: Retention) {
    let id = format!("s{number}");
    let request = Open { retention, reruns: !number.is_multiple_of(3), ..open(&id) };
    let (key, token) = (request.key.clone(), request.token);
    let epoch = open_as(&store, request).await;
    let beat = Beat { stale: retention.stale, lifetime: retention.lifetime, ..beat(&[(key.clone(), epoch)]) };
    if number.is_multiple_of(7) {
        return store.withdraw(key, token).await.unwrap();
    }
    for first in 1..=4 {
        store.append(vec![append(&key, epoch, first, &["x"])]).await.unwrap();
        store.beat(beat.clone()).await.unwrap();
    }
    let mut late = append(&key, epoch, 5, &["x"]);
    late.inner_id = Some("own".to_owned());
    store.append(vec![late]).await.unwrap();
    match number % 5 {
        0 => {
            store.interrupt(interrupt(&key, epoch)).await.unwrap();
            let _ = store.open(Open { retention, ..open(&id) }).await.unwrap();
        }
        1 => drop(store.close(Close { hook: Some(Duration::from_millis(50)), ..close(&key, epoch) }).await.unwrap()),
        2 => store.delete(key).await.unwrap(),
        3 => {
            let key = Some(number.to_string());
            let sent = Publish { retention, idempotency_key: key, ..event(&format!("p{number}"), "x") };
            store.publish(sent.clone()).await.unwrap();
            store.publish(Publish { retention, ..last(&format!("p{number}"), "over") }).await.unwrap();
        }
        _ => {
            let id = format!("forgotten{number}");
            store.reopen(reopen(Open { retention, ..open(&id) }, epoch, 9)).await.unwrap();
        }
    }
    store.due(10, Duration::from_millis(50), ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_ever_without_one_and_all_go() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let retention = Retention {
        stale: Duration::from_millis(300),
        lifetime: Duration::from_millis(600),
        recovery_window: Duration::from_millis(300),
        max_events: 3,
        max_bytes: 1000,
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&server, &stop));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for round in 0..8 {
                    let lives =
                        (0..105).map(|number| tokio::spawn(live(store.clone(), round * 105 + number, retention)));
                    for life in lives.collect::<Vec<_>>() {
                        life.await.unwrap();
                    }
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
        let (looked, without) = watching.join().unwrap();
        assert!(looked > 1000, "only {looked} looks");
        assert_eq!(without, [""; 0]);
    });
    until("all keys go by themselves", async || server.dbsize() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_leaves_a_ttl_on_each_key() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let check = |after: &str| assert_eq!(server.keys_without_ttl(), [""; 0], "after {after}");
    let (key, epoch) = begin(&store, "a").await;
    check("an opening");
    write(&store, &key, epoch, 1, &["x"]).await;
    check("a plain append");
    let mut compared = append(&key, epoch, 1, &["x", "y"]);
    compared.metadata = vec![("k".to_owned(), "v".to_owned())];
    store.append(vec![compared]).await.unwrap();
    check("a compared append");
    store.beat(beat(&[(key.clone(), epoch)])).await.unwrap();
    check("a beat");
    stand_still(&store, &key, epoch).await;
    check("an interruption");
    let (_, epoch) = begin(&store, "a").await;
    check("a second run");
    finish(&store, Close { hook: Some(Duration::ZERO), ..close(&key, epoch) }).await;
    check("an end");
    assert_eq!(store.due(9, LONG, None).await.unwrap().len(), 1);
    check("a sweep");
    store.hook_done(key.clone()).await.unwrap();
    check("a hook");
    store.delete(key).await.unwrap();
    check("a deletion");

    let request = Open { reruns: false, ..open("b") };
    let (key, token) = (request.key.clone(), request.token);
    let epoch = open_as(&store, request.clone()).await;
    store.withdraw(key.clone(), token).await.unwrap();
    check("a withdrawal");
    store.reopen(reopen(request, epoch, 3)).await.unwrap();
    check("a registration anew");
    store.interrupt(interrupt(&key, epoch)).await.unwrap();
    check("an interruption that somebody must look after");

    send(&store, Publish { idempotency_key: Some("k".to_owned()), ..event("c", "x") }).await;
    check("a first event");
    send(&store, event("c", "y")).await;
    check("a second one");
    let node = NodeId::new("node-2");
    store.beat(Beat { node, ..beat(&[]) }).await.unwrap();
    check("a beat of nothing");
    let end = Publish { hook: Some(LONG), ..last("c", "z") };
    store.publish(end).await.unwrap();
    check("a published end");
}

/// The longest lifetime that anyone gives a stream counts: its own against that of the node's beats, and that of each
/// sender.
async fn keeps_the_longest_lifetime(store: RedisStore, ask: &(dyn Fn(&str) -> i64 + Sync)) {
    let short = Retention {
        stale: Duration::from_secs(2),
        lifetime: Duration::from_secs(3),
        recovery_window: Duration::from_secs(1),
        ..retention()
    };
    let long = Retention { lifetime: Duration::from_secs(60), ..short };
    let opened = Open { retention: long, ..open("opened") };
    let opened = (opened.key.clone(), open_as(&store, opened).await);
    for _ in 0..20 {
        // Each stream is renewed in one of a few rounds.
        store
            .beat(Beat { stale: short.stale, lifetime: short.lifetime, ..beat(std::slice::from_ref(&opened)) })
            .await
            .unwrap();
    }
    for (name, retentions) in [("fell", [long, short]), ("rose", [short, long])] {
        for retention in retentions {
            send(&store, Publish { retention, ..event(name, "x") }).await;
        }
        send(&store, Publish { retention: short, ..event(name, "x") }).await;
    }
    for name in ["opened", "fell", "rose"] {
        for kind in ["stream", "events"] {
            let left = ask(&format!("sse:{kind}:{{YWRh/{name}}}"));
            assert!(left > 50_000, "{kind} of {name} has {left} ms left");
        }
        let info = store.info(key(name)).await.unwrap().unwrap();
        assert_eq!(info.state, StreamState::Active, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_longest_lifetime_that_it_was_given() {
    let server = RedisServer::start();
    keeps_the_longest_lifetime(connect(&server.url()).await, &|key| server.ask(&["PTTL", key])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_the_longest_lifetime_that_it_was_given_in_a_cluster() {
    let cluster = RedisCluster::start();
    let ask = |key: &str| cluster.owner_of(cluster.slot_of(key)).ask(&["PTTL", key]);
    keeps_the_longest_lifetime(connect(&cluster.url()).await, &ask).await;
}
