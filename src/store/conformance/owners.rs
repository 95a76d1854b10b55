//! Checks of owners: each sees and changes only its own streams.

use std::time::Duration;

use super::bench::{Bench, LONG, append, close, epoch_of, interrupt, reopen};
use crate::{
    model::{
        id::StreamId,
        stream::{StreamState, reason},
    },
    store::{Appended, Closed, Fence, Interrupted, List, Opened, ReadFrom, Reopened, Store},
};

async fn ids<S: Store>(bench: &Bench<S>) -> Vec<StreamId> {
    let infos = bench.listed().await;
    let mut ids: Vec<_> = infos.into_iter().map(|info| info.key.id).collect();
    ids.sort();
    ids
}

/// A list has the owner's streams in every state, and no stream of another owner.
pub async fn an_owners_streams_are_listed(store: impl Store) {
    let bench = Bench::new(store);
    let (a, epoch) = bench.begin("a").await;
    bench.finish(&a, epoch).await;
    let (b, epoch) = bench.begin("b").await;
    bench.stand_still(&b, epoch).await;
    bench.begin("c").await;
    bench.of("bob").begin("d").await;
    let nobody = bench.of_nobody();
    nobody.begin("e").await;
    assert_eq!(ids(&bench).await, ["a", "b", "c"].map(|id| bench.key(id).id));
    assert_eq!(ids(&bench.of("bob")).await, [bench.key("d").id]);
    assert_eq!(ids(&nobody).await, [bench.key("e").id]);
    assert_eq!(ids(&bench.of("carol")).await, []);
    let listed = bench.listed().await;
    for info in listed {
        assert_eq!(Some(&info), bench.known(&info.key).await.as_ref());
    }
}

/// A page has no more streams than the limit. Active streams come first, and each stream is on exactly one page.
pub async fn an_owners_streams_are_listed_in_pages(store: impl Store) {
    let bench = Bench::new(store);
    // The names say nothing of the order, so that a store cannot be right by sorting them.
    for (name, ends) in [("c", true), ("a", true), ("e", false), ("b", false), ("d", false)] {
        let (key, epoch) = bench.begin(name).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if ends {
            bench.finish(&key, epoch).await;
        }
    }
    let page = async |after: Option<&str>, limit| {
        let after = after.map(|name| bench.key(name).id);
        let list = List { owner: bench.owner.clone(), after, limit };
        let page = bench.list(list).await.expect("the store answers");
        let names = page.streams.iter().map(|info| info.key.id.clone()).collect::<Vec<_>>();
        (names, page.next)
    };
    let ids = |names: &[&str]| names.iter().map(|name| bench.key(name).id).collect::<Vec<_>>();
    let id = |name: &str| Some(bench.key(name).id);
    assert_eq!(page(None, 10).await, (ids(&["d", "b", "e", "a", "c"]), None));
    assert_eq!(page(None, 2).await, (ids(&["d", "b"]), id("b")));
    assert_eq!(page(Some("b"), 2).await, (ids(&["e", "a"]), id("a")));
    assert_eq!(page(Some("a"), 2).await, (ids(&["c"]), None));
    assert_eq!(page(Some("c"), 2).await, (ids(&[]), None));
    assert_eq!(page(Some("never"), 2).await, (ids(&[]), None));
    assert_eq!(page(None, 5).await, (ids(&["d", "b", "e", "a", "c"]), None));
    assert_eq!(page(None, 0).await.0, ids(&[]));
}

