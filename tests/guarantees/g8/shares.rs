//! G8: the room for waiting events is shared fairly in an outage, and exactly the waiting bytes are charged.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{
    Event, MemoryStore, Owner, Publication, RecordKind, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, TestHub},
    wire::{Framing as _, Sse},
};

use crate::support::rig::millis;

const ROOM: usize = 64 << 10;

fn hub(batched: bool) -> TestHub {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    let store = if batched { store.batched() } else { store };
    TestHub::on(store, |builder| builder.anonymous().recorder_bytes(ROOM).max_event_bytes(ROOM)).unwrap()
}

fn key(owner: &str, id: &str) -> StreamKey {
    StreamKey::new(Owner::new(owner).unwrap(), StreamId::new(id).unwrap())
}

async fn open(hub: &TestHub, owner: &str, id: &str) -> Publication {
    let key = key(owner, id);
    hub.sse.publisher().open(StreamSpec::new(key.owner, key.id)).await.unwrap()
}

/// Opens the breaker, so that nothing waits for the store any more.
async fn outage(hub: &mut TestHub) {
    hub.store.fail(Fault::Hang);
    let other = key("other", "other");
    assert!(hub.sse.publisher().send(&other.owner, &other.id, Event::new("x")).await.is_err());
    assert_eq!(hub.sse.health().breaker, "open");
}

fn say(job: &mut Publication, text: impl Into<String>) {
    job.send(Event::new(text.into())).now_or_never().expect("nobody waits").unwrap();
}

/// Returns the data of the events in the log.
async fn recorded(hub: &TestHub, owner: &str, id: &str) -> Vec<String> {
    let page = hub.sse.completions().events(&key(owner, id), None, usize::MAX).await.unwrap().unwrap();
    let data = |kind: &RecordKind| match kind {
        RecordKind::Events(event) => Some(Sse.view(&event.bytes).data.into_owned()),
        _ => None,
    };
    page.records.iter().filter_map(|record| data(&record.kind)).collect()
}

