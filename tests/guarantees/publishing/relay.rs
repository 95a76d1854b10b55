//! The relay follows streams that jobs publish, and waits for streams that are not open yet.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use resilient_sse::{
    AnswerBody, Event, MemoryStore, Owner, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, Seen, TestHub},
};
use tower::ServiceExt as _;

use crate::support::bodies::{Client, Step, Watch, app, assert_no_empty_block, chunk, request, resuming, send, then};

fn id() -> StreamId {
    StreamId::new("a").unwrap()
}

fn spec() -> StreamSpec {
    StreamSpec::new(Owner::ANONYMOUS, id())
}

async fn relay(hub: &TestHub, cursor: Option<&str>) -> http::Response<AnswerBody> {
    let request = cursor.map_or_else(|| request("/jobs/a"), |cursor| resuming("/jobs/a", cursor));
    hub.sse.relay().id(StreamId::path("/jobs/{id}")).oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_relay_answers_at_once_and_waits_for_30_seconds_with_heartbeats() {
    let mut hub = TestHub::new();
    let response = relay(&hub, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-stream-id"], "a");
    let mut client = Client::new(response.into_body());
    client.drain();
    assert_eq!(client.seen[0].name, "connected");
    for _ in 0..29 {
        hub.advance(Duration::from_secs(1)).await;
        client.drain();
        assert!(!client.ended);
    }
    assert!(client.bytes.ends_with(b": heartbeat\n"));
    hub.advance(Duration::from_secs(2)).await;
    client.drain();
    hub.advance(Duration::from_secs(1)).await;
    client.drain();
    assert!(client.ended);
    let text = String::from_utf8(client.bytes.clone()).unwrap();
    assert_eq!(text.matches("retry: ").count(), 1, "{text}");
    assert_no_empty_block(&client.bytes);
    drop(client);
    assert_eq!(hub.store.calls("open"), 0, "it never registers");
    assert_eq!(hub.sse.health().followers, 0);
    hub.advance(Duration::from_secs(31)).await;
    assert!(hub.store.inner().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_relay_follows_what_is_opened_while_it_waits_on_another_node() {
    let store = FaultStore::new(MemoryStore::new());
    let mut hub = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let worker = TestHub::on(store, |builder| builder.anonymous().seed(2)).unwrap();
    let mut client = Client::new(relay(&hub, None).await.into_body());
    client.drain();
    hub.advance(Duration::from_secs(20)).await;
    let mut job = worker.sse.publisher().open(spec()).await.unwrap();
    job.send(Event::new("one")).await.unwrap();
    client.drain();
    assert_eq!(client.data(), ["one"]);
    hub.advance(Duration::from_secs(20)).await;
    client.drain();
    assert!(!client.ended, "an opened stream has no such limit");
    job.complete(Event::new("two")).await.unwrap();
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["one", "two"]);
    let last = client.last_id();
    assert_eq!(relay(&hub, Some(&last)).await.status(), StatusCode::NO_CONTENT);
    let after_one = client.seen[1].id.clone();
    let mut again = Client::new(relay(&hub, Some(&after_one)).await.into_body());
    again.finish(&mut hub).await;
    assert_eq!(again.data(), ["two"]);
}

/// A stream that is open is not waited for, however long its events take from the store.
#[tokio::test(start_paused = true)]
async fn g1_a_relay_that_does_not_wait_gives_what_there_is() {
    let store = FaultStore::new(MemoryStore::new());
    let mut worker = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let mut job = worker.sse.publisher().open(spec()).await.unwrap();
    job.send(Event::new("one")).await.unwrap();
    job.complete(Event::new("two")).await.unwrap();
    worker.step().await;
    let setup = |builder: resilient_sse::Builder| builder.anonymous().relay_wait(Duration::ZERO).seed(2);
    let mut hub = TestHub::on(store.batched(), setup).unwrap();
    let mut client = Client::new(relay(&hub, None).await.into_body());
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["one", "two"]);
}

/// A past error does not count against the page that is on its way.
#[tokio::test(start_paused = true)]
async fn g1_a_relay_whose_stream_is_opened_at_the_last_moment_gives_it_also_after_an_error() {
    for fails in [false, true] {
        let store = FaultStore::new(MemoryStore::new()).batched();
        let mut hub = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
        let mut worker = TestHub::on(store.clone(), |builder| builder.anonymous().seed(2)).unwrap();
        let mut client = Client::new(relay(&hub, None).await.into_body());
        if fails {
            store.fail_on("read", Fault::Refuse);
        }
        client.drain();
        for _ in 0..118 {
            hub.advance(Duration::from_millis(250)).await;
            store.heal();
            client.drain();
        }
        store.fail_on("read", Fault::Delay(Duration::from_secs(1)));
        let mut job = worker.sse.publisher().open(spec()).await.unwrap();
        job.send(Event::new("one")).await.unwrap();
        job.complete(Event::new("two")).now_or_never();
        for _ in 0..20 {
            client.drain();
            worker.step().await;
            hub.advance(Duration::from_millis(250)).await;
        }
        client.finish(&mut hub).await;
        assert_eq!(client.data(), ["one", "two"], "fails {fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_sees_a_stream_that_is_published_anew_after_it_expired() {
    // With and without a sweep between the expiry and the relay, and between the relay and the new stream.
    for (swept_before, swept_between) in [(false, false), (true, false), (false, true)] {
        let setup = |builder: resilient_sse::Builder| builder.anonymous().recovery_window(Duration::from_secs(5));
        let mut hub = TestHub::with(setup).unwrap();
        let job = hub.sse.publisher().open(spec()).await.unwrap();
        job.complete(Event::new("old")).await.unwrap();
        if swept_before {
            hub.advance(Duration::from_secs(31)).await;
        } else {
            tokio::time::advance(Duration::from_secs(6)).await;
        }
        let mut client = Client::new(relay(&hub, None).await.into_body());
        client.drain();
        if swept_between {
            hub.advance(Duration::from_millis(25_500)).await;
        }
        let mut job = hub.sse.publisher().open(spec()).await.unwrap();
        client.drain();
        job.send(Event::new("new")).await.unwrap();
        client.drain();
        assert_eq!(client.data(), ["new"], "{swept_before} {swept_between}");
        job.complete(Event::new("end")).await.unwrap();
        client.finish(&mut hub).await;
        assert_eq!(client.data(), ["new", "end"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_refuses_a_stream_that_existed_and_expired() {
    let mut hub = TestHub::with(|builder| builder.anonymous().recovery_window(Duration::from_secs(5))).unwrap();
    let mut job = hub.sse.publisher().open(spec()).await.unwrap();
    let cursor = job.send(Event::new("one")).await.unwrap().to_string();
    job.complete(Event::new("two")).await.unwrap();
    hub.advance(Duration::from_secs(60)).await;
    assert_eq!(relay(&hub, Some(&cursor)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(relay(&hub, Some("gibberish")).await.status(), StatusCode::OK);
    assert_eq!(relay(&hub, None).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_a_dropped_publication_tells_that_it_failed() {
    let mut hub = TestHub::new();
    let mut client = Client::new(relay(&hub, None).await.into_body());
    client.drain();
    let mut job = hub.sse.publisher().open(spec()).await.unwrap();
    job.send(Event::new("one")).await.unwrap();
    drop(job);
    client.finish(&mut hub).await;
    assert_eq!(client.names(), ["message", "failed"]);
    assert_eq!(client.data(), ["one", r#"{"reason":"dropped"}"#]);
}

/// The store does not answer when the request arrives, and answers a moment later.
#[tokio::test(start_paused = true)]
async fn g12_a_relay_ends_cleanly_for_a_client_that_has_the_end() {
    for (batched, gone) in [(false, false), (true, false), (false, true), (true, true)] {
        let store = FaultStore::new(MemoryStore::new());
        let worker = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
        let store = if batched { store.batched() } else { store };
        let mut hub = TestHub::on(store, resilient_sse::Builder::anonymous).unwrap();
        let mut job = worker.sse.publisher().open(spec()).await.unwrap();
        job.send(Event::new("one")).await.unwrap();
        job.complete(Event::new("two")).await.unwrap();
        let mut client = Client::new(relay(&hub, None).await.into_body());
        client.finish(&mut hub).await;
        let end = client.last_id();
        if gone {
            hub.sse.completions().delete(&StreamKey::new(Owner::ANONYMOUS, id())).await.unwrap();
        }
        hub.store.fail_on("info", Fault::Refuse);
        let response = relay(&hub, Some(&end)).await;
        hub.store.heal();
        assert_eq!(response.status(), StatusCode::OK, "it is not known yet");
        let mut client = Client::new(response.into_body());
        client.drain();
        hub.advance(Duration::from_secs(1)).await;
        client.drain();
        assert_eq!((client.ended, client.broke), (true, false), "batched: {batched}, gone: {gone}");
        assert!(client.data().is_empty(), "{:?}", client.data());
        assert_eq!(relay(&hub, Some(&end)).await.status(), StatusCode::NO_CONTENT);
    }
}

/// A relay's ids are cursors on the stream's own route, even if the store did not answer at first what stream it is.
#[tokio::test(start_paused = true)]
async fn g1_a_relay_gives_the_ids_of_a_stream_that_it_learned_of_later() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::new());
        let store = if batched { store.batched() } else { store };
        let mut hub = TestHub::on(store, resilient_sse::Builder::anonymous).unwrap();
        let steps = then(vec![chunk("retry: 7000\n\n"), chunk("data: one\n\n"), chunk("data: two\n\n")], Step::Hang);
        let app = app(hub.sse.generation(), &Watch::default(), steps);
        let response = send(&app, request("/")).await;
        let uuid = response.headers()["x-stream-id"].to_str().unwrap().to_owned();
        let mut own = Client::new(response.into_body());
        own.drain();
        hub.advance(Duration::from_secs(1)).await;
        own.drain();
        hub.store.fail_on("info", Fault::Refuse);
        let mut relayed = Client::new(hub.sse.relay().oneshot(request(&format!("/{uuid}"))).await.unwrap().into_body());
        relayed.drain();
        hub.advance(Duration::from_secs(1)).await;
        assert_eq!(relayed.data(), ["one", "two"], "a page says what it is called");
        hub.store.heal();
        for _ in 0..10 {
            hub.advance(Duration::from_secs(1)).await;
            relayed.drain();
        }
        assert_eq!(relayed.data(), ["one", "two"], "batched: {batched}");
        let ids = |client: &[Seen]| client.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&relayed.seen), ids(&own.seen), "batched: {batched}");
        assert!(relayed.last_id().starts_with(&uuid));
        let text = String::from_utf8(relayed.bytes.clone()).unwrap();
        assert!(text.contains("retry: 7000\n"), "the inner service's delay: {text}");
    }
}

/// A client that asks for new events only gets every event of a stream that is opened after its request, and of a
/// stream that is open those after its request.
#[tokio::test(start_paused = true)]
async fn g1_a_client_that_waits_for_new_events_gets_the_first_one_of_a_new_stream() {
    for sent in [false, true] {
        for (batched, fails) in [(false, false), (true, false), (true, true)] {
            let store = FaultStore::new(MemoryStore::new());
            let store = if batched { store.batched() } else { store };
            if fails {
                store.fail_on("info", Fault::Refuse);
            }
            let mut worker = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
            let mut hub = TestHub::on(store, |builder| builder.anonymous().seed(2)).unwrap();
            let mut client = Client::new(relay(&hub, Some("$")).await.into_body());
            client.drain();
            hub.advance(Duration::from_secs(1)).await;
            client.drain();
            hub.store.heal();
            for _ in 0..5 {
                hub.advance(Duration::from_secs(1)).await;
                client.drain();
            }
            let mut job = None;
            for data in ["one", "two"] {
                if sent {
                    worker.sse.publisher().send(&Owner::ANONYMOUS, &id(), Event::new(data)).await.unwrap();
                } else {
                    if job.is_none() {
                        job = Some(worker.sse.publisher().open(spec()).await.unwrap());
                    }
                    job.as_mut().unwrap().send(Event::new(data)).await.unwrap();
                }
                worker.step().await;
                client.drain();
            }
            hub.advance(Duration::from_secs(1)).await;
            client.drain();
            assert_eq!(client.data(), ["one", "two"], "sent {sent}, batched {batched}, fails {fails}");
            let mut late = Client::new(relay(&hub, Some("$")).await.into_body());
            late.drain();
            hub.advance(Duration::from_secs(1)).await;
            late.drain();
            assert_eq!(late.data(), Vec::<String>::new(), "sent {sent}, batched {batched}");
        }
    }
}

/// A publisher may give its streams a longer life than the hub's. A shorter one counts as the hub's.
#[tokio::test(start_paused = true)]
async fn a_quiet_stream_lives_as_long_as_its_publisher_says() {
    let minute = Duration::from_secs(60);
    let quiet = StreamKey::new(Owner::ANONYMOUS, id());
    for (lifetime, state) in [(minute * 30, StreamState::Active), (minute, StreamState::Expired)] {
        let mut hub = TestHub::with(|builder| builder.anonymous().lifetime(minute * 5)).unwrap();
        let publisher = hub.sse.publisher().lifetime(lifetime);
        publisher.send(&Owner::ANONYMOUS, &id(), Event::new("one")).await.unwrap();
        let mut client = Client::new(relay(&hub, None).await.into_body());
        hub.advance(minute * 4).await;
        client.drain();
        assert_eq!(hub.sse.registry().stream(&quiet).await.unwrap().unwrap().state, StreamState::Active);
        for _ in 0..3 {
            hub.advance(minute).await;
            client.drain();
        }
        assert_eq!(hub.sse.registry().stream(&quiet).await.unwrap().unwrap().state, state, "{lifetime:?}");
        if state == StreamState::Active {
            hub.advance(minute * 20).await;
            publisher.send(&Owner::ANONYMOUS, &id(), Event::new("two")).await.unwrap();
            hub.advance(minute * 20).await;
            publisher.send(&Owner::ANONYMOUS, &id(), Event::new("three")).await.unwrap();
            client.drain();
            assert_eq!(client.data(), ["one", "two", "three"]);
            assert!(!client.ended);
        }
    }
}

/// Of several publishers of a stream the longest lifetime counts, whoever was first.
#[tokio::test(start_paused = true)]
async fn a_stream_of_two_publishers_lives_as_long_as_the_longer_one_says() {
    let minute = Duration::from_secs(60);
    for long_first in [false, true] {
        let mut hub = TestHub::with(|builder| builder.anonymous().lifetime(minute * 5)).unwrap();
        let (long, short) = (hub.sse.publisher().lifetime(minute * 30), hub.sse.publisher());
        for publisher in if long_first { [&long, &short] } else { [&short, &long] } {
            publisher.send(&Owner::ANONYMOUS, &id(), Event::new("one")).await.unwrap();
        }
        hub.advance(minute * 8).await;
        let quiet = StreamKey::new(Owner::ANONYMOUS, id());
        let state = hub.sse.registry().stream(&quiet).await.unwrap().unwrap().state;
        assert_eq!(state, StreamState::Active, "long first {long_first}");
    }
}
