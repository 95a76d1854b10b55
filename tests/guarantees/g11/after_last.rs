//! G10, G11: the inner body after its terminal event.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use resilient_sse::{
    Disconnect, MemoryStore, Owner, ResilientSseLayer, StreamContext, StreamId, StreamState,
    test_util::{Fault, FaultStore, TestHub},
};

use crate::support::bodies::{App, Client, Step, Watch, app, chunk, events, numbers, request, send, serving};

const SECOND: Duration = Duration::from_secs(1);

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

fn done() -> Step {
    chunk("event: completed\ndata: done\n\n")
}

fn key() -> resilient_sse::StreamKey {
    resilient_sse::StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap())
}

type Contexts = Arc<Mutex<Vec<StreamContext>>>;

/// A service whose contexts are kept.
fn watched(layer: ResilientSseLayer, watch: &Watch, steps: Vec<Step>) -> (App, Contexts) {
    let (contexts, watch) = (Contexts::default(), watch.clone());
    let kept = Arc::clone(&contexts);
    let app = serving(layer, move |request: Request<()>| {
        kept.lock().unwrap().extend(request.extensions().get::<StreamContext>().cloned());
        events(watch.body(steps.clone()))
    });
    (app, contexts)
}

fn is_stopped(contexts: &Contexts) -> bool {
    contexts.lock().unwrap()[0].is_stopped()
}

async fn unread(app: &App, detached: bool) -> Client<resilient_sse::ResilientSseBody<crate::support::bodies::Script>> {
    let mut client = Client::new(send(app, request("/s/a")).await.into_body());
    if detached {
        assert!(client.poll());
        drop(client.body.take());
    }
    client
}

