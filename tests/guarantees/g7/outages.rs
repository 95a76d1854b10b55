//! The store fails for a while, in the middle of a stream.

use std::time::Duration;

use resilient_sse::{Durability, test_util::Fault};

use crate::support::rig::{Rig, Script, account, assert_unharmed, delays, millis};

const BEGINS: Duration = millis(1000);
const HEALS: Duration = millis(4000);
/// Timers of the paused clock are a millisecond coarse.
const SLACK: Duration = millis(5);
const STORE_LIMIT: Duration = millis(500);
/// When every stream has noticed the outage. The first unacknowledged event was made at most one interval after its
/// beginning, may have gone out 100 ms ahead, and then waits.
const KNOWN: Duration = millis(1000 + 20 + 100 + 20 + 500);

fn cases() -> impl Iterator<Item = (bool, Durability)> {
    [false, true]
        .into_iter()
        .flat_map(|batched| [Durability::Buffered, Durability::BeforeSend].map(|durability| (batched, durability)))
}

/// Streams through an outage, and checks what holds in every outage. The live stream is unharmed and late at most once.
/// Afterwards every event is in the log, once, and can be replayed.
async fn outage(fault: Fault, batched: bool, durability: Durability) {
    let case = format!("{fault:?}, batched {batched}, {durability:?}");
    let script = Script::default();
    let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
    let client = rig.client().await;
    tokio::time::sleep(BEGINS).await;
    rig.store.fail(fault);
    tokio::time::sleep(HEALS - BEGINS).await;
    rig.store.heal();
    let seen = client.await.unwrap();
    assert_unharmed(&seen, script);
    for (number, delay) in delays(&seen, script) {
        assert!(delay <= STORE_LIMIT + SLACK, "{case}: {number} is {delay:?} late");
        let made = script.every * u32::try_from(number).unwrap();
        let waits_again = made > KNOWN && made < HEALS && delay > SLACK;
        assert!(!waits_again, "{case}: {number} waits {delay:?}, after the outage is known");
        assert!(!(240..=260).contains(&number) || delay <= SLACK, "{case}: {number} is {delay:?} late, after all");
    }
    assert!(rig.recorded().await.into_iter().eq(1..=script.events), "{case}: {:?}", rig.recorded().await);
    assert_eq!((rig.sse.health().lost, rig.sse.health().breaker), (0, "closed"), "{case}");
    let cursor = &seen[60].id;
    assert_eq!(account(&rig.resume(cursor).await, 61, script.events), 0, "{case}");
}

#[tokio::test(start_paused = true)]
async fn g7_a_store_that_hangs() {
    for (batched, durability) in cases() {
        outage(Fault::Hang, batched, durability).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_store_that_refuses() {
    for (batched, durability) in cases() {
        outage(Fault::Refuse, batched, durability).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_store_that_loses_replies() {
    for (batched, durability) in cases() {
        outage(Fault::LoseReply, batched, durability).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g7_a_store_that_answers_too_late() {
    for (batched, durability) in cases() {
        outage(Fault::Delay(Duration::from_secs(3)), batched, durability).await;
    }
}

/// A beat notices that the store is back while the recorder waits for its next attempt: no stream waits for the
/// recorder.
#[tokio::test(start_paused = true)]
async fn g7_a_store_that_answers_a_beat_first() {
    for fault in [Fault::Hang, Fault::Refuse] {
        for (batched, durability) in cases() {
            for stale in (600..3000).step_by(300) {
                let script = Script::default();
                let hub = |hub: resilient_sse::Builder| hub.durability(durability).stale_after(millis(stale));
                let rig = Rig::with(batched, script, hub, |layer| layer);
                let client = rig.client().await;
                tokio::time::sleep(BEGINS).await;
                rig.store.fail(fault);
                tokio::time::sleep(HEALS - BEGINS).await;
                rig.store.heal();
                let seen = client.await.unwrap();
                assert_unharmed(&seen, script);
                let case = format!("{fault:?}, batched {batched}, {durability:?}, stale after {stale} ms");
                for (number, delay) in delays(&seen, script) {
                    let known = script.every * u32::try_from(number).unwrap() > KNOWN;
                    assert!(!known || delay <= SLACK, "{case}: {number} is {delay:?} late");
                }
                assert!(rig.recorded().await.into_iter().eq(1..=script.events), "{case}");
            }
        }
    }
}

/// A store that is slow but answers within its limit is waited for, and the delays do not add up.
#[tokio::test(start_paused = true)]
async fn g7_a_store_that_is_slow() {
    for (batched, durability) in cases() {
        for slow in [20, 80, 200] {
            let script = Script::default();
            let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
            rig.store.fail_on("append", Fault::Delay(millis(slow)));
            let client = rig.client().await;
            let broken = tokio::spawn({
                let sse = rig.sse.clone();
                async move {
                    loop {
                        tokio::time::sleep(millis(3)).await;
                        assert_eq!(sse.health().breaker, "closed", "nothing failed");
                    }
                }
            });
            let seen = client.await.unwrap();
            assert!(!broken.is_finished(), "the breaker opened at a delay of {slow} ms, {durability:?}");
            broken.abort();
            assert_unharmed(&seen, script);
            for (number, delay) in delays(&seen, script) {
                // An event waits for its own flight and the one before it; at first also for the request that finds the
                // store answering.
                let flights = if number < 20 { 3 } else { 2 };
                assert!(delay <= millis(flights * slow) + SLACK, "{number} is {delay:?} late, batched {batched}");
            }
            assert!(rig.recorded().await.into_iter().eq(1..=script.events));
        }
    }
}

/// The node has one breaker: an outage that one stream has noticed delays no other stream.
#[tokio::test(start_paused = true)]
async fn g7_one_wait_for_all_streams_of_a_node() {
    for (batched, durability) in cases() {
        let script = Script::default();
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        let start = tokio::time::Instant::now();
        let mut clients = Vec::new();
        for id in ["a", "b", "c"] {
            clients.push(tokio::spawn(crate::support::rig::watch(rig.get(id, None).await.into_body(), start)));
        }
        tokio::time::sleep(BEGINS).await;
        rig.store.fail(Fault::Hang);
        tokio::time::sleep(HEALS - BEGINS).await;
        rig.store.heal();
        for client in clients {
            let seen = client.await.unwrap();
            assert_unharmed(&seen, script);
            let late = delays(&seen, script).into_iter().filter(|(_, delay)| *delay > SLACK);
            for (number, delay) in late {
                let at = script.every * u32::try_from(number).unwrap() + delay;
                assert!(at <= KNOWN + SLACK && delay <= STORE_LIMIT + SLACK, "{number} is {delay:?} late, at {at:?}");
            }
        }
    }
}

/// Events are delivered even if nothing flushes and nothing beats.
#[tokio::test(start_paused = true)]
async fn g7_without_a_guardian_live_streams_flow() {
    for (batched, durability) in cases() {
        let script = Script::default();
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(BEGINS).await;
        rig.guardian.abort();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        for (number, delay) in delays(&seen, script) {
            assert!(delay <= STORE_LIMIT + SLACK, "{number} is {delay:?} late, batched {batched}");
            let settled = number > 50 + 35 && delay > SLACK;
            assert!(!settled, "{number} waits {delay:?} for nobody, batched {batched}, {durability:?}");
        }
        assert!(!rig.sse.health().guarded);
        if !batched {
            assert!(rig.recorded().await.into_iter().eq(1..=script.events), "such a store needs no flusher");
        }
    }
}
