//! Checks of events from publishers that have no registration.

use tokio::task::JoinSet;

use super::bench::{ALL, Bench, LONG, SOON, append, brief, close, epoch_of};
use crate::{
    model::{
        id::EventId,
        stream::{Ended, Ending, Origin, RecordKind, StreamState, reason},
    },
    store::{Appended, Close, Closed, Open, Opened, Publish, Published, Store},
};

fn keyed(publish: Publish, key: &str) -> Publish {
    Publish { idempotency_key: Some(key.to_owned()), ..publish }
}

/// The first event opens the stream, and the following events get the next seqs.
pub async fn the_first_event_opens_the_stream(store: impl Store) {
    let bench = Bench::new(store);
    let before = bench.now().await;
    let first = bench.sent(bench.event("feed", "a")).await;
    assert!(first.seq == 1 && first.epoch >= before);
    assert_eq!(bench.sent(bench.event("feed", "b")).await, EventId::new(first.epoch, 2));
    let key = bench.key("feed");
    assert_eq!(bench.held(&key).await, ["r", "a", "b"]);
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.node, info.started), (StreamState::Active, None, true));
    assert_eq!(bench.listed().await.len(), 1);
    assert_eq!(bench.ask(bench.request("feed")).await, Opened::Active { started: true });
    let due = bench.sweep(LONG, ALL).await;
    assert!(due.is_empty(), "nobody beats it, and nobody has to: {due:?}");
}

/// An event that repeats an idempotency key gets the id of the first event with that key.
pub async fn a_key_makes_a_repeat_harmless(store: impl Store) {
    let bench = Bench::new(store);
    let first = bench.sent(keyed(bench.event("keyed", "a"), "one")).await;
    let second = bench.sent(keyed(bench.event("keyed", "b"), "two")).await;
    assert_eq!(bench.sent(keyed(bench.event("keyed", "a"), "one")).await, first);
    assert_eq!(bench.sent(keyed(bench.event("keyed", "b"), "two")).await, second);
    assert_ne!(bench.sent(keyed(bench.event("other", "a"), "one")).await, second, "a key is a stream's own");
    assert_eq!(bench.held(&bench.key("keyed")).await, ["r", "a", "b"]);
    let end = keyed(bench.last("keyed", "end", StreamState::Completed), "end");
    let ended = bench.send(end.clone()).await;
    assert!(matches!(ended, Published::Ended(_)));
    assert_eq!(bench.send(end).await, ended, "also of the end");
    assert_eq!(bench.sent(keyed(bench.event("keyed", "a"), "one")).await, first, "also after it");
}

/// A stream with a producer takes events from that producer only, even while the stream is interrupted.
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

/// An event may be the terminal event. After it, as after any end, no event is stored.
pub async fn an_event_may_end_the_stream(store: impl Store) {
    let bench = Bench::new(store);
    let first = bench.sent(bench.event("ends", "a")).await;
    let end = bench.last("ends", "over", StreamState::Failed);
    let Published::Ended(ended) = bench.send(end.clone()).await else { panic!("not ended") };
    assert_eq!((ended.id, ended.last), (EventId::terminal(first.epoch), first));
    assert_eq!(ended.ending, Ending::with_event(StreamState::Failed, end.block.clone()));
    assert_eq!(bench.send(bench.event("ends", "b")).await, Published::EndedBefore(ended.clone()));
    assert_eq!(bench.send(end).await, Published::EndedBefore(ended.clone()));
    assert_eq!(bench.ask(bench.request("ends")).await, Opened::Ended(ended));
    assert_eq!(bench.held(&bench.key("ends")).await, ["r", "a", "e"]);

    let at_once = bench.last("at-once", "over", StreamState::Completed);
    assert!(matches!(bench.send(at_once).await, Published::Ended(_)));
    assert_eq!(bench.held(&bench.key("at-once")).await, ["r", "e"]);

    let (key, epoch) = bench.begin("closed").await;
    let ended = bench.finish(&key, epoch).await;
    assert_eq!(bench.send(bench.event("closed", "x")).await, Published::EndedBefore(ended));
    bench.sent(bench.event("stopped", "a")).await;
    assert!(matches!(bench.end(close(&bench.key("stopped"), None)).await, crate::store::Closed::Now { .. }));
}

/// Sends an event to a stream, and ends the stream as a guardian does when it expires. Returns the event's id and the
/// end.
async fn expired<S: Store>(bench: &Bench<S>, id: &str) -> (EventId, Ended) {
    let sent = bench.sent(keyed(bench.event(id, "a"), "one")).await;
    let ending = Ending::supplied(StreamState::Expired, reason::LIFETIME);
    let hook = Some(SOON);
    let closed = bench.end(Close { ending, hook, ..close(&bench.key(id), None) }).await;
    let Closed::Now { ended, .. } = closed else { panic!("not closed: {closed:?}") };
    (sent, ended)
}

