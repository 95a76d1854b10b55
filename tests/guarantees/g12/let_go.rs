//! G12, G4, G7: clients that wait are told when a process drains, a stream is interrupted elsewhere, or nothing is
//! recorded.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use resilient_sse::{
    Disconnect, Event, JobStatus, MemoryStore, Owner, ResilientSseBody, ResilientSseLayer, Store as _, StreamContext,
    StreamId, StreamKey, Voice,
    store::{Interrupt, Open, Reopen, Reopened, Retention},
    test_util::{Fault, FaultStore, TestHub},
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::bodies::*;

const SECOND: Duration = Duration::from_secs(1);

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

fn key(name: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(name).unwrap())
}

fn batched() -> FaultStore<MemoryStore> {
    FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched()
}

/// A protected service whose handler waits for a minute before it answers, and counts its runs.
fn slow(layer: ResilientSseLayer, runs: &Arc<AtomicUsize>, watch: &Watch) -> App {
    let (runs, watch) = (Arc::clone(runs), watch.clone());
    let inner = service_fn(move |_: Request<()>| {
        runs.fetch_add(1, Ordering::SeqCst);
        let watch = watch.clone();
        async move {
            tokio::time::sleep(SECOND * 60).await;
            Ok::<Response<Script>, Infallible>(events(watch.body(numbers(1))))
        }
    });
    ServiceBuilder::new().layer(layer).service(inner).boxed_clone()
}

/// Completes the drain. The client's body breaks with it, since the stream is not finished.
async fn breaks_in_a_drain(hub: &mut TestHub, client: &mut Client<ResilientSseBody<Script>>) {
    ends_in_a_drain(hub, client).await;
    assert!(client.broke, "an unfinished stream looks finished: {:?}", String::from_utf8_lossy(&client.bytes));
}

/// Completes the drain, and asserts that the client's body is over, however long it lived.
async fn ends_in_a_drain(hub: &mut TestHub, client: &mut Client<ResilientSseBody<Script>>) {
    hub.shut_down_on(ready(()));
    client.finish(hub).await;
    while hub.report().is_none() {
        hub.advance(SECOND).await;
    }
}

/// The follower's reads fail, so it never waits for changes.
#[tokio::test(start_paused = true)]
async fn g12_a_follower_ends_in_a_drain_also_while_the_store_is_away() {
    for fault in [Fault::Hang, Fault::Refuse] {
        for asks in [request("/s/a"), resuming("/s/a", "e1700000000000-1")] {
            let store = batched();
            let mut hub = TestHub::on(store.clone(), |builder| builder.anonymous().drain_limit(SECOND * 5)).unwrap();
            let producing = TestHub::on(store.clone(), resilient_sse::Builder::anonymous).unwrap();
            let watch = Watch::default();
            let elsewhere = app(producing.sse.generation().id(path()), &watch, then(numbers(3), Step::Hang));
            let mut first = Client::new(send(&elsewhere, request("/s/a")).await.into_body());
            first.drain();
            let here = app(hub.sse.generation().id(path()), &watch, numbers(3));
            let mut client = Client::new(send(&here, asks).await.into_body());
            store.fail(fault);
            client.drain();
            hub.advance(SECOND * 3).await;
            breaks_in_a_drain(&mut hub, &mut client).await;
        }
    }
}

/// The stream does not change when its lane is left to other nodes.
#[tokio::test(start_paused = true)]
async fn g12_a_follower_of_work_that_is_left_to_other_nodes_ends_in_a_drain() {
    let probe = |_| async { JobStatus::Running };
    let mut hub = TestHub::with(|builder| builder.anonymous().drain_limit(SECOND * 5).job_probe(probe)).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(numbers(2), Step::Hang));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
    follower.drain();
    assert_eq!(follower.data(), ["0", "1"]);
    drop(first);
    breaks_in_a_drain(&mut hub, &mut follower).await;
    assert_eq!(hub.report().unwrap().left, 1);
}

