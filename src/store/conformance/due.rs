//! Checks of heartbeats, deadlines, leases, hooks and expiry.

use std::time::Duration;

use tokio::task::JoinSet;

use super::bench::{ALL, Bench, LONG, SOON, close, epoch_of, interrupt, retention};
use crate::{
    model::{id::StreamKey, stream::StreamState},
    store::{Beat, Close, DueReason, Interrupted, Open, Retention, Store},
};

/// Opens a stream without heartbeats, and waits until it is overdue.
async fn overdue<S: Store>(bench: &Bench<S>, id: &str) -> (StreamKey, u64) {
    let retention = Retention { stale: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.request(id) }).await);
    let key = bench.key(id);
    bench.until_clock(bench.info_of(&key).await.deadline + 1).await;
    (key, epoch)
}

/// A heartbeat moves the deadlines of its streams, and returns the streams that the node has lost.
pub async fn a_beat_pushes_deadlines_and_names_the_lost(store: impl Store) {
    let bench = Bench::new(store);
    let (own, epoch) = bench.begin("own").await;
    let (older, first) = bench.begin("older").await;
    bench.stand_still(&older, first).await;
    let (still, stood) = bench.begin("still").await;
    bench.stand_still(&still, stood).await;
    bench.begin("older").await;
    let (over, done) = bench.begin("over").await;
    bench.finish(&over, done).await;
    let (second, epoch2) = bench.begin("second").await;
    let before = bench.info_of(&own).await;
    bench.until_clock(before.last_heartbeat + 2).await;

    let streams = [
        (own.clone(), epoch),
        (older, first),
        (bench.key("none"), 5),
        (over, done),
        (second.clone(), epoch2),
        (still, stood),
    ];
    let beaten = bench.heartbeat(&streams, LONG).await;
    assert_eq!(beaten.lost, [1, 2, 3, 5]);
    let after = bench.info_of(&own).await;
    assert!(after.last_heartbeat > before.last_heartbeat && after.deadline > before.deadline);
    assert!(bench.info_of(&second).await.deadline >= after.last_heartbeat + LONG.as_millis() as u64 - 1);
}

/// Every heartbeat returns the store's clock, which does not go back, and the run of the store.
pub async fn the_stores_clock_and_run_are_told(store: impl Store) {
    let bench = Bench::new(store);
    let first = bench.heartbeat(&[], LONG).await;
    let unix_2020 = 1_577_836_800_000;
    assert!(first.now > unix_2020, "unix milliseconds");
    bench.until_clock(first.now + 1).await;
    let beat = Beat { node: bench.on("node-2").node, streams: [].into(), stale: LONG, lifetime: LONG };
    let second = bench.beat(beat).await.expect("the store answers");
    assert!(second.now > first.now);
    assert_eq!((second.run, second.lost), (first.run, Vec::new()));
}

/// Guarantee G5: a sweep without a claim gets no overdue streams.
pub async fn overdue_streams_are_given_only_to_those_who_may_claim(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = overdue(&bench, "stale").await;
    bench.begin("fresh").await;
    assert_eq!(bench.sweep(LONG, None).await, []);
    let due = bench.sweep(LONG, ALL).await;
    let [due] = &due[..] else { panic!("not one: {due:?}") };
    assert_eq!((&due.info.key, due.info.epoch, due.reason), (&key, epoch, DueReason::Stale));
    assert_eq!(due.info, bench.info_of(&key).await, "its deadline is what the lease wrote");
}

/// One of several racing guardians gets an overdue stream. The lease does not fence the producer, and a heartbeat in
/// between moves the deadline.
pub async fn an_overdue_stream_is_given_to_one(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = overdue(&bench, "stale").await;
    let mut racing = JoinSet::new();
    for _ in 0..4 {
        let bench = bench.clone();
        racing.spawn(async move { bench.sweep(LONG, ALL).await });
    }
    let mut given = racing.join_all().await.concat();
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(bench.sweep(LONG, ALL).await, []);
    bench.write(&key, epoch, 1, &["late, but alive"]).await;

    let leased = given.remove(0).info;
    bench.until_clock(bench.now().await + 2).await;
    assert!(bench.heartbeat(&[(key.clone(), epoch)], LONG * 2).await.lost.is_empty());
    let close = Close { if_deadline: Some(leased.deadline), ..close(&key, Some(epoch)) };
    assert_eq!(bench.end(close).await, crate::store::Closed::Moved);
}

