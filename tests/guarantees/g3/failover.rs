//! G3: a store that loses acknowledged data, as in a failover, gets it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use resilient_sse::{
    BoxError, Builder, EndedStream, Event, MemoryStore, Owner, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore},
};

use crate::{
    client::Client,
    g3::terminal::recovered,
    stage::Stage,
    support::handlers::{App, Handler, Script, app},
};

const SECOND: Duration = Duration::from_secs(1);

fn stage(batched: bool, setup: impl Fn(Builder) -> Builder) -> Stage {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    Stage::on(if batched { store.batched() } else { store }, 1, setup)
}

fn route(stage: &Stage, handler: &Handler) -> App {
    app(stage.sse().generation().id(StreamId::path("/chat/{id}")), handler)
}

/// A stream whose end was acknowledged a moment ago; its client has seen four of its ten events.
async fn ended(batched: bool) -> (Stage, Client) {
    let mut stage = stage(batched, |hub| hub);
    stage.step().await;
    let app = route(&stage, &Handler::events(10));
    let mut client = stage.client(&app, "/chat/a");
    client.cut(4).await;
    stage.advance(SECOND * 3).await;
    assert_eq!(stage.state(&client).await, Some(StreamState::Completed));
    (stage, client)
}

/// The client is told of the lost events, and gets the end.
async fn gets_the_end(stage: Stage, mut client: Client) {
    assert_eq!(client.finish().await, 1);
    assert_eq!((client.witness.gaps, client.witness.ended.is_some()), (1, true));
    assert_eq!(client.connect().await, StatusCode::NO_CONTENT);
    let (status, body) = recovered(stage.sse(), "a").await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"completed".into()));
    assert_eq!(body["terminalEventData"], "-/a#1:end");
    stage.verdict().await;
}

#[tokio::test(start_paused = true)]
async fn g3_an_end_that_the_store_lost_is_back_within_a_beat() {
    for batched in [false, true] {
        let (mut stage, client) = ended(batched).await;
        stage.forget();
        let told = recovered(stage.sse(), "a").await.0;
        assert_eq!(told, StatusCode::SERVICE_UNAVAILABLE, "not 404: it may only have been forgotten");
        stage.advance(SECOND * 10).await;
        gets_the_end(stage, client).await;
    }
}

/// The time of a failover does not count: ends that were stored just before it are not forgotten meanwhile.
#[tokio::test(start_paused = true)]
async fn g3_an_end_that_was_lost_in_a_long_outage_is_told_again() {
    for batched in [false, true] {
        for fault in [Fault::Refuse, Fault::Hang] {
            let (mut stage, client) = ended(batched).await;
            stage.store.fail(fault);
            stage.advance(SECOND * 90).await;
            stage.forget();
            stage.store.heal();
            stage.advance(SECOND * 3).await;
            gets_the_end(stage, client).await;
        }
    }
}

/// A client that asks for the stream sooner is told to come again, and triggers the repair.
#[tokio::test(start_paused = true)]
async fn g3_a_client_that_comes_for_a_lost_end_has_it_fetched() {
    for batched in [false, true] {
        let (mut stage, mut client) = ended(batched).await;
        stage.forget();
        assert_eq!(client.connect().await, StatusCode::OK);
        assert_eq!(client.read_to_end().await, 0);
        stage.step().await;
        gets_the_end(stage, client).await;
    }
}

/// A follower is let go when the store forgets the stream, and finds the end when it comes back.
#[tokio::test(start_paused = true)]
async fn g3_a_store_that_was_away_is_told_again_at_once() {
    for batched in [false, true] {
        let (mut stage, client) = ended(batched).await;
        stage.forget();
        stage.store.reconnected();
        stage.step().await;
        gets_the_end(stage, client).await;
    }
}