/// Guarantee G9: another owner's stream with the same id counts as missing in every operation.
pub async fn a_foreign_stream_is_a_missing_one(store: impl Store) {
    let alice = Bench::new(store);
    // These names would collide if a store joined owner and id without escaping.
    for (own, foreign) in [("alice", "bob"), ("a", "a/b"), ("a:b", "a"), ("alice", "ALICE")] {
        let (alice, bob) = (alice.of(own), alice.of(foreign));
        let id = format!("same-{}", own.len() * 100 + foreign.len() + usize::from(foreign == "ALICE"));
        let request = alice.request(&id);
        let token = request.token;
        let Opened::New { epoch, .. } = alice.ask(request.clone()).await else { panic!("not opened") };
        let (key, theirs) = (alice.key(&id), bob.key(&id));
        let before = alice.info_of(&key).await;
        assert_eq!(bob.known(&theirs).await, None);
        assert_eq!(bob.page(&theirs, ReadFrom::Start, 1, 1).await, None);
        assert_eq!(bob.put(append(&theirs, epoch, 1, &["x"])).await, Appended::Gone);
        assert_eq!(bob.end(close(&theirs, None)).await, Closed::Missing);
        let interrupted = bob.interrupt(interrupt(&theirs, epoch)).await.expect("the store answers");
        assert_eq!(interrupted, Interrupted::Missing);
        bob.withdraw(theirs.clone(), token).await.expect("the store answers");
        bob.delete(theirs.clone()).await.expect("the store answers");
        bob.hook_done(theirs.clone()).await.expect("the store answers");
        assert_eq!(bob.heartbeat(&[(theirs.clone(), epoch)], LONG).await.lost, [0]);
        let opened = bob.ask(crate::store::Open { create: false, ..bob.request(&id) }).await;
        assert_eq!(opened, Opened::Missing);
        bob.sent(bob.event(&id, "x")).await;
        bob.delete(theirs.clone()).await.expect("the store answers");
        bob.reopen(reopen(bob.request(&id), epoch, 0)).await.expect("the store answers");
        assert_eq!(alice.info_of(&key).await, before);
        assert_eq!(alice.held(&key).await, ["r"]);
    }
}

/// A deleted stream is gone for its readers, whatever its state was. Its producer is fenced and may not register it
/// again. Deleting it again is no error.
pub async fn a_deleted_stream_is_gone(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("a");
    let (a, epoch) = (request.key.clone(), epoch_of(&bench.ask(request.clone()).await));
    bench.write(&a, epoch, 1, &["x"]).await;
    let (b, epoch_b) = bench.begin("b").await;
    bench.finish(&b, epoch_b).await;
    for key in [&a, &b, &a] {
        bench.delete(key.clone()).await.expect("the store answers");
        assert_eq!(bench.known(key).await, None);
        assert_eq!(bench.page(key, ReadFrom::Start, 1, 1).await, None);
    }
    assert_eq!(bench.listed().await, []);
    assert_eq!(bench.active_count().await.expect("the store answers"), 0);
    let late = bench.put(append(&a, epoch, 2, &["y"])).await;
    let Appended::Fenced(Fence::Ended(ended)) = late else { panic!("not fenced: {late:?}") };
    assert_eq!((ended.ending.state, ended.ending.reason), (StreamState::Cancelled, Some(reason::STOPPED)));
    let late = bench.reopen(reopen(request, epoch, 1)).await.expect("the store answers");
    assert!(matches!(late, Reopened::Fenced(Fence::Ended(_))), "{late:?}");
    assert_eq!(bench.end(close(&a, None)).await, Closed::Missing);
    bench.begin("a").await;
    assert_eq!(bench.held(&a).await, ["r"], "nothing of the old log");
}

/// The store counts the active streams of all owners.
pub async fn active_streams_are_counted(store: impl Store) {
    let bench = Bench::new(store);
    let count = async || bench.active_count().await.expect("the store answers");
    assert_eq!(count().await, 0);
    let (a, epoch_a) = bench.begin("a").await;
    let (b, epoch_b) = bench.of("bob").begin("a").await;
    bench.sent(bench.event("published", "x")).await;
    assert_eq!(count().await, 3);
    bench.stand_still(&a, epoch_a).await;
    bench.finish(&b, epoch_b).await;
    assert_eq!(count().await, 1);
    bench.begin("a").await;
    assert_eq!(count().await, 2);
    assert_eq!(bench.info_of(&a).await.state, StreamState::Active);
}
