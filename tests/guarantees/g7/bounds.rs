//! Events that exceed the room are lost, counted and reported.

use resilient_sse::{
    Builder, Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec,
    test_util::{Fault, FaultStore, TestHub},
};

use crate::support::rig::{Rig, Script, account, assert_unharmed, millis};

/// The oldest waiting events are lost. The live client sees them, and later clients are told by one gap.
#[tokio::test(start_paused = true)]
async fn g7_beyond_the_byte_limit_the_oldest_are_lost_and_told() {
    for batched in [false, true] {
        let script = Script { padding: 100, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.recorder_bytes(4096).max_event_bytes(1024), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(millis(1000)).await;
        rig.store.fail(Fault::Hang);
        tokio::time::sleep(millis(3000)).await;
        rig.store.heal();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        let lost = rig.sse.health().lost;
        let recorded = rig.recorded().await;
        assert_eq!(recorded.len() as u64 + lost, script.events, "each is recorded or counted");
        assert!(lost > 100 && lost < 200, "{lost} lost");
        assert!(recorded.windows(2).filter(|pair| pair[1] != pair[0] + 1).count() == 1, "one hole: {recorded:?}");
        let again = rig.resume(&seen[5].id).await;
        assert_eq!(account(&again, 6, script.events), lost);
        assert_eq!(again.iter().filter(|seen| seen.name == "gap").count(), 1);
    }
}

/// A loss at the very end of the log is reported too.
#[tokio::test(start_paused = true)]
async fn g1_a_loss_at_the_end_is_told() {
    for batched in [false, true] {
        let script = Script { events: 60, padding: 600, ..Script::default() };
        // There is room for one event, but not for the end beside it.
        let rig = Rig::with(batched, script, |hub| hub.recorder_bytes(700).max_event_bytes(700), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(script.length() / 2).await;
        rig.store.fail(Fault::Hang);
        tokio::time::sleep(script.length() + millis(3000)).await;
        rig.store.heal();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        tokio::time::sleep(millis(2000)).await;
        let (lost, recorded) = (rig.sse.health().lost, rig.recorded().await);
        assert_eq!(recorded.len() as u64 + lost, script.events, "batched {batched}");
        assert!(lost > 20 && !recorded.contains(&script.events), "the end of the log is what is lost: {recorded:?}");
        assert_eq!(account(&rig.resume(&seen[5].id).await, 6, script.events), lost);
    }
}

/// Room that could never hold an event of the largest size is refused where it is set.
#[test]
fn g8_room_for_less_than_an_event_is_no_setting() {
    for (room, event, fits) in [(1000, 1001, false), (1000, 1000, true), (600, 1 << 20, false)] {
        let hub = ResilientSse::builder(MemoryStore::new()).anonymous();
        let built = hub.recorder_bytes(room).max_event_bytes(event).build();
        assert_eq!(built.is_ok(), fits, "{room} bytes of room, events of {event}");
        if let Err(error) = built {
            let error = error.to_string();
            assert!(error.contains("`recorder_bytes`") && error.contains("`max_event_bytes`"), "{error}");
        }
    }
}

/// The room counts the bytes as written, ids included. An event of the largest size waits for the store like any other.
#[tokio::test(start_paused = true)]
async fn g8_there_is_room_for_the_largest_event() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let store = if batched { store.batched() } else { store };
        let setup = |builder: Builder| builder.anonymous().max_event_bytes(1000).recorder_bytes(1000);
        let mut hub = TestHub::on(store, setup).unwrap();
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("x".repeat(128)).unwrap());
        let mut job = hub.sse.publisher().open(spec).await.unwrap();
        hub.store.fail(Fault::Hang);
        let largest = "y".repeat(1000 - "data: \n\n".len());
        let sent = tokio::spawn(async move {
            job.send(Event::new(largest)).await.unwrap();
            assert!(job.send(Event::new("y".repeat(1000))).await.is_err(), "a larger one");
            job
        });
        hub.advance(millis(3000)).await;
        hub.store.heal();
        hub.advance(millis(8000)).await;
        assert_eq!((hub.sse.health().lost, hub.sse.health().recorded), (0, 1), "batched {batched}");
        drop(sent.await.unwrap());
    }
}

/// Room is given back once events are stored, lost or given up: the next stream has the whole limit.
#[tokio::test(start_paused = true)]
async fn g6_the_byte_limit_is_given_back() {
    for batched in [false, true] {
        let script = Script { events: 60, padding: 100, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.recorder_bytes(60 * 160).max_event_bytes(1024), |layer| layer);
        for round in 0..4 {
            let id = format!("stream-{round}");
            let start = tokio::time::Instant::now();
            let client = tokio::spawn(crate::support::rig::watch(rig.get(&id, None).await.into_body(), start));
            tokio::time::sleep(millis(200)).await;
            rig.store.fail(if round % 2 == 0 { Fault::Hang } else { Fault::LoseReply });
            tokio::time::sleep(millis(3000)).await;
            rig.store.heal();
            assert_unharmed(&client.await.unwrap(), script);
            tokio::time::sleep(millis(2000)).await;
        }
        assert_eq!((rig.sse.health().lost, rig.sse.health().recorded), (0, 4 * script.events), "batched {batched}");
    }
}

/// Waiting events make room for the end of their own stream. The end is never lost.
#[tokio::test(start_paused = true)]
async fn g3_an_end_finds_room_among_the_events_that_wait() {
    for batched in [false, true] {
        let script = Script { padding: 200, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.recorder_bytes(600).max_event_bytes(600), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(script.length() - millis(100)).await;
        rig.store.fail(Fault::Hang);
        tokio::time::sleep(millis(5000)).await;
        rig.store.heal();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        tokio::time::sleep(millis(2000)).await;
        assert_eq!(rig.recover().await["status"], "completed", "batched {batched}");
        let lost = rig.sse.health().lost;
        assert_eq!(rig.recorded().await.len() as u64 + lost, script.events, "each is recorded or counted");
        assert_eq!(account(&rig.resume(&seen[5].id).await, 6, script.events), lost);
    }
}