/// A follower that cannot come again by itself, of a stream that ends in a drain after its node began to let go.
/// `late`: it is polled only once the process is down.
async fn followed_to_the_end(
    batched: bool,
    late: bool,
    voice: Voice,
    probe: JobStatus,
    steps: Vec<Step>,
) -> Vec<String> {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    let store = if batched { store.batched() } else { store };
    let mut hub = TestHub::on(store, |builder| {
        let probe = move |_| {
            let status = probe.clone();
            async move {
                tokio::time::sleep(SECOND * 2).await;
                status
            }
        };
        builder.anonymous().drain_limit(SECOND * 25).job_probe(probe)
    })
    .unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()).voice(voice), &watch, steps);
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    hub.advance(SECOND).await;
    let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
    follower.drain();
    hub.shut_down_on(ready(()));
    while hub.report().is_none() {
        hub.advance(SECOND / 4).await;
        first.drain();
        if !late {
            follower.drain();
        }
    }
    first.finish(&mut hub).await;
    follower.finish(&mut hub).await;
    let what = format!("batched: {batched}, late: {late}, {voice:?}: {:?}", String::from_utf8_lossy(&follower.bytes));
    assert!(!first.broke && !follower.broke, "{what}");
    assert_eq!(first.data(), follower.data(), "{what}");
    follower.data().into_iter().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn g12_a_follower_is_told_the_end_that_a_drain_gives_its_stream() {
    for (batched, late) in [(false, false), (true, false), (false, true), (true, true)] {
        let running = || then(numbers(2), Step::Hang);
        for voice in [Voice::Named, Voice::Json, Voice::OpenAi] {
            let told = followed_to_the_end(batched, late, voice, JobStatus::Unknown, running()).await;
            assert!(told.last().unwrap().contains("shutdown"), "{voice:?}: {told:?}");
        }
        for voice in [Voice::Named, Voice::Silent] {
            let done = JobStatus::Completed(Event::new("42").named("completed"));
            let told = followed_to_the_end(batched, late, voice, done, running()).await;
            assert_eq!(told, ["0", "1", "42"], "batched: {batched}, late: {late}, {voice:?}");
            // The stream ends by itself while the probe is asked. Followers are let go by then.
            let own = vec![chunk("event: completed\ndata: own\n\n")];
            let steps = [numbers(2), vec![Step::Sleep(SECOND * 21)], own].concat();
            let told = followed_to_the_end(batched, late, voice, JobStatus::Running, steps).await;
            assert_eq!(told, ["0", "1", "own"], "batched: {batched}, late: {late}, {voice:?}");
        }
    }
}

/// A stream of some events that does not end, and the client whose request began it.
async fn read_by_its_client(
    events: usize,
) -> (FaultStore<MemoryStore>, TestHub, App, Client<resilient_sse::ResilientSseBody<Script>>) {
    let store = batched();
    let mut hub = TestHub::on(store.clone(), |builder| builder.anonymous().drain_limit(SECOND * 5)).unwrap();
    let app = app(hub.sse.generation().id(path()), &Watch::default(), then(numbers(events), Step::Hang));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    hub.advance(SECOND).await;
    (store, hub, app, first)
}

