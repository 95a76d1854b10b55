//! The store fails when a stream ends.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{Durability, EventId, StreamState, test_util::Fault};

use crate::support::rig::{Rig, Script, account, assert_unharmed, key, millis, watch_with};

const TERMINAL_LIMIT: Duration = Duration::from_secs(2);
const SLACK: Duration = millis(5);

/// Ends a stream while the store fails. Returns the delay of the terminal event.
async fn end_in_outage(fault: Fault, batched: bool, heals_after: Duration) -> Duration {
    let script = Script { events: 50, ..Script::default() };
    let rig = Rig::new(batched, script);
    let client = rig.client().await;
    tokio::time::sleep(script.length() - millis(30)).await;
    rig.store.fail(fault);
    tokio::time::sleep(heals_after + millis(30)).await;
    rig.store.heal();
    let seen = client.await.unwrap();
    assert_unharmed(&seen, script);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let info = rig.info().await.unwrap();
    assert_eq!(info.state, StreamState::Completed, "the close is retried until it lands");
    let ended = info.ended.unwrap();
    assert_eq!(ended.last, EventId::new(info.epoch, script.events));
    assert!(rig.recorded().await.into_iter().eq(1..=script.events), "and all before it");
    let recovered = rig.recover().await;
    assert_eq!(recovered["status"], "completed", "{recovered}");
    assert_eq!(
        (&recovered["terminalEventType"], &recovered["terminalEventData"]),
        (&"completed".into(), &"done".into())
    );

    let end = seen.last().unwrap();
    assert_eq!(rig.get("a", Some(&end.id)).await.status(), 204);
    assert_eq!(account(&rig.resume(&seen[10].id).await, 11, script.events), 0);
    assert_eq!(rig.sse.health().lost, 0);
    end.at.saturating_sub(script.length())
}

#[tokio::test(start_paused = true)]
async fn g3_a_terminal_event_waits_two_seconds_for_a_store_that_is_gone() {
    for batched in [false, true] {
        for fault in [Fault::Hang, Fault::Refuse, Fault::Delay(Duration::from_secs(60))] {
            let late = end_in_outage(fault, batched, Duration::from_secs(7)).await;
            let limit = TERMINAL_LIMIT..=TERMINAL_LIMIT + SLACK;
            assert!(limit.contains(&late), "{late:?} late, {fault:?}, batched {batched}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_terminal_event_goes_out_as_soon_as_it_is_stored() {
    for batched in [false, true] {
        for fault in [Fault::Hang, Fault::Refuse] {
            let late = end_in_outage(fault, batched, millis(200)).await;
            assert!(late > millis(150) && late < TERMINAL_LIMIT - millis(200), "{late:?} late, {fault:?}");
        }
        // The store executes each request, but the replies are lost. The last reply reports what it finds.
        let late = end_in_outage(Fault::LoseReply, batched, millis(300)).await;
        assert!(late < TERMINAL_LIMIT, "{late:?} late");
    }
}

/// Guarantee G2: terminal events are always acknowledged first.
#[tokio::test(start_paused = true)]
async fn g2_a_terminal_event_is_stored_before_it_is_seen() {
    for (batched, durability) in
        [(false, Durability::Buffered), (true, Durability::Buffered), (true, Durability::BeforeSend)]
    {
        let script = Script { events: 20, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        rig.store.fail_on("close", Fault::Delay(millis(300)));
        let start = tokio::time::Instant::now();
        let body = rig.get("a", None).await.into_body();
        let seen = watch_with(body, start, |seen| {
            let completion = rig.sse.completions();
            let ended = completion.completion(&key("a")).now_or_never();
            assert!(seen.name != "completed" || ended.unwrap().unwrap().is_some(), "not stored yet");
        })
        .await;
        assert_unharmed(&seen, script);
        let late = seen.last().unwrap().at.saturating_sub(script.length());
        assert!(late >= millis(300) && late <= millis(300) + SLACK, "{late:?}");
    }
}

/// The time for which an earlier event waited does not shorten the wait of the end.
#[tokio::test(start_paused = true)]
async fn g3_an_end_has_its_own_two_seconds() {
    for batched in [false, true] {
        let script = Script { events: 10, every: millis(150), ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
        rig.store.fail_on("append", Fault::Delay(millis(100)));
        rig.store.fail_on("close", Fault::Hang);
        let seen = rig.client().await.await.unwrap();
        assert_unharmed(&seen, script);
        let [.., last, end] = &seen[..] else { panic!("too few") };
        let waited = end.at.saturating_sub(last.at);
        assert!(waited >= TERMINAL_LIMIT - SLACK, "{waited:?}, batched {batched}");
    }
}
