//! The publisher: one producer, endings, idempotency, and the answers to a job.

use std::{future::Future, time::Duration};

use futures_util::FutureExt as _;
use resilient_sse::{
    Event, MemoryStore, Owner, Publication, PublishError, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, TestHub},
};

use crate::support::bodies::{Client, Step, Watch, app, numbers, request, send, then};

fn id(id: &str) -> StreamId {
    StreamId::new(id).unwrap()
}

fn key(name: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, id(name))
}

fn spec(name: &str) -> StreamSpec {
    StreamSpec::new(Owner::ANONYMOUS, id(name))
}

async fn open(hub: &TestHub, name: &str) -> Publication {
    hub.sse.publisher().open(spec(name)).await.unwrap()
}

/// Returns the stream's state and reason.
async fn ending(hub: &TestHub, name: &str) -> Option<(StreamState, Option<String>)> {
    let ended = hub.sse.completions().completion(&key(name)).await.unwrap()?;
    Some((ended.ending.state, ended.ending.reason.map(Into::into)))
}

#[tokio::test(start_paused = true)]
async fn a_publication_is_the_stream_s_one_producer() {
    let mut hub = TestHub::new();
    let mut job = open(&hub, "a").await;
    assert!(matches!(hub.sse.publisher().open(spec("a")).await, Err(PublishError::Conflict)));
    let stateless = hub.sse.publisher().send(&Owner::ANONYMOUS, &id("a"), Event::new("no")).await;
    assert!(matches!(stateless, Err(PublishError::Conflict)));
    let first = job.send(Event::new("one")).await.unwrap();
    let second = job.send(Event::new("two").with_id("mine")).await.unwrap();
    assert!(first < second && first.seq == 1 && second.seq == 2);
    let ended = job.complete(Event::new("three").named("completed")).await.unwrap();
    assert_eq!(ended.id.seq, 0);
    assert!(matches!(hub.sse.publisher().open(spec("a")).await, Err(PublishError::Ended(_))));
    let late = hub.sse.publisher().send(&Owner::ANONYMOUS, &id("a"), Event::new("no")).await;
    assert!(matches!(late, Err(PublishError::Ended(_))));
    let mut client = Client::new(relay(&hub, "a").await);
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["one", "two", "three"]);
    assert_eq!(hub.sse.health().ended["completed"], 1);
}

async fn relay(hub: &TestHub, name: &str) -> resilient_sse::AnswerBody {
    use tower::ServiceExt as _;
    hub.sse.relay().oneshot(request(&format!("/{name}"))).await.unwrap().into_body()
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_an_inner_producer_is_no_publisher_s() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    assert!(matches!(hub.sse.publisher().open(spec("a")).await, Err(PublishError::Conflict)));
    let sent = hub.sse.publisher().send(&Owner::ANONYMOUS, &id("a"), Event::new("no")).await;
    assert!(matches!(sent, Err(PublishError::Conflict)));
    let ended = hub.sse.publisher().end(&Owner::ANONYMOUS, &id("a"), Event::new("no")).await;
    assert!(matches!(ended, Err(PublishError::Conflict)));
    client.drain();
    assert_eq!(client.data(), ["0"]);
}

#[tokio::test(start_paused = true)]
async fn a_publication_dropped_without_an_end_has_failed() {
    let hub = TestHub::new();
    let mut job = open(&hub, "a").await;
    job.send(Event::new("one")).await.unwrap();
    drop(job);
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Failed, Some("dropped".into()))));
    let job = open(&hub, "b").await;
    job.fail(Event::new("no").named("failed")).await.unwrap();
    assert_eq!(ending(&hub, "b").await, Some((StreamState::Failed, None)));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_told_when_its_stream_is_stopped_from_another_node() {
    let store = FaultStore::new(MemoryStore::new());
    let mut hub = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let other = TestHub::on(store, |builder| builder.anonymous().seed(2)).unwrap();
    let mut job = open(&hub, "a").await;
    job.send(Event::new("one")).await.unwrap();
    assert!(job.stopped().now_or_never().is_none());
    let ended = other.sse.streams().stop(&Owner::ANONYMOUS, &id("a")).await.unwrap().unwrap();
    assert_eq!(ended.ending.state, StreamState::Cancelled);
    hub.advance(Duration::from_millis(500)).await;
    assert!(job.stopped().now_or_never().is_some());
    assert!(job.stopped().now_or_never().is_some(), "once ready, always ready");
    assert!(matches!(job.send(Event::new("late")).await, Err(PublishError::Ended(_))));
    assert!(matches!(job.complete(Event::new("late")).await, Err(PublishError::Ended(_))));
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Cancelled, Some("stopped".into()))));
}