/// A store that fails at the wrong moment costs the follower one more read, not the end.
#[tokio::test(start_paused = true)]
async fn g12_a_follower_that_could_not_read_is_told_the_end_of_its_stream_in_a_drain() {
    let (store, mut hub, app, _first) = read_by_its_client(2).await;
    store.fail_on("read", Fault::Refuse);
    let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
    follower.drain();
    hub.shut_down_on(ready(()));
    while hub.report().is_none() {
        follower.drain();
        store.heal();
        hub.advance(SECOND / 4).await;
    }
    follower.finish(&mut hub).await;
    assert!(!follower.broke, "{:?}", String::from_utf8_lossy(&follower.bytes));
    assert_eq!(follower.data(), ["0", "1", r#"{"reason":"shutdown"}"#]);
}

/// The follower lacks more than a page, and each page is slow. It still receives all of them, and the end.
#[tokio::test(start_paused = true)]
async fn g12_a_follower_that_is_pages_behind_is_told_the_end_of_its_stream_in_a_drain() {
    let (store, mut hub, app, mut first) = read_by_its_client(2000).await;
    first.drain();
    store.fail_on("read", Fault::Delay(SECOND / 200));
    let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
    follower.drain();
    hub.shut_down_on(ready(()));
    while hub.report().is_none() {
        // The follower reads nothing until its stream has ended.
        first.drain();
        hub.advance(SECOND / 4).await;
    }
    follower.finish(&mut hub).await;
    assert!(!follower.broke, "{:?}", follower.data().len());
    assert_eq!(follower.data().len(), 2001);
}

/// The append is refused for ever, so the stream's end is never stored either.
#[tokio::test(start_paused = true)]
async fn g12_a_follower_of_a_stream_that_cannot_be_settled_ends_in_a_drain() {
    let store = batched();
    let mut hub = TestHub::on(store.clone(), |builder| builder.anonymous().drain_limit(SECOND * 5)).unwrap();
    let watch = Watch::default();
    let steps = vec![chunk("data: 0\n\n"), Step::Sleep(SECOND * 2), chunk("data: 1\n\n"), Step::Hang];
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    hub.advance(SECOND).await;
    let mut follower = Client::new(send(&app, request("/s/a")).await.into_body());
    follower.drain();
    store.refuse_stream(key("a"));
    drop(first);
    hub.advance(SECOND * 3).await;
    breaks_in_a_drain(&mut hub, &mut follower).await;
    assert_eq!(hub.report().unwrap().unsettled, 1);
}

#[tokio::test(start_paused = true)]
async fn g12_a_request_that_waits_for_another_s_handler_hears_of_a_drain() {
    let store = batched();
    let mut hub = TestHub::on(store.clone(), |builder| builder.anonymous().drain_limit(SECOND * 5)).unwrap();
    let mut producing = TestHub::on(store, resilient_sse::Builder::anonymous).unwrap();
    let (runs, watch) = (Arc::new(AtomicUsize::new(0)), Watch::default());
    let there = slow(producing.sse.generation().id(path()), &runs, &watch);
    let first = tokio::spawn(there.oneshot(request("/s/a")));
    producing.step().await;
    let here = slow(hub.sse.generation().id(path()), &runs, &watch);
    let waits = tokio::spawn(here.oneshot(request("/s/a")));
    hub.advance(SECOND).await;
    assert!(!waits.is_finished(), "it waits for the head");
    hub.shut_down_on(ready(()));
    hub.advance(SECOND).await;
    assert!(waits.is_finished(), "it is not kept");
    let response = waits.await.unwrap().unwrap();
    assert_eq!(response.status(), 503, "not an event stream that has nothing in it");
    let mut client = Client::new(response.into_body());
    client.finish(&mut hub).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    first.abort();
}

/// A stream that a drain interrupts is not begun anew by a request that waited for it.
#[tokio::test(start_paused = true)]
async fn g5_nothing_is_begun_in_a_drain_by_a_request_that_waited() {
    for feed in [false, true] {
        let mut hub = TestHub::with(|builder| builder.anonymous().drain_limit(SECOND * 5)).unwrap();
        let (runs, watch) = (Arc::new(AtomicUsize::new(0)), Watch::default());
        let layer = if feed { hub.sse.feed() } else { hub.sse.layer() };
        let app = slow(layer.id(path()), &runs, &watch);
        let (a, b) = (app.clone(), app);
        let first = tokio::spawn(a.oneshot(request("/s/a")));
        hub.step().await;
        let waits = tokio::spawn(b.oneshot(request("/s/a")));
        hub.step().await;
        hub.shut_down_on(ready(()));
        while hub.report().is_none() {
            hub.advance(SECOND).await;
        }
        let response = waits.await.unwrap().unwrap();
        assert_eq!(response.status(), 503, "feed: {feed}: whoever has not begun to answer may come again");
        assert_eq!(runs.load(Ordering::SeqCst), 1, "feed: {feed}");
        first.abort();
    }
}

/// The client has no ids, and so cannot come back for what it misses.
#[tokio::test(start_paused = true)]
async fn g7_a_client_of_an_unrecorded_stream_is_served_on_in_a_drain() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let steps = then(numbers(2), Step::Sleep(SECOND * 5));
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    hub.step().await;
    hub.store.fail_on("open", Fault::Refuse);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    ends_in_a_drain(&mut hub, &mut client).await;
    assert_eq!((client.names().last(), client.broke), (Some(&"completed"), false), "to its end");
}

#[tokio::test(start_paused = true)]
async fn g7_an_unrecorded_feed_gives_its_last_events() {
    let hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.feed().id(path()), &watch, vec![chunk("data: 0\n\ndata: 1\n\n")]);
    hub.store.fail_on("open", Fault::Refuse);
    let response = send(&app, request("/s/a")).await;
    hub.store.heal();
    let mut client = Client::new(response.into_body());
    client.drain();
    assert_eq!((client.data(), client.ended), (vec!["0", "1"], true));
}