/// Another guardian gets the stream once the lease has passed without a result.
pub async fn a_lease_ends(store: impl Store) {
    let bench = Bench::new(store);
    let (key, _) = overdue(&bench, "stale").await;
    let first = bench.sweep(SOON, ALL).await;
    let second = bench.swept(LONG, ALL).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(second[0].info.key == key && second[0].info.deadline > first[0].info.deadline);
    assert_eq!(bench.sweep(LONG, ALL).await, []);
    assert_eq!(bench.due(0, LONG, ALL).await.expect("the store answers"), []);
}

/// Opens a stream with a short lifetime.
async fn outlived<S: Store>(bench: &Bench<S>, id: &str) -> (StreamKey, u64) {
    let retention = Retention { lifetime: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, reruns: false, ..bench.request(id) }).await);
    (bench.key(id), epoch)
}

/// A stream is due after a lifetime without a sign of life from its producer. Each sign of life, such as an append,
/// renews the lifetime.
pub async fn a_lifetime_ends(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = outlived(&bench, "old").await;
    for seq in 1..=8 {
        tokio::time::sleep(SOON / 4).await;
        // Under real time the append may come too late, if the store is slow. Then the check ends here.
        if !bench.sweep(LONG, ALL).await.is_empty() {
            return;
        }
        bench.write(&key, epoch, seq, &["alive"]).await;
    }
    let due = bench.swept(LONG, ALL).await;
    assert_eq!((&due[0].info.key, due[0].reason), (&key, DueReason::Lifetime));
}

/// Guarantee G5: an active stream is due by the time that the claim names, if that time is behind the store's clock.
/// Hooks and interrupted streams are due by the store's clock alone.
pub async fn a_claim_looks_no_further_than_the_time_it_names(store: impl Store) {
    let bench = Bench::new(store);
    let (stale, _) = overdue(&bench, "stale").await;
    let (old, _) = outlived(&bench, "old").await;
    let (still, epoch) = outlived(&bench, "still").await;
    bench.stand_still(&still, epoch).await;
    let (hooked, epoch) = bench.begin("hooked").await;
    bench.end(Close { hook: Some(SOON), ..close(&hooked, Some(epoch)) }).await;
    let soon = SOON.as_millis() as u64;
    let deadline = bench.info_of(&stale).await.deadline;
    let outlives = bench.info_of(&old).await.last_heartbeat + soon;
    bench.until_clock(bench.now().await + 3 * soon).await;

    let keys = |due: Vec<crate::store::Due>| {
        let mut keys: Vec<_> = due.into_iter().map(|due| (due.info.key, due.reason)).collect();
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        keys
    };
    let idle = [(hooked, DueReason::Hook), (still, DueReason::Lifetime)];
    assert_eq!(keys(bench.sweep(LONG, Some(deadline - 1)).await), idle);
    assert_eq!(keys(bench.sweep(LONG, None).await), []);
    assert_eq!(keys(bench.sweep(LONG, Some(outlives - 1)).await), [(stale, DueReason::Stale)]);
    assert_eq!(keys(bench.sweep(LONG, Some(outlives + 1)).await), [(old, DueReason::Lifetime)]);
}

