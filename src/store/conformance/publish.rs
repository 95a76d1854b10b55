//! Events from publishers that hold no registration.

use tokio::task::JoinSet;

use super::bench::{ALL, Bench, LONG, append, close, epoch_of};
use crate::{
    id::EventId,
    store::{Appended, From, Opened, Publish, Published, Store},
    stream::{Ending, StreamState},
};

fn keyed(publish: Publish, key: &str) -> Publish {
    Publish { idempotency_key: Some(key.to_owned()), ..publish }
}

/// The first event opens the stream, the next ones take the next seqs.
pub async fn the_first_event_opens_the_stream(store: impl Store) {
    let bench = Bench::new(store);
    let before = bench.now().await;
    let first = bench.sent(bench.event("feed", "a")).await;
    assert!(first.seq == 1 && first.epoch >= before);
    assert_eq!(bench.sent(bench.event("feed", "b")).await, EventId::new(first.epoch, 2));
    let key = bench.key("feed");
    assert_eq!(bench.held(&key).await, ["r", "a", "b"]);
    let info = bench.look(&key).await;
    assert_eq!((info.state, info.node, info.started), (StreamState::Active, None, true));
    assert_eq!(bench.list(bench.owner.clone()).await.expect("the store answers").len(), 1);
    assert_eq!(bench.ask(bench.request("feed")).await, Opened::Active { started: true });
    let due = bench.sweep(LONG, ALL).await;
    assert!(due.is_empty(), "nobody beats it, and nobody has to: {due:?}");
}

/// A repeat by the caller's key gets the first one's id.
pub async fn a_key_makes_a_repeat_harmless(store: impl Store) {
    let bench = Bench::new(store);
    let first = bench.sent(keyed(bench.event("keyed", "a"), "one")).await;
    let second = bench.sent(keyed(bench.event("keyed", "b"), "two")).await;
    assert_eq!(bench.sent(keyed(bench.event("keyed", "a"), "one")).await, first);
    assert_eq!(bench.sent(keyed(bench.event("keyed", "b"), "two")).await, second);
    assert_ne!(bench.sent(keyed(bench.event("other", "a"), "one")).await, second, "a key is a stream's own");
    assert_eq!(bench.held(&bench.key("keyed")).await, ["r", "a", "b"]);
    let end = Publish { ends: Some(StreamState::Completed), ..keyed(bench.event("keyed", "end"), "end") };
    let ended = bench.send(end.clone()).await;
    assert!(matches!(ended, Published::Ended(_)));
    assert_eq!(bench.send(end).await, ended, "also of the end");
    assert_eq!(bench.sent(keyed(bench.event("keyed", "a"), "one")).await, first, "also after it");
}

/// A stream with a producer takes events from that one only, also while it stands still.
pub async fn a_standing_producer_appends_alone(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("standing").await;
    assert_eq!(bench.send(bench.event("standing", "x")).await, Published::Conflict);
    bench.stand_still(&key, epoch).await;
    assert_eq!(bench.send(bench.event("standing", "x")).await, Published::Conflict);
    assert_eq!(bench.held(&key).await, ["r"]);
    let id = bench.sent(bench.event("published", "a")).await;
    let late = append(&bench.key("published"), id.epoch - 1, 2, &["x"]);
    assert!(matches!(bench.put(late).await, Appended::Fenced(_)));
}

/// An event may be the terminal one; after it, as after any end, comes nothing.
pub async fn an_event_may_end_the_stream(store: impl Store) {
    let bench = Bench::new(store);
    let first = bench.sent(bench.event("ends", "a")).await;
    let end = Publish { ends: Some(StreamState::Failed), ..bench.event("ends", "over") };
    let Published::Ended(ended) = bench.send(end.clone()).await else { panic!("not ended") };
    assert_eq!((ended.id, ended.last), (EventId::terminal(first.epoch), first));
    assert_eq!(ended.ending, Ending::with_event(StreamState::Failed, end.block.clone()));
    assert_eq!(bench.send(bench.event("ends", "b")).await, Published::EndedBefore(ended.clone()));
    assert_eq!(bench.send(end).await, Published::EndedBefore(ended.clone()));
    assert_eq!(bench.ask(bench.request("ends")).await, Opened::Ended(ended));
    assert_eq!(bench.held(&bench.key("ends")).await, ["r", "a", "e"]);

    let at_once = Publish { ends: Some(StreamState::Completed), ..bench.event("at-once", "over") };
    assert!(matches!(bench.send(at_once).await, Published::Ended(_)));
    assert_eq!(bench.held(&bench.key("at-once")).await, ["r", "e"]);

    let (key, epoch) = bench.begin("closed").await;
    let ended = bench.finish(&key, epoch).await;
    assert_eq!(bench.send(bench.event("closed", "x")).await, Published::EndedBefore(ended));
    bench.sent(bench.event("stopped", "a")).await;
    assert!(matches!(bench.end(close(&bench.key("stopped"), None)).await, crate::store::Closed::Now { .. }));
}

/// Events that race get ids of their own, densely; repeats among them do not count.
pub async fn racing_events_get_ids_of_their_own(store: impl Store) {
    let bench = Bench::new(store);
    let mut racing = JoinSet::new();
    for number in 0..50 {
        let bench = bench.clone();
        racing.spawn(async move {
            tokio::task::yield_now().await;
            let key = (number % 25).to_string();
            bench.sent(keyed(bench.event("race", &key), &key)).await
        });
    }
    let mut ids = racing.join_all().await;
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.iter().map(|id| id.seq).eq(1..=25), "{ids:?}");
    let page = bench.all(&bench.key("race"), From::After(EventId::new(ids[0].epoch, 0))).await;
    assert!(page.records.iter().map(|record| record.id).eq(ids));
    epoch_of(&bench.ask(bench.request("quiet")).await);
}