/// The repair is repeated if it fails at first.
#[tokio::test(start_paused = true)]
async fn g3_a_lost_end_is_sent_until_it_lands() {
    for (batched, operation) in [(false, "close"), (true, "close"), (true, "reopen")] {
        let (mut stage, client) = ended(batched).await;
        stage.forget();
        stage.store.fail_on(operation, Fault::Refuse);
        stage.store.reconnected();
        stage.advance(Duration::from_millis(200)).await;
        assert_eq!(stage.state(&client).await, None);
        stage.store.heal();
        stage.advance(SECOND * 3).await;
        gets_the_end(stage, client).await;
    }
}

/// Deleted streams, and those older than a failover can lose, do not come back.
#[tokio::test(start_paused = true)]
async fn g6_what_is_over_does_not_come_back() {
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    for delete in [true, false] {
        let (mut stage, client) = ended(false).await;
        if delete {
            stage.sse().registry().delete(&key).await.unwrap();
        } else {
            // A beat follows, which confirms that the store is still the same.
            stage.advance(SECOND * 41).await;
        }
        stage.forget();
        stage.advance(SECOND * 11).await;
        assert_eq!(stage.state(&client).await, None);
    }
}

/// An `on_end` hook that was acknowledged saw the whole log, and does not run again without it.
#[tokio::test(start_paused = true)]
async fn g3_a_hook_that_was_acknowledged_does_not_run_again() {
    for acknowledges in [true, false] {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let mut stage = stage(false, move |hub| {
            let calls = Arc::clone(&counted);
            hub.on_end(move |_: EndedStream| {
                let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
                async move { if first && !acknowledges { Err(BoxError::from("not now")) } else { Ok(()) } }
            })
        });
        let app = route(&stage, &Handler::events(10));
        let mut client = stage.client(&app, "/chat/a");
        client.cut(4).await;
        stage.advance(SECOND * 3).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        stage.forget();
        stage.advance(SECOND * 11).await;
        assert_eq!(calls.load(Ordering::SeqCst), if acknowledges { 1 } else { 2 });
        gets_the_end(stage, client).await;
    }
}

/// A lost end is stored again in two steps: the stream is registered, then closed. In between it looks as if it ran.
#[tokio::test(start_paused = true)]
async fn g3_between_the_two_steps_of_a_lost_end_nobody_gets_it_twice_or_misses_it() {
    for batched in [false, true] {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let mut stage = Stage::on(if batched { store.batched() } else { store }, 2, move |hub| {
            let calls = Arc::clone(&counted);
            hub.on_end(move |_: EndedStream| {
                calls.fetch_add(1, Ordering::SeqCst);
                async { Ok::<_, BoxError>(()) }
            })
        });
        stage.step().await;
        let handler = Handler::events(10);
        let apps =
            [0, 1].map(|node: usize| app(stage.hubs[node].sse.generation().id(StreamId::path("/chat/{id}")), &handler));
        let mut half = stage.client(&apps[0], "/chat/a");
        half.cut(4).await;
        stage.advance(SECOND * 3).await;
        let mut whole = stage.client(&apps[0], "/chat/a");
        whole.finish().await;
        whole.has_all(10).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);

        stage.forget();
        // The first close finds nothing. The second one, after the registration, is slow too.
        stage.store.fail_on("close", Fault::Delay(Duration::from_millis(400)));
        stage.store.reconnected();
        stage.advance(Duration::from_millis(500)).await;
        assert_eq!(stage.state(&whole).await, Some(StreamState::Active), "registered again, and not closed yet");
        for app in &apps {
            whole.app = app.clone();
            assert_eq!(whole.connect().await, StatusCode::NO_CONTENT, "it has the end");
        }
        half.app = apps[1].clone();
        let mut reloaded = stage.client(&apps[0], "/chat/a");
        for client in [&mut half, &mut reloaded] {
            assert_eq!(client.connect().await, StatusCode::OK);
            client.read_ready().await;
            assert_eq!(client.witness.ended, None);
        }
        assert_eq!(stage.state(&whole).await, Some(StreamState::Active));

        stage.advance(SECOND).await;
        assert_eq!(stage.state(&whole).await, Some(StreamState::Completed));
        for client in [&mut half, &mut reloaded] {
            client.read_to_end().await;
            assert_eq!((client.witness.gaps, client.witness.restarts), (1, 0), "of what the store has lost");
            assert_eq!(client.witness.data.last().map(String::as_str), Some("-/a#1:end"));
        }
        for client in [&mut whole, &mut half, &mut reloaded] {
            assert_eq!(client.connect().await, StatusCode::NO_CONTENT);
        }
        stage.advance(SECOND * 120).await;
        assert_eq!((calls.load(Ordering::SeqCst), handler.calls()), (1, 1), "batched: {batched}");
        stage.verdict().await;
    }
}