async fn heal(hub: &mut TestHub) {
    hub.store.heal();
    hub.advance(millis(5000)).await;
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn g8_one_loud_stream_costs_a_quiet_one_nothing() {
    const QUIET: usize = 1200;
    for batched in [false, true] {
        let mut hub = hub(batched);
        let (mut loud, mut quiet) = (open(&hub, "a", "loud").await, open(&hub, "a", "quiet").await);
        hub.advance(millis(500)).await;
        outage(&mut hub).await;
        for n in 0..20 {
            // Between any two events of the quiet stream the loud one makes more than there is room for.
            for _ in 0..100 {
                say(&mut loud, "x".repeat(1000));
            }
            // Larger than what the loud one's last event may have left free.
            say(&mut quiet, format!("{n} {}", "x".repeat(QUIET)));
        }
        say(&mut loud, "the last one");
        heal(&mut hub).await;
        let quiet = recorded(&hub, "a", "quiet").await;
        let numbers: Vec<_> = quiet.iter().filter_map(|text| text.split(' ').next()).collect();
        assert_eq!(numbers, numbered(20), "batched {batched}");
        let kept = recorded(&hub, "a", "loud").await;
        assert_eq!(kept.last().map(String::as_str), Some("the last one"), "the oldest are given up");
        assert_eq!(kept.len() as u64 + hub.sse.health().lost, 2001, "each is recorded or counted");
        let left = (ROOM - 20 * (QUIET + 50)) / 1050;
        assert!(kept.len() > left * 7 / 8, "no more is given up than is needed: {} of {left}", kept.len());
    }
}

#[tokio::test(start_paused = true)]
async fn g8_an_owner_of_many_streams_costs_another_owner_nothing() {
    for batched in [false, true] {
        let mut hub = hub(batched);
        let mut many = Vec::new();
        for n in 0..50 {
            many.push(open(&hub, "many", &n.to_string()).await);
        }
        let mut one = open(&hub, "one", "a").await;
        hub.advance(millis(500)).await;
        outage(&mut hub).await;
        for n in 0..40 {
            for job in &mut many {
                say(job, "x".repeat(200));
            }
            // This owner's events are larger, and so is the share that its one stream holds in the end.
            say(&mut one, format!("{n} {}", "x".repeat(500)));
        }
        heal(&mut hub).await;
        assert_eq!(recorded(&hub, "one", "a").await.len(), 40, "batched {batched}");
        assert!(hub.sse.health().lost > 1000);
        let mut kept = Vec::new();
        for n in 0..50 {
            kept.push(recorded(&hub, "many", &n.to_string()).await.len());
        }
        assert!(kept.iter().all(|kept| (2..=8).contains(kept)), "its streams share what it has: {kept:?}");
    }
}

/// A batch that was sent and not acknowledged takes room, and is given up, like any other.
#[tokio::test(start_paused = true)]
async fn g8_batches_that_wait_to_be_sent_again_are_given_up_too() {
    let mut hub = hub(true);
    let mut many = Vec::new();
    for n in 0..16 {
        many.push(open(&hub, "many", &n.to_string()).await);
    }
    let mut one = open(&hub, "one", "a").await;
    hub.advance(millis(500)).await;
    hub.store.fail(Fault::Refuse);
    for job in &mut many {
        let mut sending = Box::pin(job.send(Event::new("x".repeat(4000))));
        assert!((&mut sending).now_or_never().is_some());
    }
    hub.advance(millis(3000)).await;
    for n in 0..20 {
        say(&mut one, format!("{n} {}", "x".repeat(1000)));
    }
    heal(&mut hub).await;
    assert_eq!(recorded(&hub, "one", "a").await.len(), 20);
    assert!((4..=9).contains(&hub.sse.health().lost), "{}", hub.sse.health().lost);
}

#[tokio::test(start_paused = true)]
async fn g8_an_end_is_charged_with_its_event_and_leaves_room_for_others() {
    for batched in [false, true] {
        let mut hub = hub(batched);
        let mut jobs = Vec::new();
        for n in 0..20 {
            jobs.push(open(&hub, "many", &n.to_string()).await);
        }
        let mut quiet = open(&hub, "many", "quiet").await;
        hub.advance(millis(500)).await;
        outage(&mut hub).await;
        for job in &mut jobs {
            say(job, "x".repeat(3000));
            assert!(job.complete(Event::new("e".repeat(10_000))).now_or_never().is_none());
        }
        // Half of the room is for events, whatever the ends take.
        assert!(hub.sse.health().lost >= 10, "what the ends have displaced: {}", hub.sse.health().lost);
        for n in 0..20 {
            say(&mut quiet, n.to_string());
        }
        hub.advance(millis(3000)).await;
        drop(jobs);
        hub.store.heal();
        hub.store.fail_on("close", Fault::Hang);
        hub.shut_down_on(std::future::ready(()));
        for _ in 0..200 {
            hub.advance(Duration::from_millis(250)).await;
        }
        let report = hub.report().expect("it is down");
        assert_eq!(recorded(&hub, "many", "quiet").await, numbered(20), "batched {batched}");
        assert!(report.unrecorded_bytes >= 20 * 10_000, "what is held is what is charged: {report:?}");
        drop(quiet);
    }
}

#[tokio::test(start_paused = true)]
async fn g6_an_end_that_no_store_takes_is_given_up_after_its_recovery_window() {
    for batched in [false, true] {
        for refused in [false, true] {
            let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
            let store = if batched { store.batched() } else { store };
            let mut hub =
                TestHub::on(store, |builder| builder.anonymous().recovery_window(Duration::from_secs(200))).unwrap();
            let mut job = open(&hub, "a", "a").await;
            say(&mut job, "one");
            hub.advance(millis(500)).await;
            if refused {
                hub.store.refuse_stream(key("a", "a"));
            } else {
                hub.store.fail(Fault::Hang);
            }
            drop(job.complete(Event::new("done")).now_or_never());
            drop(job);
            hub.advance(Duration::from_secs(190)).await;
            let health = hub.sse.health();
            assert_eq!((health.active, health.ends_given_up), (1, 0), "it is tried for as long as it is of use");
            hub.advance(Duration::from_secs(25)).await;
            let health = hub.sse.health();
            assert_eq!((health.active, health.ends_given_up), (0, 1), "batched {batched}, refused {refused}");
            let appends = hub.store.calls("append");
            hub.advance(Duration::from_secs(60)).await;
            assert_eq!(hub.store.calls("append"), appends, "nobody asks any more");
        }
    }
}

/// Within its window an end is stored, however late.
#[tokio::test(start_paused = true)]
async fn g3_an_end_lands_as_long_as_its_recovery_window_lasts() {
    let mut hub = hub(true);
    let mut job = open(&hub, "a", "a").await;
    say(&mut job, "one");
    hub.advance(millis(500)).await;
    hub.store.refuse_stream(key("a", "a"));
    drop(job.complete(Event::new("done")).now_or_never());
    hub.advance(Duration::from_secs(290)).await;
    hub.store.heal();
    hub.advance(Duration::from_secs(5)).await;
    let ended = hub.sse.completions().completion(&key("a", "a")).await.unwrap().expect("it landed");
    assert_eq!((ended.ending.state, hub.sse.health().ends_given_up), (StreamState::Completed, 0));
}

/// A producer that is faster than the store waits before it fills the room: without an outage nothing is lost.
#[tokio::test(start_paused = true)]
async fn g8_a_fast_publication_of_large_events_waits_for_a_slow_store() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let mut hub = TestHub::on(store, |builder| builder.anonymous().recorder_bytes(4 << 20)).unwrap();
    hub.store.fail_on("append", Fault::Delay(millis(20)));
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let mut job = hub.sse.publisher().open(spec).await.unwrap();
    let mut sent = 0;
    for _ in 0..100_000 {
        if sent == 200 {
            break;
        }
        match job.send(Event::new("x".repeat(64 << 10))).now_or_never() {
            Some(result) => drop(result.unwrap()),
            // The event goes to the recorder at once, and then waits.
            None => hub.advance(millis(30)).await,
        }
        sent += 1;
    }
    hub.advance(millis(5000)).await;
    assert_eq!((sent, hub.sse.health().lost, hub.sse.health().recorded), (200, 0, 200));
}