/// The client of a feed may be let go at once, whether the feed is recorded or not.
#[tokio::test(start_paused = true)]
async fn g5_an_unrecorded_feed_holds_up_no_drain() {
    let mut hub = TestHub::with(|builder| builder.anonymous().drain_limit(SECOND * 60)).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.feed().id(path()), &watch, then(numbers(2), Step::Hang));
    hub.store.fail_on("open", Fault::Refuse);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    assert!(!client.ended);
    hub.shut_down_on(ready(()));
    for _ in 0..3 {
        hub.advance(SECOND).await;
        client.drain();
    }
    assert!(client.ended && hub.report().is_some(), "{:?}", hub.report());
    assert!(!client.broke, "feeds end cleanly");
}

/// A producer that a new run on its own node has replaced is told by nobody else.
#[tokio::test(start_paused = true)]
async fn g4_a_silent_producer_is_told_when_a_run_on_its_own_node_takes_its_place() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.layer().id(path()), &watch, then(numbers(1), Step::Hang));
    let mut first = Client::new(send(&app, request("/s/a")).await.into_body());
    first.drain();
    let epoch = hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().epoch;
    let interrupt = Interrupt { key: key("a"), epoch, last: None, if_deadline: None };
    hub.store.interrupt(interrupt).await.unwrap();
    let mut second = Client::new(send(&app, request("/s/a")).await.into_body());
    second.drain();
    assert_eq!(watch.made(), 2);
    hub.step().await;
    first.finish(&mut hub).await;
    assert!(first.broke, "without a terminal event");
    assert_eq!((watch.alive(), second.ended), (1, false));
}

/// Work that a handler has begun elsewhere waits to be told that it is no longer needed.
#[tokio::test(start_paused = true)]
async fn g11_work_that_a_handler_began_hears_of_a_stop_when_the_handler_is_dropped() {
    let at_most = SECOND * 10;
    for (case, named, unrecorded, disconnect) in [
        ("generated", false, false, Disconnect::Interrupt),
        ("named", true, false, Disconnect::Interrupt),
        ("unrecorded", true, true, Disconnect::Interrupt),
        ("detached for too long", true, false, Disconnect::Detach { at_most }),
    ] {
        let mut hub = TestHub::new();
        if unrecorded {
            hub.store.fail_on("open", Fault::Refuse);
        }
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        let inner = service_fn(move |request: Request<()>| {
            let context = request.extensions().get::<StreamContext>().cloned().unwrap();
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                context.stopped().await;
                counter.fetch_add(1, Ordering::SeqCst);
            });
            async move {
                tokio::time::sleep(SECOND * 600).await;
                Ok::<_, Infallible>(events(Watch::default().body(vec![])))
            }
        });
        let layer = hub.sse.layer().on_disconnect(disconnect);
        let layer = if named { layer.id(path()) } else { layer };
        let app: App = ServiceBuilder::new().layer(layer).service(inner).boxed_clone();
        let waits = tokio::spawn(app.oneshot(request("/s/a")));
        hub.advance(SECOND).await;
        assert_eq!(heard.load(Ordering::SeqCst), 0, "{case}");
        waits.abort();
        hub.advance(at_most + SECOND).await;
        assert_eq!(heard.load(Ordering::SeqCst), 1, "{case}");
    }
}

