//! The store loses a running producer's data: the producer registers again, and readers are told of the loss.

use resilient_sse::{
    EventId, RedisStore, StreamKey,
    store::{Appended, Closed, ReadFrom, Reopened, Store as _},
};

use crate::{
    redis_store::steps::{
        append, beat, begin, brief, close, connect, finish, info, open, open_as, page, put, reopen, stand_still, until,
        write,
    },
    support::redis::RedisServer,
};

const STREAM: &str = "sse:stream:{YWRh/chat}";
const LOG: &str = "sse:events:{YWRh/chat}";

/// A stream of three events, and its registration.
async fn three(store: &RedisStore) -> (StreamKey, u64) {
    let (key, epoch) = begin(store, "chat").await;
    write(store, &key, epoch, 1, &["1", "2", "3"]).await;
    (key, epoch)
}

/// The producer, which had three events acknowledged, comes back; a reader who had two learns what became of the third.
async fn comes_back(store: &RedisStore, key: &StreamKey, epoch: u64, next: u64) {
    // A producer reacts to any answer but `Stored` with an empty append, which probes the stream's state.
    assert_eq!(put(store, append::<&str>(key, epoch, next, &[])).await, Appended::Gone);
    let again = store.reopen(reopen(open("chat"), epoch, 3)).await.unwrap();
    assert_eq!(again, Reopened::Registered);
    write(store, key, epoch, 4, &["4", "5"]).await;
    let page = page(store, key, ReadFrom::After(EventId::new(epoch, 2))).await;
    let held: Vec<_> = page.records.iter().map(|record| (record.id.seq, brief(record))).collect();
    assert_eq!(held, [(4, "4".to_owned()), (5, "5".to_owned())], "3 is a hole, and no other event in its place");
    assert!(page.known && page.top == EventId::new(epoch, 5));
    assert_eq!(info(store, key).await.epoch, epoch);
    assert_eq!(store.beat(beat(&[(key.clone(), epoch)])).await.unwrap().lost, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_state() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = three(&store).await;
    server.command(&["DEL", STREAM]);
    assert_eq!(store.info(key.clone()).await.unwrap(), None);
    // A plain append is still stored. The next beat reports that the stream is no longer the node's.
    assert_eq!(put(&store, append(&key, epoch, 4, &["4"])).await, Appended::Stored);
    assert_eq!(store.beat(beat(&[(key.clone(), epoch)])).await.unwrap().lost, [0]);
    comes_back(&store, &key, epoch, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_without_its_log() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = three(&store).await;
    server.command(&["DEL", LOG]);
    assert_eq!(put(&store, append(&key, epoch, 4, &["4"])).await, Appended::Gone);
    comes_back(&store, &key, epoch, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_all() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = three(&store).await;
    let before = store.beat(beat(&[(key.clone(), epoch)])).await.unwrap();
    server.flushall();
    let after = store.beat(beat(&[(key.clone(), epoch)])).await.unwrap();
    assert_ne!(before.run, after.run, "the store was emptied");
    assert_eq!(after.lost, [0]);
    assert_eq!(put(&store, append(&key, epoch, 4, &["4"])).await, Appended::Gone);
    comes_back(&store, &key, epoch, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_a_new_run_is_above_the_old_one() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, old) = three(&one).await;
    // An emptied store makes epochs from the time alone, so the time must have passed the old epoch.
    until("the clock moves", async || one.beat(beat(&[])).await.unwrap().now > old).await;
    server.flushall();
    // Epochs are the server's milliseconds: nothing is left that tells two runs of one and the same apart.
    let now = || server.ask::<(u64, u64)>(&["TIME"]);
    while matches!(now(), (s, us) if s * 1000 + us / 1000 <= old) {}
    let (_, new) = begin(&two, "chat").await;
    assert!(new > old);
    write(&two, &key, new, 1, &["new"]).await;
    assert_eq!(put(&one, append(&key, old, 4, &["old"])).await, Appended::Fenced(resilient_sse::store::Fence::Newer));
    let again = one.reopen(reopen(open("chat"), old, 3)).await.unwrap();
    assert_eq!(again, Reopened::Fenced(resilient_sse::store::Fence::Newer));
    let page = page(&one, &key, ReadFrom::After(EventId::new(old, 2))).await;
    assert!(!page.known, "nothing is known of the old run: the reader is told of a gap");
}

/// A failover takes the registration of a second run, whose events go on landing in the log: it is registered again
/// over the run before, and keeps what has landed.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_whose_registration_a_failover_took_registers_again() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (key, first) = begin(&store, "chat").await;
    write(&store, &key, first, 1, &["1", "2"]).await;
    stand_still(&store, &key, first).await;
    let mut replica = Vec::new();
    for name in [STREAM, LOG] {
        replica.push((name, redis::cmd("DUMP").arg(name).query::<Vec<u8>>(&mut connection).unwrap()));
    }
    let second = open_as(&store, open("chat")).await;
    for (name, dump) in replica {
        redis::cmd("RESTORE").arg(name).arg(600_000).arg(dump).arg("REPLACE").exec(&mut connection).unwrap();
    }
    write(&store, &key, second, 1, &["x", "y"]).await;
    assert_eq!(put(&store, append::<&str>(&key, second, 3, &[])).await, Appended::Gone);
    assert_eq!(store.close(close(&key, second)).await.unwrap(), Closed::Missing, "its end does not get lost either");
    assert_eq!(store.reopen(reopen(open("chat"), second, 2)).await.unwrap(), Reopened::Registered);
    write(&store, &key, second, 3, &["z"]).await;
    let read = page(&store, &key, ReadFrom::After(EventId::new(first, 1))).await;
    assert!(read.known);
    let held: Vec<_> = read.records.iter().map(|record| (record.id, brief(record))).collect();
    let event = |epoch, seq, data: &str| (EventId::new(epoch, seq), data.to_owned());
    assert_eq!(held, [event(first, 2, "2"), event(second, 1, "x"), event(second, 2, "y"), event(second, 3, "z")]);
    let info = info(&store, &key).await;
    assert_eq!((info.epoch, info.top), (second, EventId::new(second, 3)));
    assert_eq!(finish(&store, close(&key, second)).await.last, EventId::new(second, 3));
    assert_eq!(server.keys_without_ttl(), [""; 0]);
}
