//! Guarantee G2: when an event may be delivered.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{Durability, Ending, Store as _, StreamState, reason, store::Close, test_util::Fault};

use crate::support::rig::{Rig, Script, assert_unharmed, delays, key, millis, numbered, watch, watch_with};

const SLACK: Duration = millis(5);

/// No event reaches a client before the store has it, however slow the store is within its limit.
#[tokio::test(start_paused = true)]
async fn g2_before_send_means_before() {
    for batched in [false, true] {
        for every in [1, 20, 150, 400] {
            let script = Script { events: 100, every: millis(every), ..Script::default() };
            let rig = Rig::with(batched, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
            rig.store.fail_on("append", Fault::Delay(millis(100)));
            let start = tokio::time::Instant::now();
            let body = rig.get("a", None).await.into_body();
            let seen = watch_with(body, start, |seen| {
                let top = rig.store.inner().info(key("a")).now_or_never().unwrap().unwrap().unwrap().top;
                assert!(seen.name != "message" || seen.event_id() <= top, "{seen:?} before its acknowledgement");
            })
            .await;
            assert_unharmed(&seen, script);
            assert_eq!(rig.sse.health().store_errors, 0);
            let late = delays(&seen, script).into_iter().map(|(_, delay)| delay);
            let slowest = late.clone().max().unwrap();
            assert!(slowest <= millis(300) + SLACK, "its own flight, the one before, the answer's: {slowest:?}");
            assert!(late.clone().any(|delay| delay >= millis(100)));
        }
    }
}

/// Events are made during the wait, so that a round trip carries as many as the window holds, and no more.
#[tokio::test(start_paused = true)]
async fn g8_before_send_makes_a_window_ahead_and_no_more() {
    let trip = millis(100);
    for batched in [false, true] {
        let script = Script { events: 6000, every: Duration::ZERO, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
        rig.store.fail_on("append", Fault::Delay(trip));
        let client = rig.client().await;
        tokio::time::sleep(trip / 2).await;
        for trips in 0_u64..=5 {
            let (made, stored) = (rig.made(), rig.sse.health().recorded);
            assert!(made - stored <= 1024, "{made} made, {stored} stored");
            // At most every other request carries only the first event.
            assert!(stored >= trips / 2 * 900, "{stored} stored after {trips} round trips");
            tokio::time::sleep(trip).await;
        }
        assert_unharmed(&client.await.unwrap(), script);
    }
}

/// With a store that does not answer, a client is at most 1,024 events ahead of it.
#[tokio::test(start_paused = true)]
async fn g2_buffered_is_at_most_1024_events_ahead() {
    for batched in [false, true] {
        let script = Script { events: 3000, every: Duration::from_micros(1), ..Script::default() };
        let rig = Rig::new(batched, script);
        rig.store.fail_on("append", Fault::Hang);
        let seen = rig.client().await.await.unwrap();
        assert_unharmed(&seen, script);
        let at_once = numbered(&seen).filter(|seen| seen.at < millis(499)).count();
        assert!((1024 - 64..=1024).contains(&at_once), "batched {batched}: {at_once}");
        let slowest = numbered(&seen).map(|seen| seen.at).max().unwrap();
        assert!(slowest <= millis(500) + SLACK, "{slowest:?}");
    }
}

/// … and at most 100 ms ahead.
#[tokio::test(start_paused = true)]
async fn g2_buffered_is_at_most_100_ms_ahead() {
    for batched in [false, true] {
        let script = Script { events: 30, every: millis(20), ..Script::default() };
        let rig = Rig::new(batched, script);
        let client = rig.client().await;
        tokio::time::sleep(millis(110)).await;
        rig.store.fail_on("append", Fault::Hang);
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        // The first one without an acknowledgement is made at 120 ms.
        let ahead = delays(&seen, script).into_iter().skip(5);
        for (number, delay) in ahead {
            let made = millis(20) * u32::try_from(number).unwrap();
            let waits = made >= millis(120 + 100) && made < millis(120 + 500);
            assert_eq!(delay > SLACK, waits, "{number}, made at {made:?}, is {delay:?} late, batched {batched}");
            assert!(made + delay <= millis(120 + 100 + 500) + SLACK, "{number}: {delay:?}");
        }
    }
}

/// A handler's metadata is stored before the first event is delivered.
#[tokio::test(start_paused = true)]
async fn g2_metadata_is_stored_before_the_first_event_is_seen() {
    for batched in [false, true] {
        let script = Script { events: 10, metadata: true, ..Script::default() };
        let rig = Rig::new(batched, script);
        rig.store.fail_on("append", Fault::Delay(millis(200)));
        let start = tokio::time::Instant::now();
        let body = rig.get("a", None).await.into_body();
        let seen = watch_with(body, start, |seen| {
            let info = rig.store.inner().info(key("a")).now_or_never().unwrap().unwrap().unwrap();
            assert!(seen.name != "message" || info.metadata == [("job".to_owned(), "7".to_owned())]);
        })
        .await;
        assert_unharmed(&seen, script);
        let first = numbered(&seen).next().unwrap().at;
        assert!(first >= millis(200) && first <= millis(400) + SLACK, "{first:?}, batched {batched}");
    }
}

/// A store that answers delays nothing.
#[tokio::test(start_paused = true)]
async fn g7_a_healthy_store_is_not_felt() {
    for batched in [false, true] {
        for durability in [Durability::Buffered, Durability::BeforeSend] {
            let script = Script { events: 200, every: millis(7), ..Script::default() };
            let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
            let start = tokio::time::Instant::now();
            let seen = watch(rig.get("a", None).await.into_body(), start).await;
            assert_unharmed(&seen, script);
            assert!(delays(&seen, script).iter().all(|(_, delay)| *delay <= millis(1)));
            assert_eq!(rig.sse.health().recorded, script.events);
        }
    }
}

/// Stored events whose acknowledgement was lost are delivered before the end that another node wrote after them.
#[tokio::test(start_paused = true)]
async fn g1_who_waits_for_a_lost_reply_gets_what_was_stored_before_another_s_end() {
    for batched in [false, true] {
        let script = Script { events: 1000, every: millis(20), ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(millis(210)).await;
        rig.store.fail_on("append", Fault::LoseReply);
        tokio::time::sleep(millis(25)).await;
        let ending = Ending::supplied(StreamState::Cancelled, reason::STOPPED);
        let close = Close { key: key("a"), epoch: None, ending, last: None, if_deadline: None, hook: None };
        rig.store.inner().close(close).await.unwrap();
        rig.store.heal();
        let seen = client.await.unwrap();
        let stored = *rig.recorded().await.last().unwrap();
        assert!(stored >= 10);
        assert_eq!(
            numbered(&seen).map(crate::support::rig::Seen::number).collect::<Vec<_>>(),
            (1..=stored).collect::<Vec<_>>()
        );
        assert_eq!(seen.last().unwrap().name, "cancelled", "batched {batched}");
    }
}

/// The store learns that a producer has begun with its first event, if that comes at once; else as soon as its body
/// waits.
#[tokio::test(start_paused = true)]
async fn g5_a_start_is_said_with_the_first_event_or_without_one() {
    for (every, appends) in [(Duration::ZERO, 1), (millis(50), 4)] {
        let script = Script { events: 3, every, ..Script::default() };
        let rig = Rig::new(true, script);
        // The guardian may be polled between the response and the first poll of its body.
        let answer = rig.get("a", None).await;
        let seen = watch(answer.into_body(), tokio::time::Instant::now()).await;
        assert_unharmed(&seen, script);
        assert_eq!(rig.store.calls("append"), appends, "events every {every:?}");
    }
}

/// A body that nobody polls has begun all the same: a request for its stream does not wait.
#[tokio::test(start_paused = true)]
async fn g4_a_body_that_is_not_polled_yet_is_followed() {
    let script = Script { events: 3, every: millis(50), ..Script::default() };
    let rig = Rig::new(true, script);
    let first = rig.get("a", None).await;
    let start = tokio::time::Instant::now();
    let second = rig.get("a", None).await;
    assert!(start.elapsed() <= SLACK, "{:?}", start.elapsed());
    assert_eq!(rig.calls(), 1);
    let seen = futures_util::future::join(watch(first.into_body(), start), watch(second.into_body(), start)).await;
    assert_unharmed(&seen.0, script);
    assert_unharmed(&seen.1, script);
}
