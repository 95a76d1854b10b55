//! The relay: it follows what others publish, and waits for what is not opened yet.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{
    AnswerBody, Event, MemoryStore, Owner, StreamId, StreamSpec,
    test_util::{FaultStore, TestHub},
};
use tower::ServiceExt as _;

use crate::support::{Client, assert_no_empty_block, request, resuming};

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

/// What is opened is not waited for, however long its events are on their way from the store.
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