/// A published stream that expired can go on: the next event begins a new run. Readers see a restart, whether they have
/// seen the end or not.
pub async fn an_event_after_expiry_begins_a_new_run(store: impl Store) {
    let bench = Bench::new(store);
    let (key, before) = (bench.key("quiet"), bench.now().await);
    let (first, ended) = expired(&bench, "quiet").await;
    let second = bench.sent(bench.event("quiet", "b")).await;
    assert!(second.seq == 1 && second.epoch > ended.id.epoch && second.epoch >= before, "{second} after {ended:?}");
    assert_eq!(bench.sent(bench.event("quiet", "c")).await, EventId::new(second.epoch, 2));
    assert_eq!(bench.held(&key).await, ["r", "a", "r", "b", "c"], "what was held still is, and no end");
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.epoch, info.node, info.ended), (StreamState::Active, second.epoch, None, None));
    assert_eq!((info.previous, info.origin, info.started), (Some(first), Origin::Published, true));
    assert!(info.started_at >= ended.at);
    assert_eq!(bench.active_count().await.expect("the store answers"), 1);
    assert_eq!(bench.ask(bench.request("quiet")).await, Opened::Active { started: true });
    // In order: the cursor of a reader that has all of the first run, of one that has its end, and of one in the new
    // run.
    for (at, held) in [(first, vec!["r", "b", "c"]), (ended.id, vec!["r", "b", "c"]), (second, vec!["c"])] {
        let page = bench.after(&key, at).await;
        assert!(page.known, "{at}");
        assert_eq!(brief(&page), held, "{at}");
    }
    let page = bench.after(&key, ended.id).await;
    assert_eq!(page.records[0].kind, RecordKind::Run { previous: Some(first) }, "nothing is missing");
    // The new run has taken the end back, so the hook of that end must not run.
    bench.until_clock(bench.now().await + 3 * SOON.as_millis() as u64).await;
    assert_eq!(bench.sweep(LONG, ALL).await, []);
}

/// An idempotency key of the run before is known in the new run. A repeat of it begins no new run.
pub async fn keys_are_known_over_expiry(store: impl Store) {
    let bench = Bench::new(store);
    let (first, ended) = expired(&bench, "keyed").await;
    let one = || keyed(bench.event("keyed", "a"), "one");
    assert_eq!(bench.sent(one()).await, first, "a repeat of what was sent before");
    assert_eq!(bench.info_of(&bench.key("keyed")).await.ended, Some(ended));
    let second = bench.sent(keyed(bench.event("keyed", "b"), "two")).await;
    assert_eq!(bench.sent(one()).await, first);
    assert_eq!(bench.sent(keyed(bench.event("keyed", "b"), "two")).await, second);
    let end = || keyed(bench.last("keyed", "end", StreamState::Completed), "end");
    let Published::Ended(over) = bench.send(end()).await else { panic!("not ended") };
    assert_eq!(bench.send(end()).await, Published::Ended(over.clone()));
    assert_eq!((bench.sent(one()).await, over.last), (first, second));
    assert_eq!(bench.held(&bench.key("keyed")).await, ["r", "a", "r", "b", "e"]);
}

/// A stream may expire several times, and the first event after expiry may be terminal.
pub async fn a_stream_expires_more_than_once(store: impl Store) {
    let bench = Bench::new(store);
    let mut newest = 0;
    for round in 1..=5 {
        let (sent, ended) = expired_again(&bench, round).await;
        assert!(sent.epoch > newest && ended.id.epoch > sent.epoch);
        newest = ended.id.epoch;
    }
    let end = bench.last("again", "over", StreamState::Completed);
    let Published::Ended(ended) = bench.send(end).await else { panic!("not ended") };
    assert!(ended.id.epoch > newest);
    assert_eq!(bench.send(bench.event("again", "late")).await, Published::EndedBefore(ended), "this end is one");
    assert_eq!(bench.held(&bench.key("again")).await, ["r", "1", "r", "2", "r", "3", "r", "4", "r", "5", "r", "e"]);
}

async fn expired_again<S: Store>(bench: &Bench<S>, round: usize) -> (EventId, Ended) {
    let sent = bench.sent(bench.event("again", &round.to_string())).await;
    let ending = Ending::supplied(StreamState::Expired, reason::LIFETIME);
    match bench.end(Close { ending, ..close(&bench.key("again"), None) }).await {
        Closed::Now { ended, .. } => (sent, ended),
        other => panic!("not closed: {other:?}"),
    }
}

/// A stream that had a producer stays ended once it has expired, since its work cannot go on under the same id.
pub async fn the_expiry_of_a_producer_stays(store: impl Store) {
    let bench = Bench::new(store);
    for (id, origin) in [("body", Origin::Named), ("job", Origin::Published)] {
        let epoch = epoch_of(&bench.ask(Open { origin, ..bench.request(id) }).await);
        let ending = Ending::supplied(StreamState::Expired, reason::LIFETIME);
        let Closed::Now { ended, .. } = bench.end(Close { ending, ..close(&bench.key(id), Some(epoch)) }).await else {
            panic!("not closed")
        };
        assert_eq!(bench.send(bench.event(id, "x")).await, Published::EndedBefore(ended.clone()), "{id}");
        assert_eq!(bench.ask(Open { origin, ..bench.request(id) }).await, Opened::Ended(ended), "{id}");
    }
}

/// Racing events get dense ids, each its own. Repeats among them get no new id.
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
    let page = bench.after(&bench.key("race"), EventId::new(ids[0].epoch, 0)).await;
    assert!(page.records.iter().map(|record| record.id).eq(ids));
    epoch_of(&bench.ask(bench.request("quiet")).await);
}