/// A handler that saves the message after its last `yield`.
#[tokio::test(start_paused = true)]
async fn g10_the_code_after_the_last_event_runs() {
    for detached in [false, true] {
        for pause in [Duration::ZERO, Duration::from_millis(5), SECOND * 4] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let steps = vec![chunk("data: 0\n\n"), done(), Step::Yield, Step::Sleep(pause), chunk(": saved\n")];
            let app = app(hub.sse.generation().id(path()), &watch, steps);
            let mut client = unread(&app, detached).await;
            hub.step().await;
            client.drain();
            if !detached {
                assert!(client.ended, "the client does not wait for that");
                assert_eq!(client.data(), ["0", "done"]);
            }
            assert_eq!(hub.sse.registry().stream(&key()).await.unwrap().unwrap().state, StreamState::Completed);
            let polls = watch.polls();
            hub.advance(pause + Duration::from_millis(250)).await;
            assert_eq!(watch.alive(), 0, "polled to its end");
            assert!(pause < SECOND || watch.polls() > polls);
            assert_eq!((hub.sse.health().active, hub.sse.health().late_events), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g10_a_body_that_does_not_end_is_dropped_after_five_seconds() {
    let endless = std::iter::repeat_n(Step::Sleep(Duration::from_millis(100)), 1_000);
    for rest in [vec![Step::Hang], endless.collect()] {
        let mut hub = TestHub::new();
        let watch = Watch::default();
        let steps = std::iter::once(done()).chain(rest).collect();
        let (app, contexts) = watched(hub.sse.generation().id(path()), &watch, steps);
        let mut client = unread(&app, false).await;
        client.drain();
        assert!(client.ended);
        hub.advance(Duration::from_millis(4_900)).await;
        assert_eq!(watch.alive(), 1);
        hub.advance(Duration::from_millis(350)).await;
        assert_eq!((watch.alive(), is_stopped(&contexts)), (0, false));
    }
}

#[tokio::test(start_paused = true)]
async fn g10_events_after_the_last_one_are_counted_and_go_nowhere() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    // In the same chunk, at once, and later.
    let mut steps =
        vec![chunk("data: 0\n\ndata: {\"type\":\"failed\",\"tool\":\"search\"}\n\ndata: 1\n\n: x\n\ndata: 2\n\n")];
    steps.extend(numbers(2));
    steps.extend([Step::Sleep(SECOND), chunk("event: completed\ndata: again\n\n")]);
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    let mut client = unread(&app, false).await;
    client.drain();
    assert!(client.ended);
    assert_eq!(client.data(), ["0", r#"{"type":"failed","tool":"search"}"#]);
    hub.advance(SECOND * 2).await;
    assert_eq!((watch.alive(), hub.sse.health().late_events), (0, 5));
    let page = hub.sse.completions().events(&key(), None, 100).await.unwrap().unwrap();
    assert_eq!(page.records.len(), 3, "a run, an event, an end");
}

#[tokio::test(start_paused = true)]
async fn g10_a_body_that_always_has_more_yields_to_others() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let steps = std::iter::once(done()).chain(std::iter::repeat_n(chunk("data: late\n\n"), 100_000)).collect();
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    let mut client = unread(&app, false).await;
    client.drain();
    assert!(client.ended);
    assert!(watch.polls() < 200, "{} polls in place", watch.polls());
    tokio::task::yield_now().await;
    assert!(watch.polls() < 10_000, "{} polls in a turn", watch.polls());
    hub.step().await;
}

/// The end of a stream does not stop its other work.
#[tokio::test(start_paused = true)]
async fn g11_a_stream_that_is_done_was_not_stopped() {
    let endings: [(&str, Vec<Step>); 5] = [
        ("a terminal event", vec![done()]),
        ("a terminal event, and more to do", vec![done(), Step::Sleep(SECOND), chunk(": saved\n")]),
        ("the body's end", vec![]),
        ("an error", vec![Step::Fail]),
        ("a panic", vec![Step::Panic]),
    ];
    for (how, end) in endings {
        for detached in [false, true] {
            let mut hub = TestHub::with(|builder| builder.anonymous().max_event_bytes(4096)).unwrap();
            let watch = Watch::default();
            let steps = numbers(2).into_iter().chain(end.clone()).collect();
            let (app, contexts) = watched(hub.sse.generation().id(path()), &watch, steps);
            let mut client = unread(&app, detached).await;
            client.drain();
            hub.advance(SECOND * 10).await;
            client.drain();
            drop(client);
            hub.advance(SECOND).await;
            assert!(hub.sse.registry().stream(&key()).await.unwrap().unwrap().state.is_terminal(), "{how}");
            assert_eq!((watch.alive(), is_stopped(&contexts)), (0, false), "{how}");
        }
    }
}

/// The library fails the stream, although its body has more events.
#[tokio::test(start_paused = true)]
async fn g11_work_whose_event_is_too_large_hears_of_a_stop() {
    for detached in [false, true] {
        let mut hub = TestHub::with(|builder| builder.anonymous().max_event_bytes(4096)).unwrap();
        let watch = Watch::default();
        let steps = vec![chunk("data: 0\n\n"), chunk(format!("data: {}\n\n", "x".repeat(10_000))), Step::Hang];
        let (app, contexts) = watched(hub.sse.generation().id(path()), &watch, steps);
        let mut client = unread(&app, detached).await;
        client.drain();
        hub.advance(SECOND).await;
        client.drain();
        let state = hub.sse.registry().stream(&key()).await.unwrap().unwrap().state;
        assert_eq!(
            (state, watch.alive(), is_stopped(&contexts)),
            (StreamState::Failed, 0, true),
            "detached {detached}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn g11_work_that_is_ended_before_it_is_done_is_stopped() {
    let run = async |policy: Disconnect, act: &str| {
        let mut hub = TestHub::new();
        let watch = Watch::default();
        let layer = hub.sse.layer().id(path()).on_disconnect(policy);
        let (app, contexts) = watched(layer, &watch, vec![chunk("data: 0\n\n"), Step::Hang]);
        let mut client = unread(&app, false).await;
        client.drain();
        assert!(!is_stopped(&contexts));
        match act {
            "stop" => {
                hub.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
            }
            "delete" => hub.sse.registry().delete(&key()).await.unwrap(),
            _ => drop(client.body.take()),
        }
        hub.advance(SECOND * 61).await;
        assert_eq!((watch.alive(), is_stopped(&contexts)), (0, true), "{policy:?}: {act}");
    };
    for policy in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::Detach { at_most: SECOND * 60 }] {
        for act in ["leave", "stop", "delete"] {
            run(policy, act).await;
        }
    }
}

/// A stop on another node lands before the body's own end, so it is the stream's end: the rest of the work stops too.
#[tokio::test(start_paused = true)]
async fn g11_a_stop_that_came_first_drops_the_rest_of_the_body() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let mut hub = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let other = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
    let watch = Watch::default();
    let (app, contexts) =
        watched(hub.sse.generation().id(path()), &watch, vec![chunk("data: 0\n\n"), done(), Step::Hang]);
    let mut client = unread(&app, false).await;
    hub.step().await;
    client.drain();
    // The guardian has not sent the end yet.
    let stopped = other.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
    assert_eq!(stopped.unwrap().ending.state, StreamState::Cancelled);
    assert_eq!((watch.alive(), is_stopped(&contexts)), (1, false));
    hub.advance(SECOND).await;
    assert_eq!((watch.alive(), is_stopped(&contexts)), (0, true));
    client.finish(&mut hub).await;
    assert_eq!(client.names().last(), Some(&"cancelled"));
}

#[tokio::test(start_paused = true)]
async fn g11_what_goes_wrong_after_the_last_event_harms_nobody() {
    for (rest, panics) in [(Step::Fail, 0), (Step::Panic, 1)] {
        for pause in [None, Some(Step::Sleep(SECOND))] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let steps = [Some(done()), pause, Some(rest.clone())].into_iter().flatten().collect();
            let app = app(hub.sse.generation().id(path()), &watch, steps);
            let mut client = unread(&app, false).await;
            client.drain();
            assert!(client.ended);
            hub.advance(SECOND * 2).await;
            assert_eq!((watch.alive(), hub.sse.health().panics), (0, panics));
            assert_eq!(hub.sse.registry().stream(&key()).await.unwrap().unwrap().state, StreamState::Completed);
        }
    }
}

/// A store that does not take the end delays neither the body's last code nor its drop.
#[tokio::test(start_paused = true)]
async fn g11_the_rest_of_a_body_does_not_wait_for_the_store() {
    let mut hub = TestHub::new();
    hub.store.fail_on("close", Fault::Hang);
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, vec![done(), Step::Sleep(SECOND), chunk(": saved\n")]);
    let mut client = unread(&app, false).await;
    client.drain();
    assert!(!client.ended, "the end waits for the store");
    hub.advance(SECOND + Duration::from_millis(250)).await;
    assert_eq!(watch.alive(), 0);
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["done"]);
}

