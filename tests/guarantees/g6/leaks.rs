//! G6: after any mix of endings, store and process are as before.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use resilient_sse::{
    Disconnect, EndedStream, Event, JobStatus, MemoryStore, Owner, StreamId, StreamInfo, StreamSpec,
    test_util::{FaultStore, TestHub},
};
use tower::ServiceExt as _;

use crate::support::bodies::{
    App, Client, Step, Watch, chunk, events, numbers, request, resuming, send, serving, then,
};

const WINDOW: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(30);

fn node(store: &FaultStore<MemoryStore>, seed: u64, hooks: &Arc<AtomicUsize>) -> TestHub {
    let hooks = Arc::clone(hooks);
    TestHub::on(store.clone(), |builder| {
        builder
            .anonymous()
            .seed(seed)
            .recovery_window(WINDOW)
            .lifetime(Duration::from_secs(120))
            .on_end(move |_: EndedStream| {
                let nth = hooks.fetch_add(1, Ordering::SeqCst);
                // Every third hook fails the first time.
                async move { if nth.is_multiple_of(3) { Err("not yet") } else { Ok(()) } }
            })
            .job_probe(|stream: StreamInfo| async move {
                match stream.key.id.as_str() {
                    "orphan-done" => JobStatus::Completed(Event::new("done").named("completed")),
                    _ => JobStatus::Unknown,
                }
            })
    })
    .unwrap()
}

/// A route whose requests and bodies are counted.
struct Route {
    app: App,
    watch: Watch,
    requests: Arc<()>,
}

impl Route {
    fn new(layer: resilient_sse::ResilientSseLayer, steps: Vec<Step>, panics_in_drop: bool) -> Self {
        let watch = Watch::default();
        let requests = Arc::new(());
        let (bodies, weak) = (watch.clone(), Arc::downgrade(&requests));
        let app = serving(layer.id(StreamId::path("/s/{id}")), move |request: Request<()>| {
            // The request, its context included, lives as long as a handler's body that holds it.
            let _held: Option<&Arc<()>> = request.extensions().get();
            assert!(Weak::strong_count(&weak) > 0);
            let mut body = bodies.body(steps.clone());
            body.panics_in_drop = panics_in_drop;
            events(body)
        });
        Self { app, watch, requests }
    }

    async fn send(
        &self,
        mut request: Request<()>,
    ) -> Client<resilient_sse::ResilientSseBody<crate::support::bodies::Script>> {
        request.extensions_mut().insert(Arc::clone(&self.requests));
        Client::new(send(&self.app, request).await.into_body())
    }
}