#[tokio::test(start_paused = true)]
async fn the_guardian_keeps_a_silent_publication_alive() {
    let mut hub = TestHub::new();
    let job = open(&hub, "a").await;
    hub.advance(Duration::from_secs(600)).await;
    assert_eq!(hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().state, StreamState::Active);
    job.complete(Event::new("done")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stateless_events_take_the_next_seq_and_repeats_are_one() {
    let mut hub = TestHub::new();
    let publisher = hub.sse.publisher();
    let (owner, name) = (Owner::ANONYMOUS, id("a"));
    let one = publisher.send(&owner, &name, Event::new("one")).await.unwrap();
    let two = publisher.send_once(&owner, &name, Event::new("two"), "k").await.unwrap();
    let again = publisher.send_once(&owner, &name, Event::new("two"), "k").await.unwrap();
    let three = publisher.send(&owner, &name, Event::new("three")).await.unwrap();
    assert_eq!((one.seq, two.seq, three.seq), (1, 2, 3));
    assert_eq!(two, again);
    assert!(matches!(publisher.open(spec("a")).await, Err(PublishError::Conflict)));
    let end = publisher.end(&owner, &name, Event::new(r#"{"type":"failed"}"#)).await.unwrap();
    assert_eq!((end.epoch, end.seq), (one.epoch + 1, 0));
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Failed, None)));
    let repeat = publisher.send_once(&owner, &name, Event::new("two"), "k").await.unwrap();
    assert_eq!(repeat, two, "also after the end");
    assert!(matches!(publisher.send(&owner, &name, Event::new("no")).await, Err(PublishError::Ended(_))));
    let mut client = Client::new(relay(&hub, "a").await);
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["one", "two", "three", r#"{"type":"failed"}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_after_a_lost_reply_is_one_event() {
    let hub = TestHub::new();
    let publisher = hub.sse.publisher();
    hub.store.fail_on("publish", Fault::LoseReply);
    let lost = publisher.send_once(&Owner::ANONYMOUS, &id("a"), Event::new("one"), "k").await;
    assert!(matches!(lost, Err(PublishError::Store(_))));
    hub.store.heal();
    let sent = publisher.send_once(&Owner::ANONYMOUS, &id("a"), Event::new("one"), "k").await.unwrap();
    assert_eq!(sent.seq, 1);
    let page = hub.sse.completions().events(&key("a"), None, 100).await.unwrap().unwrap();
    let events = page.records.iter().filter(|record| matches!(record.kind, resilient_sse::RecordKind::Events(_)));
    assert_eq!(events.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stateless_stream_lives_as_long_as_something_is_published() {
    let mut hub = TestHub::with(|builder| builder.anonymous().lifetime(Duration::from_secs(120))).unwrap();
    let publisher = hub.sse.publisher();
    for n in 0..4 {
        publisher.send(&Owner::ANONYMOUS, &id("a"), Event::new(n.to_string())).await.unwrap();
        hub.advance(Duration::from_secs(100)).await;
        assert_eq!(ending(&hub, "a").await, None, "renewed");
    }
    hub.advance(Duration::from_secs(60)).await;
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Expired, Some("lifetime".into()))));
}

#[tokio::test(start_paused = true)]
async fn bad_events_and_too_much_metadata_are_refused() {
    let hub = TestHub::with(|builder| builder.anonymous().max_event_bytes(1000)).unwrap();
    let publisher = hub.sse.publisher();
    let mut job = open(&hub, "a").await;
    assert!(matches!(job.send(Event::new("x").named("a\nb")).await, Err(PublishError::Encode(_))));
    assert!(matches!(job.send(Event::new("x".repeat(2000))).await, Err(PublishError::TooLarge { limit: 1000, .. })));
    let large = publisher.send(&Owner::ANONYMOUS, &id("b"), Event::new("x".repeat(2000))).await;
    assert!(matches!(large, Err(PublishError::TooLarge { limit: 1000, .. })));
    assert_eq!(job.send(Event::new("x")).await.unwrap().seq, 1, "what was refused took no id");
    let spec = spec("c").metadata("k", "x".repeat(5000));
    assert!(matches!(publisher.open(spec).await, Err(PublishError::MetadataTooLarge { bytes: 5001 })));
    for n in 0..1000 {
        let _ = job.metadata(n.to_string(), "x".repeat(100));
    }
    job.send(Event::new("y")).await.unwrap();
    let held = hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().metadata;
    let bytes: usize = held.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!((3900..=4096).contains(&bytes), "g8: {bytes} bytes of metadata");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_delays_a_publication_by_its_time_limit_once() {
    let mut hub = TestHub::new();
    let mut job = open(&hub, "a").await;
    hub.store.fail(Fault::Hang);
    let start = tokio::time::Instant::now();
    let sending = tokio::spawn(async move {
        for n in 0..500 {
            job.send(Event::new(n.to_string())).await.unwrap();
        }
        (job, start.elapsed())
    });
    for _ in 0..40 {
        hub.advance(Duration::from_millis(50)).await;
    }
    let (job, elapsed) = sending.await.unwrap();
    assert!(elapsed <= Duration::from_millis(800), "{elapsed:?}");
    hub.store.heal();
    let done = tokio::spawn(job.complete(Event::new("done")));
    hub.advance(Duration::from_secs(3)).await;
    let _ = done.await.unwrap();
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Completed, None)));
    let mut client = Client::new(relay(&hub, "a").await);
    client.finish(&mut hub).await;
    assert_eq!(client.data().len(), 501, "what waited was recorded");
}