/// A drain gives this work no more time than other work, and leaves nothing of it behind.
#[tokio::test(start_paused = true)]
async fn g11_a_drain_drops_what_is_left_of_bodies_after_their_last_events() {
    let mut hub = TestHub::with(|builder| builder.anonymous().drain_limit(SECOND * 2)).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, vec![done(), Step::Hang]);
    let mut client = unread(&app, false).await;
    client.drain();
    hub.step().await;
    hub.shut_down_on(std::future::ready(()));
    hub.advance(SECOND).await;
    assert_eq!((hub.report().is_some(), watch.alive()), (false, 1));
    hub.advance(SECOND + Duration::from_millis(250)).await;
    assert_eq!((hub.report().map(|report| report.bodies_unfinished), watch.alive()), (Some(1), 0));
}

/// A chunk whose destructor panics.
struct Panics;

impl AsRef<[u8]> for Panics {
    fn as_ref(&self) -> &[u8] {
        b"data: late\n\n"
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("told to panic");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_destructor_that_panics_after_the_last_event_ends_its_body_only() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let bodies = watch.clone();
    let app = serving(hub.sse.generation().id(path()), move |_| {
        events(bodies.body(vec![done(), Step::Chunk(Bytes::from_owner(Panics)), chunk(":\n"), Step::Hang]))
    });
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.finish(&mut hub).await;
    assert_eq!(client.data(), ["done"]);
    let health = hub.sse.health();
    assert_eq!((health.panics, health.active, watch.alive()), (1, 0, 0));
}