/// Reads streams whole, cuts them in the middle and resumes them, or cuts them and leaves.
async fn visit(hub: &mut TestHub, route: &Route, name: &str) {
    let mut whole = route.send(request(&format!("/s/{name}-whole"))).await;
    let uri = format!("/s/{name}-cut");
    let mut cut = route.send(request(&uri)).await;
    let mut left = route.send(request(&format!("/s/{name}-left"))).await;
    let mut follower = route.send(request(&uri)).await;
    for client in [&mut whole, &mut cut, &mut left, &mut follower] {
        client.poll();
        client.poll();
    }
    let cursor = cut.last_id();
    drop((cut, left));
    hub.advance(Duration::from_millis(500)).await;
    let mut resumed = route.send(resuming(&uri, &cursor)).await;
    for _ in 0..20 {
        hub.advance(Duration::from_millis(250)).await;
        for client in [&mut whole, &mut follower, &mut resumed] {
            client.drain();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g6_after_a_mix_of_every_ending_nothing_is_left() {
    let store = FaultStore::new(MemoryStore::new());
    let hooks = Arc::new(AtomicUsize::new(0));
    let mut hub = node(&store, 1, &hooks);
    let mut lost = node(&store, 2, &hooks);

    let pause = Step::Sleep(Duration::from_secs(1));
    let slow = |last: Step| then(then(numbers(3), pause.clone()), last);
    let cancel = || hub.sse.layer().on_disconnect(Disconnect::Cancel);
    let routes = [
        ("completed", Route::new(hub.sse.generation(), slow(chunk("event: completed\ndata: x\n\n")), false)),
        ("eof", Route::new(hub.sse.layer(), slow(chunk("data: last\n\n")), false)),
        ("failed", Route::new(hub.sse.generation(), slow(Step::Fail), false)),
        ("panicked", Route::new(hub.sse.generation(), slow(Step::Panic), false)),
        ("drop-panic", Route::new(cancel(), slow(Step::Hang), true)),
        ("cancelled", Route::new(cancel(), slow(Step::Hang), false)),
        ("feed", Route::new(hub.sse.feed(), slow(chunk("data: last\n\n")), false)),
        ("interrupted", Route::new(hub.sse.layer(), slow(Step::Hang), false)),
        ("hanging", Route::new(hub.sse.generation(), slow(Step::Hang), false)),
    ];
    for (name, route) in &routes {
        visit(&mut hub, route, name).await;
    }
    // Stop the detached streams that hang.
    for name in ["hanging-whole", "hanging-cut", "hanging-left"] {
        hub.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new(name).unwrap()).await.unwrap();
    }
    // Refused, withdrawn and unknown streams.
    let withdrawn = serving(hub.sse.generation().id(StreamId::path("/s/{id}")), |_| {
        http::Response::builder().status(404).body(Watch::default().body(Vec::new())).unwrap()
    });
    assert_eq!(send(&withdrawn, request("/s/withdrawn")).await.status(), 404);
    assert_eq!(send(&withdrawn, resuming("/s/unknown", "e5-5")).await.status(), 404);
    assert_eq!(send(&withdrawn, request("/s/mal%20formed")).await.status(), 400);
    // Futures that never complete, and responses that nobody reads.
    drop(routes[0].1.app.clone().oneshot(request("/s/never-polled")));
    drop(send(&routes[0].1.app, request("/s/never-read")).await);
    // Relays and publications.
    for n in 0..20 {
        let mut waits =
            Client::new(hub.sse.relay().oneshot(request(&format!("/nobody-{n}"))).await.unwrap().into_body());
        waits.drain();
    }
    let spec = |name: &str| StreamSpec::new(Owner::ANONYMOUS, StreamId::new(name).unwrap());
    let publisher = hub.sse.publisher();
    let mut job = publisher.open(spec("job")).await.unwrap();
    job.send(Event::new("x")).await.unwrap();
    job.complete(Event::new("y")).await.unwrap();
    drop(publisher.open(spec("dropped")).await.unwrap());
    for n in 0..3 {
        let id = StreamId::new("stateless").unwrap();
        publisher.send_once(&Owner::ANONYMOUS, &id, Event::new("x"), n.to_string()).await.unwrap();
    }
    // A stream that is deleted while it runs.
    let mut deleted = routes[8].1.send(request("/s/deleted")).await;
    deleted.drain();
    let key = resilient_sse::StreamKey::new(Owner::ANONYMOUS, StreamId::new("deleted").unwrap());
    hub.sse.registry().delete(&key).await.unwrap();
    // A lost node with producers of both kinds: its guardian is never polled.
    let orphans = Route::new(lost.sse.generation(), slow(Step::Hang), false);
    let reruns = Route::new(lost.sse.layer(), slow(Step::Hang), false);
    let mut kept = Vec::new();
    for name in ["orphan", "orphan-done"] {
        kept.push(orphans.send(request(&format!("/s/{name}"))).await);
    }
    kept.push(reruns.send(request("/s/orphan-rerun")).await);
    for client in &mut kept {
        client.drain();
    }
    let mut follower = routes[0].1.send(request("/s/orphan")).await;
    follower.drain();
    hub.advance(Duration::from_secs(65)).await;
    follower.drain();
    assert_eq!(follower.names().last(), Some(&"orphaned"));
    drop((kept, follower, deleted));
    // The lost node was only paused.
    lost.advance(Duration::from_secs(1)).await;

    // Interrupted and stateless streams end with their lifetime.
    let active = hub.sse.registry().active_count().await.unwrap();
    assert_eq!(active, 1, "the stateless one");
    hub.advance(Duration::from_secs(120) + SWEEP).await;
    assert_eq!(hub.sse.registry().active_count().await.unwrap(), 0);
    hub.advance(WINDOW + SWEEP + Duration::from_secs(1)).await;
    assert!(store.inner().is_empty(), "{:?}", hub.sse.streams().list(&Owner::ANONYMOUS).await.unwrap());
    for hub in [&hub, &lost] {
        let health = hub.sse.health();
        assert_eq!((health.active, health.detached, health.followers), (0, 0, 0));
    }
    for (name, route) in &routes {
        assert_eq!(route.watch.alive(), 0, "{name}");
        assert!(route.watch.made() > 0);
        assert_eq!(Arc::strong_count(&route.requests), 1, "{name}: requests are gone");
    }
    assert_eq!((orphans.watch.alive(), reruns.watch.alive()), (0, 0));
    assert!(hooks.load(Ordering::SeqCst) > 20);
}

#[tokio::test(start_paused = true)]
async fn g6_the_gauges_say_what_runs() {
    let mut hub = TestHub::new();
    let route = Route::new(hub.sse.generation(), then(numbers(1), Step::Hang), false);
    let mut clients = Vec::new();
    for name in ["a", "b", "b", "b"] {
        let mut client = route.send(request(&format!("/s/{name}"))).await;
        client.drain();
        clients.push(client);
    }
    let gauges = |hub: &TestHub| (hub.sse.health().active, hub.sse.health().detached, hub.sse.health().followers);
    assert_eq!(gauges(&hub), (2, 0, 2));
    drop(clients.remove(0));
    hub.step().await;
    assert_eq!(gauges(&hub), (2, 1, 2));
    drop(clients);
    hub.step().await;
    assert_eq!(gauges(&hub), (2, 2, 0));
    let publication = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
    let publication = hub.sse.publisher().open(publication).await.unwrap();
    assert_eq!(gauges(&hub), (3, 2, 0));
    drop(publication);
    for name in ["a", "b"] {
        hub.sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new(name).unwrap()).await.unwrap();
    }
    hub.advance(Duration::from_secs(1)).await;
    assert_eq!(gauges(&hub), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn g6_a_hub_that_is_dropped_frees_all_it_holds() {
    let store = crate::support::yielding::Yielding::new(1);
    let alive = store.alive();
    let (sse, guardian) = resilient_sse::ResilientSse::builder(store).anonymous().build().unwrap();
    let guardian = tokio::spawn(guardian);
    let context = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&context);
    let watch = Watch::default();
    let bodies = watch.clone();
    let app = serving(sse.generation().id(StreamId::path("/s/{id}")), move |request: Request<()>| {
        *kept.lock().unwrap() = request.extensions().get::<resilient_sse::StreamContext>().cloned();
        events(bodies.body(then(numbers(2), Step::Hang)))
    });
    let first = send(&app, request("/s/a")).await;
    let second = send(&app, request("/s/a")).await;
    let mut clients = [Client::new(first.into_body()), Client::new(second.into_body())];
    for _ in 0..20 {
        clients.iter_mut().for_each(Client::drain);
        tokio::task::yield_now().await;
    }
    assert_eq!(clients[1].data(), ["0", "1"]);
    sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
    for _ in 0..20 {
        clients.iter_mut().for_each(Client::drain);
        tokio::task::yield_now().await;
    }
    assert!(context.lock().unwrap().take().unwrap().is_stopped());
    drop((clients, app, sse));
    guardian.abort();
    let _ = guardian.await;
    tokio::task::yield_now().await;
    assert_eq!(watch.alive(), 0);
    assert!(alive.upgrade().is_none(), "something holds on to the hub");
}