/// The inner service has answered, and its answer is refused because of a limit.
#[tokio::test(start_paused = true)]
async fn g11_work_whose_answer_is_refused_hears_of_a_stop() {
    let mut hub = TestHub::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let inner = service_fn(move |request: Request<()>| {
        let context = request.extensions().get::<StreamContext>().cloned().unwrap();
        let counter = Arc::clone(&counter);
        tokio::spawn(async move {
            context.stopped().await;
            counter.fetch_add(1, Ordering::SeqCst);
        });
        ready(Ok::<_, Infallible>(events(Watch::default().body(then(numbers(1), Step::Hang)))))
    });
    let layer = hub.sse.generation().max_streams(1);
    let app: App = ServiceBuilder::new().layer(layer).service(inner).boxed_clone();
    let mut first = Client::new(app.clone().oneshot(request("/s")).await.unwrap().into_body());
    first.drain();
    let refused = app.oneshot(request("/s")).await.unwrap();
    assert_eq!(refused.status(), 429);
    hub.step().await;
    assert_eq!(
        (heard.load(Ordering::SeqCst), first.ended),
        (1, false),
        "the refused one, and not the one that is served"
    );
}

/// The store forgot the stream, and its node repeats it: first the registration, then the end.
#[tokio::test(start_paused = true)]
async fn g1_whoever_has_the_end_is_done_also_while_that_is_said_again() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, numbers(2));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    let end = client.last_id();
    let info = hub.sse.registry().stream(&key("a")).await.unwrap().unwrap();
    hub.store.forget();
    let open = Open {
        key: key("a"),
        kind: info.kind,
        origin: info.origin,
        node: hub.sse.node().clone(),
        token: 1,
        create: true,
        reruns: false,
        started: true,
        fingerprint: None,
        limit: None,
        metadata: Vec::new(),
        voice: resilient_sse::Voice::default(),
        turn: None,
        headers: resilient_sse::KeptHeaders::None,
        retention: Retention {
            stale: SECOND * 30,
            lifetime: SECOND * 3600,
            recovery_window: SECOND * 300,
            max_events: 100,
            max_bytes: 1 << 20,
        },
    };
    let reopen =
        Reopen { open, epoch: info.epoch, acknowledged: 2, inner_id: None, inner_retry: None, since: Duration::ZERO };
    assert_eq!(hub.store.reopen(reopen).await.unwrap(), Reopened::Registered);
    assert_eq!(send(&app, resuming("/s/a", &end)).await.status(), 204);
    let recover = hub.sse.recover().oneshot(resuming("/a/recover", &end)).await.unwrap();
    assert_eq!(recover.status(), 204);
    assert_eq!(hub.sse.relay().oneshot(resuming("/a", &end)).await.unwrap().status(), 204);
    // If the store does not report the stream's state at first, the body ends at once.
    hub.store.fail_on("info", Fault::Refuse);
    let own = send(&app, resuming("/s/a", &end)).await;
    let relayed = hub.sse.relay().oneshot(resuming("/a", &end)).await.unwrap();
    assert_eq!((own.status(), relayed.status()), (StatusCode::OK, StatusCode::OK));
    let (mut own, mut relayed) = (Client::new(own.into_body()), Client::new(relayed.into_body()));
    hub.store.heal();
    for _ in 0..10 {
        own.drain();
        relayed.drain();
        hub.advance(SECOND / 4).await;
    }
    assert_eq!((own.ended, own.broke, own.data()), (true, false, vec![]));
    assert_eq!((relayed.ended, relayed.broke, relayed.data()), (true, false, vec![]));
    assert_eq!(watch.made(), 1);
}