/// Every running stream checks its state as soon as the store is known to be another.
#[tokio::test(start_paused = true)]
async fn g5_silent_streams_register_again_at_once_where_the_store_was_away() {
    for batched in [false, true] {
        let mut stage = stage(batched, |hub| hub);
        stage.step().await;
        let (script, gate) = Script::events(5).gated();
        let app = route(&stage, &Handler::plays(script));
        let mut client = stage.client(&app, "/chat/a");
        client.connect().await;
        gate.send_replace(2);
        client.read(2).await;
        stage.step().await;
        stage.forget();
        stage.store.reconnected();
        stage.step().await;
        assert_eq!(stage.state(&client).await, Some(StreamState::Active));
        gate.send_replace(6);
        client.read_ready().await;
        stage.step().await;
        client.read_to_end().await;
        client.has_all(5).await;
        stage.verdict().await;
    }
}

/// A store that hung and comes back as another is noticed by the first beat that it answers, which follows soon.
#[tokio::test(start_paused = true)]
async fn g5_an_outage_is_over_for_the_beats_too_when_it_is_over() {
    for fault in [Fault::Hang, Fault::Refuse] {
        let mut stage = stage(true, |hub| hub);
        stage.advance(SECOND * 12).await;
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
        let mut job = stage.sse().publisher().open(spec).await.unwrap();
        job.send(Event::new("one")).await.unwrap();
        stage.step().await;
        stage.store.fail(fault);
        stage.advance(SECOND * 60).await;
        stage.forget();
        stage.store.heal();
        // A hanging beat takes up to 2 s, and the next one follows within 1 s.
        stage.advance(SECOND * 3).await;
        let info = stage.sse().registry().stream(job.key()).await.unwrap();
        assert!(info.is_some_and(|info| info.state == StreamState::Active), "after {fault:?}");
    }
}

/// Another request notices first that the store answers again: a beat follows at once.
#[tokio::test(start_paused = true)]
async fn g5_a_beat_follows_when_the_breaker_closes() {
    let mut stage = stage(true, |hub| hub);
    stage.advance(SECOND).await;
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    stage.store.fail_on("publish", Fault::Hang);
    assert!(stage.sse().publisher().send(&key.owner, &key.id, Event::new("x")).await.is_err());
    assert_eq!(stage.sse().health().breaker, "open");
    stage.store.heal();
    stage.advance_only(&[], SECOND).await;
    let beats = stage.store.calls("beat");
    assert_eq!(stage.sse().registry().stream(&key).await.unwrap(), None);
    assert_eq!(stage.sse().health().breaker, "closed");
    stage.step().await;
    assert_eq!(stage.store.calls("beat"), beats + 1);
}

/// The inner service's own ids are stored again too.
#[tokio::test(start_paused = true)]
async fn g10_the_inner_id_comes_back_with_its_stream() {
    for batched in [false, true] {
        let mut stage = stage(batched, |hub| hub);
        stage.step().await;
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
        let mut job = stage.sse().publisher().open(spec).await.unwrap();
        job.send(Event::new("one").with_id("row-1")).await.unwrap();
        job.send(Event::new("two")).await.unwrap();
        stage.step().await;
        stage.forget();
        stage.store.reconnected();
        stage.step().await;
        let info = stage.sse().registry().stream(job.key()).await.unwrap().expect("registered again");
        assert_eq!(info.inner_id.as_deref(), Some("row-1"));
    }
}
