//! G11: panics, blocking polls and hung host code do not touch other streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use resilient_sse::{
    Classify, Disconnect, EndedStream, Identify, JobStatus, MemoryStore, Outcome, Owner, ResilientSse, StreamId,
    StreamInfo, StreamKey, StreamState,
    test_util::{Fault, FaultStore, TestHub},
    wire::EventView,
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::bodies::{
    Broken, Client, Step, Watch, app, chunk, events, numbered, numbers, request, send, serving, serving_async, then,
};

fn path() -> impl Identify {
    StreamId::path("/s/{id}")
}

fn key(name: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(name).unwrap())
}

async fn ending(hub: &TestHub, name: &str) -> Option<(StreamState, Option<String>)> {
    let ended = hub.sse.completions().completion(&key(name)).await.unwrap()?;
    Some((ended.ending.state, ended.ending.reason.map(Into::into)))
}

#[tokio::test(start_paused = true)]
async fn g11_a_panicking_body_fails_its_own_stream_only() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let healthy = app(hub.sse.generation().id(path()), &watch, then(numbers(2), Step::Hang));
    let mut other = Client::new(send(&healthy, request("/s/other")).await.into_body());
    other.drain();
    for (name, in_drop) in [("a", false), ("b", true)] {
        let bodies = watch.clone();
        let panics = serving(hub.sse.generation().id(path()), move |_| {
            let mut body = bodies.body(vec![chunk("data: 0\n\n"), Step::Yield, Step::Panic]);
            body.panics_in_drop = in_drop;
            events(body)
        });
        let mut client = Client::new(send(&panics, request(&format!("/s/{name}"))).await.into_body());
        client.finish(&mut hub).await;
        assert_eq!(client.names(), ["message", "failed"]);
        assert_eq!(client.data()[1], r#"{"reason":"panic"}"#);
        // The same without the client.
        let mut client = Client::new(send(&panics, request(&format!("/s/{name}-alone"))).await.into_body());
        assert!(client.poll());
        drop(client);
        hub.advance(Duration::from_millis(250)).await;
        assert_eq!(ending(&hub, &format!("{name}-alone")).await, Some((StreamState::Failed, Some("panic".into()))));
    }
    assert!(hub.sse.health().panics >= 4);
    assert_eq!((watch.alive(), hub.sse.health().active), (1, 1));
    hub.advance(Duration::from_secs(16)).await;
    other.drain();
    assert_eq!(other.frames.last().unwrap(), ": heartbeat\n");
}

