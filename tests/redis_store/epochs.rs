//! What is lost from under a producer: it registers again, and nobody reads on as if nothing had been.

use resilient_sse::{
    EventId, RedisStore, StreamKey,
    store::{Appended, From, Reopened, Store as _},
};

use crate::{
    redis_servers::RedisServer,
    support::{append, beat, begin, brief, connect, info, open, page, put, reopen, until, write},
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
    // This is what it does about anything but `Stored`: it asks with nothing to write.
    assert_eq!(put(store, append::<&str>(key, epoch, next, &[])).await, Appended::Gone);
    let again = store.reopen(reopen(open("chat"), epoch, 3)).await.unwrap();
    assert_eq!(again, Reopened::Registered);
    write(store, key, epoch, 4, &["4", "5"]).await;
    let page = page(store, key, From::After(EventId::new(epoch, 2))).await;
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
    // A plain append still lands; the next beat says that the stream is not the node's any more.
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
    // A store that is emptied knows no epoch but the time: that has to have passed the old one.
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
    let page = page(&one, &key, From::After(EventId::new(old, 2))).await;
    assert!(!page.known, "nothing is known of the old run: the reader is told of a gap");
}
