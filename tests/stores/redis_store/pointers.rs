//! Conversations: the state of a pointer once its stream's change is answered.

use std::time::Duration;

use resilient_sse::{
    Overlap, RedisStore, StreamId, StreamKey, Turn,
    store::{Expected, Open, Place, Point, Pointed, Renew, Renewed, Retention, Store as _},
};

use crate::{
    redis_store::steps::{LONG, close, connect, interrupt, key, open, open_as, retention},
    support::redis::RedisServer,
};

const NEW: Place = Place { epoch: 1, since: Duration::ZERO };

fn id(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

async fn point(store: &RedisStore, conversation: &StreamKey, stream: &str) {
    let (conversation, stream) = (conversation.clone(), id(stream));
    let point = Point { conversation, stream, place: NEW, expected: Expected::Nothing, ttl: LONG };
    assert!(matches!(store.point(point).await.unwrap(), Pointed::Moved(_)));
}

/// Opens a stream that is the turn of a conversation of the same name, and points to it.
async fn begin(store: &RedisStore, name: &str) -> (StreamKey, u64, u128) {
    let turn = Turn { conversation: id(name), overlap: Overlap::Replace };
    let short = Duration::from_secs(30);
    let retention = Retention { recovery_window: short, lifetime: short, ..retention() };
    let open = Open { turn: Some(turn), retention, ..open(name) };
    let token = open.token;
    let epoch = open_as(store, open).await;
    point(store, &key(name), name).await;
    (key(name), epoch, token)
}

/// A caller that is told of an end or a withdrawal finds the pointer up to date: no step is left to a task that may
/// never run.
#[tokio::test]
async fn a_pointer_has_followed_once_its_streams_change_is_answered() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let left = |name: &str| -> i64 { server.ask(&["PTTL", &format!("sse:conversation:{{YWRh/{name}}}")]) };
    for round in 0..20 {
        let name = |what: &str| format!("{what}{round}");
        let (ended, epoch, _) = begin(&store, &name("ended")).await;
        assert!(left(&name("ended")) > 500_000);
        store.close(close(&ended, epoch)).await.unwrap();
        assert!((1..=30_000).contains(&left(&name("ended"))), "closed: {}", left(&name("ended")));
        let (stands, epoch, _) = begin(&store, &name("stands")).await;
        store.interrupt(interrupt(&stands, epoch)).await.unwrap();
        assert!((1..=30_000).contains(&left(&name("stands"))), "interrupted: {}", left(&name("stands")));
        let (withdrawn, _, token) = begin(&store, &name("withdrawn")).await;
        store.withdraw(withdrawn, token).await.unwrap();
        assert_eq!(left(&name("withdrawn")), -2, "withdrawn");
        let (deleted, ..) = begin(&store, &name("deleted")).await;
        store.delete(deleted).await.unwrap();
        assert_eq!(left(&name("deleted")), -2, "deleted");
    }
}

/// One master is gone: its pointers are not renewed, and the same request renews all others.
#[cfg(feature = "redis-cluster")]
#[tokio::test]
async fn a_pointer_that_cannot_be_renewed_fails_no_other() {
    use crate::support::redis::{Options, RedisCluster};

    let cluster = RedisCluster::with(&Options::default().line("cluster-require-full-coverage no"));
    let store = connect(&cluster.url()).await;
    let names: Vec<_> = (0..12).map(|number| format!("chat{number}")).collect();
    let shard = |name: &String| cluster.shard_of(cluster.slot_of(&format!("sse:conversation:{{YWRh/{name}}}")));
    for name in &names {
        point(&store, &key(name), name).await;
    }
    let gone = shard(&names[0]);
    assert!(names.iter().any(|name| shard(name) != gone));
    cluster.master(gone).kill();
    let renew = |name: &String| Renew { conversation: key(name), stream: id(name), ttl: LONG, put_back: None };
    let renewed = store.renew(names.iter().map(renew).collect()).await.unwrap();
    for (name, renewed) in names.iter().zip(renewed) {
        match renewed {
            Renewed::Refused => assert_eq!(shard(name), gone, "{name}"),
            Renewed::Stands(pointer) => {
                assert_ne!(shard(name), gone, "{name}");
                assert_eq!(pointer.map(|pointer| pointer.stream), Some(id(name)));
            }
            other => panic!("another outcome: {other:?}"),
        }
    }
    let lost: Vec<_> = names.iter().filter(|name| shard(name) == gone).map(renew).collect();
    assert!(store.renew(lost).await.is_err(), "none of them can be renewed");
}