struct PanicsIn(&'static str);

impl Classify for PanicsIn {
    fn may_end(&self, block: &[u8]) -> bool {
        assert!(self.0 != "may_end" || !block.ends_with(b"1\n"), "told to panic");
        true
    }

    fn classify(&self, event: &EventView<'_>) -> Option<Outcome> {
        assert!(self.0 != "classify" || event.data != "1", "told to panic");
        (event.data == "2").then_some(Outcome::Completed)
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_classification_that_panics_takes_the_event_for_a_plain_one() {
    for place in ["may_end", "classify"] {
        for detached in [false, true] {
            let mut hub = TestHub::new();
            let watch = Watch::default();
            let layer = hub.sse.generation().id(path()).classify(PanicsIn(place));
            let app = app(layer, &watch, then(numbers(3), Step::Hang));
            let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
            if detached {
                assert!(client.poll());
                drop(client);
                hub.step().await;
                client = Client::new(send(&app, request("/s/a")).await.into_body());
            }
            client.finish(&mut hub).await;
            assert_eq!(client.data(), numbered(3), "{place}");
            assert_eq!(ending(&hub, "a").await, Some((StreamState::Completed, None)));
            assert_eq!(hub.sse.health().panics, 1, "{place}");
            hub.advance(Duration::from_secs(5)).await;
            assert_eq!(watch.alive(), 0, "polled on for 5 s after its last event");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g11_an_inner_service_that_panics_withdraws_its_stream() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    for late in [false, true] {
        let first = Arc::new(AtomicBool::new(true));
        let bodies = watch.clone();
        let inner = service_fn(move |_: Request<()>| {
            let panics = first.swap(false, Ordering::SeqCst);
            assert!(!panics || late, "told to panic");
            let response = events(bodies.body(numbers(1)));
            async move {
                tokio::task::yield_now().await;
                assert!(!panics, "told to panic");
                Ok::<_, Broken>(response)
            }
        });
        let app = ServiceBuilder::new().layer(hub.sse.generation().id(path())).service(inner);
        let uri = format!("/s/{late}");
        let panicked = std::panic::AssertUnwindSafe(app.clone().oneshot(request(&uri))).catch_unwind().await;
        assert!(panicked.is_err());
        assert!(hub.sse.registry().stream(&key(&late.to_string())).await.unwrap().is_none());
        let mut client = Client::new(app.oneshot(request(&uri)).await.unwrap().into_body());
        client.finish(&mut hub).await;
        assert_eq!(client.data()[0], "0");
    }
    assert_eq!((hub.sse.health().active, watch.alive()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn g11_hooks_and_probes_that_panic_or_hang_hold_nobody_up() {
    let store = FaultStore::new(MemoryStore::new());
    let hooks = Arc::new(AtomicUsize::new(0));
    let count = hooks.clone();
    let mut hub = TestHub::on(store.clone(), |builder| {
        builder
            .anonymous()
            .on_end(move |_: EndedStream| {
                let nth = count.fetch_add(1, Ordering::SeqCst);
                assert!(nth != 0, "told to panic at once");
                async move {
                    assert!(nth != 1, "told to panic");
                    if nth == 2 {
                        std::future::pending::<()>().await;
                    }
                }
            })
            .job_probe(|stream: StreamInfo| {
                assert!(stream.key.id.as_str() != "p0", "told to panic at once");
                async move {
                    match stream.key.id.as_str() {
                        "p1" => panic!("told to panic"),
                        "p2" => std::future::pending().await,
                        _ => JobStatus::Unknown,
                    }
                }
            })
    })
    .unwrap();
    let lost = TestHub::on(store, |builder| builder.anonymous().seed(2)).unwrap();
    let watch = Watch::default();
    let dead = app(lost.sse.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    let mut kept = Vec::new();
    for name in ["p0", "p1", "p2", "p3"] {
        let mut client = Client::new(send(&dead, request(&format!("/s/{name}"))).await.into_body());
        client.drain();
        kept.push(client);
    }
    let alive = app(hub.sse.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    let mut other = Client::new(send(&alive, request("/s/other")).await.into_body());
    other.drain();
    for second in 1..=300_usize {
        hub.advance(Duration::from_secs(1)).await;
        other.drain();
        let beats = other.frames.iter().filter(|frame| *frame == ": heartbeat\n").count();
        assert_eq!(beats, second / 15, "{second}");
    }
    for name in ["p0", "p1", "p2", "p3"] {
        let (state, _) = ending(&hub, name).await.unwrap_or_else(|| panic!("{name} runs"));
        assert_eq!(state, StreamState::Orphaned, "{name}");
    }
    assert!(hooks.load(Ordering::SeqCst) >= 6, "run again after a panic: {hooks:?}");
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn g11_a_detached_body_that_its_executor_drops_is_no_live_stream() {
    let mut hub = TestHub::with(|builder| builder.anonymous().executor(drop)).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(numbers(2), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    drop(client);
    assert_eq!(watch.alive(), 0);
    hub.advance(Duration::from_secs(1)).await;
    let health = hub.sse.health();
    assert_eq!((health.active, health.detached), (0, 0), "nobody beats for it");
    // Sweeps run on the executor too, so another node finds the stream.
    let mut other = TestHub::on(hub.store.clone(), |builder| builder.anonymous().seed(2)).unwrap();
    other.advance(Duration::from_secs(95)).await;
    assert_eq!(ending(&other, "a").await, Some((StreamState::Orphaned, Some("node_lost".into()))));
}

/// If nothing can drive a body on for its route's grace, the policy applies at once.
#[tokio::test(start_paused = true)]
async fn g11_without_an_executor_a_stream_ends_with_its_client() {
    for (policy, state) in
        [(Disconnect::Interrupt, StreamState::Interrupted), (Disconnect::Cancel, StreamState::Cancelled)]
    {
        let hub = TestHub::with(|builder| builder.anonymous().executor(drop)).unwrap();
        let watch = Watch::default();
        let layer = hub.sse.generation().id(path()).on_disconnect(policy);
        let app = app(layer, &watch, then(numbers(2), Step::Hang));
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        client.drain();
        drop(client);
        assert_eq!(hub.sse.registry().stream(&key("a")).await.unwrap().unwrap().state, state);
        assert_eq!((watch.alive(), hub.sse.health().active, hub.sse.health().detached), (0, 0, 0));
    }
}

/// The longest silence between two heartbeats of a client.
async fn longest_silence(sse: &ResilientSse, for_how_long: Duration) -> Duration {
    let app = app(sse.generation().id(path()), &Watch::default(), then(numbers(1), Step::Hang));
    let mut body = send(&app, request("/s/healthy")).await.into_body();
    let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while start.elapsed() < for_how_long {
        body.frame().await.unwrap().unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g11_other_streams_beat_on_time_whatever_foreign_code_does() {
    const BEAT: Duration = Duration::from_millis(100);
    let store = MemoryStore::new();
    let setup = |seed| {
        ResilientSse::builder(store.clone())
            .anonymous()
            .seed(seed)
            .heartbeat(BEAT)
            .stale_after(Duration::from_millis(1500))
            .sweep_every(Duration::from_millis(100))
            .stall_limit(Duration::from_millis(200))
            .on_end(|_: EndedStream| async { std::thread::sleep(Duration::from_millis(300)) })
            .job_probe(|_: StreamInfo| std::future::pending::<JobStatus>())
            .build()
            .unwrap()
    };
    let (sse, guardian) = setup(1);
    let guardian = tokio::spawn(guardian);
    let (lost, never_polled) = setup(2);
    let watch = Watch::default();
    let dead = app(lost.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    let mut orphan = Client::new(send(&dead, request("/s/orphan")).await.into_body());
    orphan.drain();
    let trouble = [
        then(numbers(1), Step::Panic),
        vec![chunk("data: 0\n\n"), Step::Yield, Step::Block(Duration::from_secs(2)), chunk("data: 1\n\n")],
        then(numbers(1), Step::Hang),
    ];
    // One body is read once and dropped, so that it is driven on. The other is read once and kept, so that it stalls.
    let mut stalled = Vec::new();
    for (n, steps) in trouble.into_iter().enumerate() {
        let app = app(sse.generation().id(path()), &watch, steps);
        for kept in [false, true] {
            let mut client = Client::new(send(&app, request(&format!("/s/{n}{kept}"))).await.into_body());
            client.poll();
            stalled.extend(kept.then_some(client));
        }
    }
    let silence = longest_silence(&sse, Duration::from_secs(4)).await;
    assert!(silence < BEAT * 10, "{silence:?}");
    let healthy = sse.registry().stream(&key("healthy")).await.unwrap().unwrap();
    assert!(healthy.ended.is_none(), "not taken for an orphan");
    guardian.abort();
    drop((orphan, stalled, never_polled));
}

/// A panic in the host's store counts as a failure. The guardian and all streams live on.
#[tokio::test(start_paused = true)]
async fn g11_a_store_that_panics_has_failed_and_takes_nobody_with_it() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let mut hub =
            TestHub::on(if batched { store.batched() } else { store }, resilient_sse::Builder::anonymous).unwrap();
        let watch = Watch::default();
        let steps = (0..20).flat_map(|n| [chunk(format!("data: {n}\n\n")), Step::Sleep(Duration::from_secs(1))]);
        let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, steps.collect());
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        for _ in 0..16 {
            client.drain();
            hub.advance(Duration::from_millis(250)).await;
        }
        hub.store.fail(Fault::Panic);
        for _ in 0..24 {
            client.drain();
            hub.advance(Duration::from_millis(250)).await;
        }
        assert!(client.data().len() >= 9, "it flows on: {:?}", client.data());
        assert!(hub.sse.health().panics > 0 && hub.sse.health().guarded);
        hub.store.heal();
        client.finish(&mut hub).await;
        assert_eq!((client.names().last(), hub.sse.health().lost), (Some(&"completed"), 0));
        hub.advance(Duration::from_secs(5)).await;
        let mut again = Client::new(send(&app, request("/s/a")).await.into_body());
        again.finish(&mut hub).await;
        assert_eq!(again.data()[..20], client.data()[..20], "all of it is recorded, batched {batched}");
        assert_eq!(watch.made(), 1);
    }
}

/// A request's future that is dropped outside of a runtime leaves a registration that is withdrawn, or found overdue.
#[test]
fn g11_a_request_dropped_outside_of_the_runtime_is_no_panic() {
    use std::task::{Context, Waker};
    for fault in [None, Some(Fault::Hang), Some(Fault::Refuse), Some(Fault::Delay(Duration::from_millis(1)))] {
        for detached in [false, true] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
            let (future, _sse) = runtime.block_on(async {
                let (sse, _guardian) = ResilientSse::builder(store.clone()).anonymous().build().unwrap();
                let layer = if detached { sse.generation() } else { sse.layer() };
                let watch = Watch::default();
                let app = serving_async(layer.id(StreamId::path("/s/{id}")), move |_| {
                    let watch = watch.clone();
                    async move {
                        std::future::pending::<()>().await;
                        events(watch.body(vec![]))
                    }
                });
                let mut future = Box::pin(async move { app.oneshot(request("/s/a")).await });
                for _ in 0..3 {
                    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                }
                assert_eq!(store.calls("open"), 1);
                (future, sse)
            });
            if let Some(fault) = fault {
                store.fail(fault);
            }
            drop(future);
            assert!(detached || store.calls("withdraw") == 1);
        }
    }
}

/// Bodies and publications that are dropped outside of a runtime leave the same state as a killed process.
#[test]
fn g11_bodies_dropped_outside_of_the_runtime_are_no_panic() {
    use resilient_sse::StreamSpec;
    for batched in [false, true] {
        for fault in [None, Some(Fault::Hang), Some(Fault::Refuse)] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
            let store = if batched { store.batched() } else { store };
            let (clients, job, sse) = runtime.block_on(async {
                let (sse, _guardian) = ResilientSse::builder(store.clone()).anonymous().build().unwrap();
                let watch = Watch::default();
                let layers =
                    [sse.layer(), sse.generation(), sse.feed(), sse.generation().on_disconnect(Disconnect::Cancel)];
                let mut clients = Vec::new();
                for (n, layer) in layers.into_iter().enumerate() {
                    let app = app(layer.id(path()), &watch, then(numbers(2), Step::Hang));
                    // One body produces, one follows.
                    for _ in 0..2 {
                        let answer = app.clone().oneshot(request(&format!("/s/{n}"))).now_or_never();
                        let Some(answer) = answer else { continue };
                        let mut client = Client::new(answer.unwrap().into_body());
                        client.poll();
                        clients.push(client);
                    }
                }
                let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("job").unwrap());
                let job = sse.publisher().open(spec).await.unwrap();
                (clients, job, sse)
            });
            assert!(clients.len() >= 4);
            if let Some(fault) = fault {
                store.fail(fault);
            }
            drop(clients);
            drop(job);
            drop(sse);
        }
    }
}