#[tokio::test(start_paused = true)]
async fn a_complete_that_is_dropped_ends_the_stream_all_the_same() {
    let mut hub = TestHub::with(resilient_sse::Builder::anonymous).unwrap();
    hub.store.fail_on("close", Fault::Delay(Duration::from_millis(200)));
    let job = open(&hub, "a").await;
    let mut done = Box::pin(job.complete(Event::new("done").named("completed")));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(done.as_mut().poll(&mut cx).is_pending());
    drop(done);
    hub.advance(Duration::from_secs(2)).await;
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Completed, None)));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_with_a_stream_survives_a_store_that_forgets() {
    let mut hub = TestHub::new();
    let job = hub.sse.publisher().open(spec("a").metadata("job", "7").metadata("step", "0")).await.unwrap();
    job.metadata("step", "1").unwrap();
    hub.store.forget();
    hub.advance(Duration::from_secs(15)).await;
    let info = hub.sse.registry().stream(&key("a")).await.unwrap().expect("registered again");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(info.metadata, [pair("job", "7"), pair("step", "1")]);
    job.complete(Event::new("done")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g3_an_ending_that_cannot_be_had_leaves_the_publication_open() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::new());
        let store = if batched { store.batched() } else { store };
        let mut hub = TestHub::on(store, |builder| builder.anonymous().max_event_bytes(1000)).unwrap();
        let mut job = open(&hub, "a").await;
        let carriage_return = Event::new("a finished answer\r\nwith Windows lines").named("completed");
        assert!(matches!(job.complete(carriage_return).await, Err(PublishError::Encode(_))));
        assert!(matches!(job.fail(Event::new("x".repeat(2000))).await, Err(PublishError::TooLarge { .. })));
        hub.advance(Duration::from_secs(1)).await;
        assert_eq!(ending(&hub, "a").await, None, "a refused ending ends nothing");
        job.send(Event::new("one more")).await.unwrap();
        let ended = tokio::spawn(job.complete(Event::new("a finished answer").named("completed")));
        hub.advance(Duration::from_secs(1)).await;
        assert_eq!(ended.await.unwrap().unwrap().last.seq, 1);
        assert_eq!(ending(&hub, "a").await, Some((StreamState::Completed, None)));
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_second_ending_is_answered_with_the_first_one() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let mut hub = TestHub::on(store, resilient_sse::Builder::anonymous).unwrap();
    let mut job = open(&hub, "a").await;
    hub.store.fail_on("close", Fault::Delay(Duration::from_millis(300)));
    let first = tokio::spawn(job.complete(Event::new("done").named("completed")));
    let second = tokio::spawn(job.fail(Event::new("no").named("failed")));
    hub.advance(Duration::from_millis(100)).await;
    assert!(matches!(job.send(Event::new("late")).await, Err(PublishError::Ended(_))), "its end is on the way");
    hub.advance(Duration::from_secs(1)).await;
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!((first.ending.state, &first), (StreamState::Completed, &second));
    assert_eq!(job.complete(Event::new("again")).await.unwrap(), first);
    drop(job);
    hub.advance(Duration::from_secs(1)).await;
    assert_eq!(ending(&hub, "a").await, Some((StreamState::Completed, None)));
}

#[tokio::test(start_paused = true)]
async fn g8_metadata_that_is_replaced_counts_once() {
    let hub = TestHub::new();
    let job = hub.sse.publisher().open(spec("a").metadata("progress", "none").metadata("progress", "0")).await.unwrap();
    for n in 0..1000 {
        job.metadata("progress", n.to_string()).unwrap();
    }
    let info = hub.sse.registry().stream(&key("a")).await.unwrap().unwrap();
    assert_eq!(info.metadata, [("progress".to_owned(), "999".to_owned())]);
    let room = 4096 - "progress999".len() - "large".len();
    job.metadata("large", "x".repeat(room)).expect("all of it has room");
    assert!(job.metadata("progress", "1000").is_err(), "a byte more than there is room for");
    job.metadata("large", "x").unwrap();
    job.metadata("progress", "1000").expect("what was replaced is held no more");
}
