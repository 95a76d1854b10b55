//! The store refuses one stream and takes the others.

use std::time::Duration;

use resilient_sse::{
    Builder, Durability, Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec, StreamState,
    test_util::{Fault, FaultStore},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::rig::{Rig, Script, Seen, account, assert_unharmed, delays, key, millis, watch};

/// Timers of the paused clock are a millisecond coarse.
const SLACK: Duration = millis(5);
const BEGINS: Duration = millis(1010);
const HEALS: Duration = millis(4000);
const TERMINAL_LIMIT: Duration = Duration::from_secs(2);

fn cases() -> impl Iterator<Item = (bool, Durability)> {
    [false, true]
        .into_iter()
        .flat_map(|batched| [Durability::Buffered, Durability::BeforeSend].map(|durability| (batched, durability)))
}

/// Clients of the streams `a`, `b` and `c`.
async fn clients(rig: &Rig) -> Vec<JoinHandle<Vec<Seen>>> {
    let start = Instant::now();
    let mut clients = Vec::new();
    for id in ["a", "b", "c"] {
        clients.push(tokio::spawn(watch(rig.get(id, None).await.into_body(), start)));
    }
    clients
}

fn slowest(seen: &[Seen], script: Script) -> Duration {
    delays(seen, script).into_iter().map(|(_, delay)| delay).max().unwrap()
}

/// The refused stream is not recorded for a while, and no client waits for that, neither its own nor others.
#[tokio::test(start_paused = true)]
async fn g7_one_refused_stream_delays_nobody() {
    for (batched, durability) in cases() {
        let case = format!("batched {batched}, {durability:?}");
        let script = Script::default();
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        let clients = clients(&rig).await;
        tokio::time::sleep(BEGINS).await;
        rig.store.refuse_stream(key("a"));
        tokio::time::sleep(HEALS - BEGINS).await;
        assert!(rig.recorded().await.into_iter().eq(1..=50), "{case}: nothing more was taken");
        rig.store.heal();
        tokio::time::sleep(millis(1100)).await;
        assert!(rig.recorded().await.len() >= 200, "{case}: it is recorded again");
        for client in clients {
            let seen = client.await.unwrap();
            assert_unharmed(&seen, script);
            assert!(slowest(&seen, script) <= SLACK, "{case}: {:?} late", slowest(&seen, script));
        }
        let health = rig.sse.health();
        assert_eq!((health.store_errors, health.lost, health.recorded), (0, 0, 3 * script.events), "{case}");
        assert!(rig.recorded().await.into_iter().eq(1..=script.events), "{case}: what waited is recorded");
        assert_eq!(account(&rig.resume("junk").await, 1, script.events), 0, "{case}");
    }
}

/// Once the store takes the stream again, its events wait for their acknowledgement as before.
#[tokio::test(start_paused = true)]
async fn g2_a_stream_that_is_taken_again_is_a_normal_one() {
    for batched in [false, true] {
        let script = Script { events: 100, ..Script::default() };
        let rig = Rig::with(batched, script, |hub| hub.durability(Durability::BeforeSend), |layer| layer);
        let client = rig.client().await;
        rig.store.refuse_stream(key("a"));
        tokio::time::sleep(millis(500)).await;
        rig.store.heal();
        tokio::time::sleep(millis(1110)).await;
        rig.store.fail_on("append", Fault::Delay(millis(50)));
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        for (number, delay) in delays(&seen, script) {
            assert_eq!(delay > millis(40), number > 80, "{number} is {delay:?} late, batched {batched}");
        }
    }
}

/// The events that wait for the refused stream are limited, which leaves room for the others. Losses are reported.
#[tokio::test(start_paused = true)]
async fn g8_a_refused_stream_loses_its_own_events_only() {
    for (batched, durability) in cases() {
        let script = Script { padding: 100, ..Script::default() };
        let hub = |hub: Builder| hub.durability(durability).recorder_bytes(4096).max_event_bytes(1024);
        let rig = Rig::with(batched, script, hub, |layer| layer);
        let mut clients = clients(&rig).await;
        tokio::time::sleep(BEGINS).await;
        rig.store.refuse_stream(key("a"));
        tokio::time::sleep(HEALS - BEGINS).await;
        rig.store.heal();
        for client in clients.drain(1..) {
            assert_unharmed(&client.await.unwrap(), script);
        }
        let seen = clients.remove(0).await.unwrap();
        assert_unharmed(&seen, script);
        let (lost, recorded) = (rig.sse.health().lost, rig.recorded().await);
        assert!(lost > 100 && lost < 200, "{lost} lost");
        assert_eq!(recorded.len() as u64 + lost, script.events, "it alone lost any");
        assert_eq!(rig.sse.health().recorded + lost, 3 * script.events);
        let again = rig.resume(&seen[5].id).await;
        assert_eq!(account(&again, 6, script.events), lost);
        // Events are lost before and after the batch that was in flight.
        assert!(again.iter().filter(|seen| seen.name == "gap").count() <= 2);
    }
}

/// The end of the refused stream is delivered after the time that an end may wait, and stored as soon as possible.
#[tokio::test(start_paused = true)]
async fn g3_the_end_of_a_refused_stream_lands_later() {
    for (batched, durability) in cases() {
        for before_the_end in [millis(1), millis(500)] {
            let script = Script { events: 50, ..Script::default() };
            let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
            let mut clients = clients(&rig).await;
            tokio::time::sleep(script.length() - before_the_end).await;
            rig.store.refuse_stream(key("a"));
            for client in clients.drain(1..) {
                let seen = client.await.unwrap();
                assert_unharmed(&seen, script);
                assert!(seen.last().unwrap().at <= script.length() + SLACK);
            }
            let seen = clients.remove(0).await.unwrap();
            assert_unharmed(&seen, script);
            assert!(slowest(&seen, script) <= SLACK);
            assert!(seen.last().unwrap().at <= script.length() + TERMINAL_LIMIT + SLACK);
            assert_eq!(rig.info().await.unwrap().state, StreamState::Active);
            assert_eq!(rig.sse.health().breaker, "closed", "the store is well");
            rig.store.heal();
            tokio::time::sleep(millis(1100)).await;
            assert_eq!(rig.info().await.unwrap().state, StreamState::Completed);
            assert!(rig.recorded().await.into_iter().eq(1..=script.events));
            assert_eq!(rig.sse.health().lost, 0);
        }
    }
}

/// Ends that the store does not take delay no other stream's events.
#[tokio::test(start_paused = true)]
async fn g7_ends_that_fail_pause_nobody() {
    for (batched, durability) in cases() {
        let script = Script::default();
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        let client = rig.client().await;
        let mut publication = rig.sse.publisher().open(spec("job")).await.unwrap();
        rig.store.fail_on("close", Fault::Refuse);
        publication.send(Event::new("1")).await.unwrap();
        drop(publication);
        tokio::time::sleep(script.length() - millis(10)).await;
        assert_eq!(rig.sse.health().breaker, "closed");
        let tries = rig.store.calls("close");
        assert!((6..30).contains(&tries), "it is tried again, and not too often: {tries}");
        rig.store.heal();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        assert!(slowest(&seen, script) <= SLACK, "{:?}", slowest(&seen, script));
        tokio::time::sleep(millis(1100)).await;
        let ended = rig.sse.completions().completion(&key("job")).await.unwrap().expect("it landed");
        assert_eq!(ended.ending.state, StreamState::Failed);
    }
}

/// A stream that the store forgot and does not take back yet is treated like a refused one.
#[tokio::test(start_paused = true)]
async fn g7_a_stream_that_is_not_taken_back_is_not_waited_for() {
    for (batched, durability) in cases() {
        let script = Script::default();
        let rig = Rig::with(batched, script, |hub| hub.durability(durability), |layer| layer);
        let client = rig.client().await;
        tokio::time::sleep(BEGINS).await;
        rig.store.fail_on("reopen", Fault::Refuse);
        rig.store.forget();
        tokio::time::sleep(HEALS - BEGINS).await;
        assert_eq!(rig.sse.health().breaker, "closed");
        rig.store.heal();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        assert!(slowest(&seen, script) <= SLACK, "{:?}", slowest(&seen, script));
        assert!(rig.recorded().await.into_iter().eq(51..=script.events));
    }
}

fn spec(id: &str) -> StreamSpec {
    StreamSpec::new(Owner::ANONYMOUS, StreamId::new(id).unwrap())
}

/// A job does not wait for a store that refuses its stream.
#[tokio::test(start_paused = true)]
async fn g7_a_job_does_not_wait_for_a_refused_stream() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::new());
        let store = if batched { store.batched() } else { store };
        let (sse, guardian) = ResilientSse::builder(store.clone()).anonymous().build().unwrap();
        let guardian = tokio::spawn(guardian);
        let mut publication = sse.publisher().open(spec("job")).await.unwrap();
        store.refuse_stream(key("job"));
        let start = Instant::now();
        for number in 0..1000 {
            publication.send(Event::new(number.to_string())).await.unwrap();
        }
        assert!(start.elapsed() <= SLACK, "{:?}", start.elapsed());
        assert_eq!(sse.health().store_errors, 0);
        store.heal();
        publication.complete(Event::new("done")).await.unwrap();
        assert_eq!((sse.health().recorded, sse.health().lost), (1000, 0));
        guardian.abort();
    }
}

/// Nor does a body that runs without its client.
#[tokio::test(start_paused = true)]
async fn g7_a_detached_body_does_not_wait_for_a_refused_stream() {
    for batched in [false, true] {
        let script = Script { events: 2000, every: Duration::from_micros(100), ..Script::default() };
        let rig = Rig::new(batched, script);
        let body = rig.get("a", None).await;
        rig.store.refuse_stream(key("a"));
        drop(body);
        tokio::time::sleep(script.length() + millis(20)).await;
        assert_eq!((rig.sse.health().detached, rig.sse.health().store_errors), (0, 0), "it is done");
        rig.store.heal();
        tokio::time::sleep(millis(1100)).await;
        assert_eq!(rig.info().await.unwrap().state, StreamState::Completed);
        assert!(rig.recorded().await.into_iter().eq(1..=script.events));
    }
}