/// A stream whose lifetime has passed goes to one guardian at a time.
pub async fn a_lifetime_is_looked_after_by_one(store: impl Store) {
    let bench = Bench::new(store);
    outlived(&bench, "active").await;
    let (still, epoch) = outlived(&bench, "still").await;
    let stood = bench.interrupt(interrupt(&still, epoch)).await.expect("the store answers");
    assert_eq!(stood, Interrupted::Done);
    bench.until_clock(bench.now().await + 2 * SOON.as_millis() as u64).await;
    let mut given = Vec::new();
    for _ in 0..4 {
        given.extend(bench.sweep(LONG, ALL).await.into_iter().map(|due| due.info.key));
    }
    given.sort();
    assert_eq!(given, [bench.key("active"), still]);
}

/// A hook belongs to the node that closed the stream for a while. Then it is due to one guardian after another until it
/// is done.
pub async fn a_hook_is_due_until_it_is_done(store: impl Store) {
    let bench = Bench::new(store);
    let (unhooked, epoch) = bench.begin("unhooked").await;
    bench.finish(&unhooked, epoch).await;
    let (key, epoch) = bench.begin("hooked").await;
    bench.end(Close { hook: Some(SOON), ..close(&key, Some(epoch)) }).await;
    let first = bench.swept(SOON, None).await;
    assert_eq!((first.len(), &first[0].info.key, first[0].reason), (1, &key, DueReason::Hook));
    assert_eq!(first[0].info.state, StreamState::Failed);
    let second = bench.swept(SOON, None).await;
    assert_eq!((second.len(), &second[0].info.key), (1, &key));
    bench.hook_done(key.clone()).await.expect("the store answers");
    bench.hook_done(key).await.expect("a repeat is no error");
    bench.until_clock(bench.now().await + 3 * SOON.as_millis() as u64).await;
    assert_eq!(bench.sweep(SOON, ALL).await, []);
}

/// One recovery window after its end a stream is gone: its completion, its log, and its entries in all indexes.
pub async fn what_has_expired_is_gone(store: impl Store) {
    let bench = Bench::new(store);
    let retention = Retention { recovery_window: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.request("over") }).await);
    let key = bench.key("over");
    bench.write(&key, epoch, 1, &["a"]).await;
    bench.end(Close { hook: Some(LONG), ..close(&key, Some(epoch)) }).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "e"], "for the whole window");
    let gone = async || bench.sweep(LONG, ALL).await.is_empty() && bench.known(&key).await.is_none();
    bench.until("an ended stream expires", gone).await;
    assert_eq!(bench.page(&key, crate::store::ReadFrom::Start, 1, 1).await, None);
    assert_eq!(bench.listed().await, []);
    assert_eq!(bench.ask(Open { create: false, ..bench.request("over") }).await, crate::store::Opened::Missing);
}

/// An interrupted stream that may be run again expires by itself after its lifetime.
pub async fn an_interrupted_stream_expires(store: impl Store) {
    let bench = Bench::new(store);
    let retention = Retention { lifetime: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.request("still") }).await);
    let key = bench.key("still");
    bench.stand_still(&key, epoch).await;
    bench.until("it expires", async || bench.known(&key).await.is_none()).await;
    assert_eq!(bench.sweep(LONG, ALL).await, []);
    assert_eq!(bench.listed().await, []);
}

/// Active streams can be listed by the time since their last heartbeat, independent of their deadlines.
pub async fn silent_streams_are_listed(store: impl Store) {
    let bench = Bench::new(store);
    let (silent, _) = bench.begin("silent").await;
    let (over, epoch) = bench.begin("over").await;
    bench.finish(&over, epoch).await;
    let (alive, epoch) = bench.begin("alive").await;
    bench.until_clock(bench.now().await + 1000).await;
    bench.heartbeat(&[(alive, epoch)], LONG).await;
    let stale = bench.stale(Duration::from_millis(500), 10).await.expect("the store answers");
    assert_eq!(stale.iter().map(|info| &info.key).collect::<Vec<_>>(), [&silent]);
    assert_eq!(stale[0], bench.info_of(&silent).await);
    assert_eq!(bench.stale(LONG, 10).await.expect("the store answers"), []);
    assert_eq!(bench.stale(Duration::ZERO, 1).await.expect("the store answers").len(), 1, "at most so many");
}
