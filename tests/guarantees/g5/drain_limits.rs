//! G5, G3: a process drains within its limit, whatever probes, hooks, stores and clients do, and reports unfinished
//! work.

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use resilient_sse::{
    Builder, Disconnect, DrainReport, Event, JobStatus, MemoryStore, Owner, Publication, ResilientSseBody,
    StreamContext, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, TestHub},
};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::bodies::{Client, Script, Step, Watch, app, events, numbers, request, send, serving_async, then};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MILLI: Duration = Duration::from_millis(1);

pub(super) fn hub(batched: bool, setup: impl FnOnce(Builder) -> Builder) -> TestHub {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    TestHub::on(if batched { store.batched() } else { store }, |builder| setup(builder.anonymous())).unwrap()
}

fn key(name: &str) -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new(name).unwrap())
}

pub(super) async fn open(hub: &TestHub, name: &str) -> Publication {
    hub.sse.publisher().open(StreamSpec::new(Owner::ANONYMOUS, StreamId::new(name).unwrap())).await.unwrap()
}

async fn state(hub: &TestHub, name: &str) -> StreamState {
    hub.sse.registry().stream(&key(name)).await.unwrap().expect("held").state
}

/// Drains the process while clients read. Returns the report and the time that the drain took.
pub(super) async fn drain(
    hub: &mut TestHub,
    clients: &mut [Client<ResilientSseBody<Script>>],
) -> (DrainReport, Duration) {
    let start = Instant::now();
    hub.shut_down_on(ready(()));
    loop {
        clients.iter_mut().for_each(Client::drain);
        hub.step().await;
        if let Some(report) = hub.report() {
            return (report, start.elapsed());
        }
        assert!(start.elapsed() < SECOND * 120, "it does not end");
        tokio::time::advance(MILLI * 10).await;
    }
}

pub(super) async fn drain_alone(hub: &mut TestHub) -> (DrainReport, Duration) {
    drain(hub, &mut []).await
}

#[tokio::test(start_paused = true)]
async fn g5_a_feed_lets_its_process_go_at_once() {
    for batched in [false, true] {
        for disconnect in [Disconnect::Interrupt, Disconnect::DETACH] {
            let mut hub = hub(batched, |builder| builder);
            let watch = Watch::default();
            let app = app(hub.sse.feed().on_disconnect(disconnect), &watch, then(numbers(1), Step::Hang));
            let mut clients = [Client::new(send(&app, request("/feed")).await.into_body())];
            clients[0].drain();
            let (report, took) = drain(&mut hub, &mut clients).await;
            assert!(took < SECOND * 2, "{took:?}");
            assert_eq!((report.running, report.interrupted, report.finished, report.unsettled), (1, 1, 0, 0));
            clients[0].finish(&mut hub).await;
            assert_eq!((clients[0].data(), watch.alive()), (vec!["0"], 0), "batched {batched}, {disconnect:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_drain_takes_no_longer_than_its_limit_whatever_probes_do() {
    for limit in [MILLI * 200, SECOND, SECOND * 25] {
        for batched in [false, true] {
            let mut hub = hub(batched, |builder| builder.drain_limit(limit).job_probe(|_| pending::<JobStatus>()));
            let mut jobs = Vec::new();
            for n in 0..100 {
                jobs.push(open(&hub, &n.to_string()).await);
            }
            hub.advance(SECOND).await;
            let (report, took) = drain_alone(&mut hub).await;
            assert!(took <= limit, "{took:?} of {limit:?}");
            assert_eq!((report.closed + report.left, report.finished, report.unsettled), (100, 0, 0), "{report:?}");
            assert!(
                report.left <= 16,
                "what the probe was not asked, or had no time to say, is not running: {report:?}"
            );
            assert_eq!(state(&hub, "99").await, StreamState::Failed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_probe_that_answers_does_not_wait_for_one_that_hangs() {
    let mut hub = hub(false, |builder| {
        builder.job_probe(|stream| async move {
            match stream.key.id.as_str() {
                "0" => pending().await,
                "1" => JobStatus::Running,
                _ => JobStatus::Completed(Event::new("42").named("completed")),
            }
        })
    });
    let mut jobs = Vec::new();
    for n in 0..40 {
        jobs.push(open(&hub, &n.to_string()).await);
    }
    let start = Instant::now();
    hub.shut_down_on(ready(()));
    hub.advance(SECOND * 21).await;
    assert_eq!(state(&hub, "39").await, StreamState::Completed, "{:?} before the end", SECOND * 25 - start.elapsed());
    hub.advance(SECOND * 4).await;
    let report = hub.report().expect("it is down");
    assert_eq!((report.closed, report.left), (38 + 1, 1), "{report:?}");
    assert_eq!((state(&hub, "0").await, state(&hub, "1").await), (StreamState::Failed, StreamState::Active));
}

#[tokio::test(start_paused = true)]
async fn g5_a_drain_takes_no_longer_than_its_limit_whatever_the_store_does() {
    for fault in [Fault::Hang, Fault::Refuse] {
        for probe in [false, true] {
            let mut hub = hub(true, |builder| {
                let builder = builder.drain_limit(SECOND * 10).on_end(|_| ready(()));
                if probe { builder.job_probe(|_| ready(JobStatus::Unknown)) } else { builder }
            });
            let mut jobs = Vec::new();
            for n in 0..50 {
                jobs.push(open(&hub, &n.to_string()).await);
            }
            hub.advance(SECOND).await;
            hub.store.fail(fault);
            let (report, took) = drain_alone(&mut hub).await;
            assert!(took <= SECOND * 10, "{took:?}");
            assert_eq!((report.closed, report.unsettled), (50, 50), "{fault:?}: {report:?}");
            assert!(report.unrecorded_bytes > 0);
        }
    }
}

/// The drain does not wait for an executor that no longer runs anything.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_takes_no_longer_than_its_limit_where_nothing_is_run() {
    let mut hub = hub(false, |builder| {
        builder.drain_limit(SECOND * 3).executor(drop).on_end(|_| ready(())).job_probe(|_| ready(JobStatus::Running))
    });
    let job = open(&hub, "a").await;
    let (report, took) = drain_alone(&mut hub).await;
    assert!(took <= SECOND * 3);
    assert_eq!((report.closed, report.unsettled), (1, 0), "{report:?}");
    drop(job);
}

/// A client that does not reconnect by itself is served for as long as there is time.
#[tokio::test(start_paused = true)]
async fn g5_a_client_that_would_lose_its_answer_is_served_until_shortly_before_the_limit() {
    for (probe, served) in [(false, 24), (true, 19)] {
        let mut hub =
            hub(true, |builder| if probe { builder.job_probe(|_| ready(JobStatus::Unknown)) } else { builder });
        let watch = Watch::default();
        let steps = (0..60).flat_map(|n| [numbers(60)[n].clone(), Step::Sleep(SECOND)]).collect();
        let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, steps);
        let mut clients = [Client::new(send(&app, request("/s/a")).await.into_body())];
        clients[0].drain();
        let (report, took) = drain(&mut hub, &mut clients).await;
        assert!(took <= SECOND * 25, "{took:?}");
        clients[0].finish(&mut hub).await;
        let numbers = clients[0].names().iter().filter(|name| **name == "message").count();
        assert!(numbers >= served, "{numbers} events, one a second: {report:?}");
        assert_eq!((clients[0].names().last(), report.closed), (Some(&"failed"), 1));
        assert_eq!((state(&hub, "a").await, watch.alive()), (StreamState::Failed, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_drain_drops_the_bodies_of_clients_that_do_not_read() {
    for batched in [false, true] {
        for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
            let mut hub = hub(batched, |builder| builder.drain_limit(SECOND).on_end(|_| ready(())));
            let watch = Watch::default();
            let layer = hub.sse.layer().id(StreamId::path("/s/{id}")).on_disconnect(disconnect);
            let app = app(layer, &watch, then(numbers(1), Step::Hang));
            let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
            assert!(client.poll());
            for operation in ["interrupt", "close"] {
                hub.store.fail_on(operation, Fault::Delay(MILLI * 20));
            }
            let (report, took) = drain_alone(&mut hub).await;
            assert!(took <= SECOND);
            hub.step().await;
            assert_eq!((watch.alive(), report.unsettled), (0, 0), "batched {batched}, {disconnect:?}: {report:?}");
        }
    }
}

/// A stream that was taken for an orphan is served on unrecorded, but only as long as its process lives.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_drops_the_bodies_of_streams_that_were_taken_for_orphans() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let mut hub = TestHub::on(store.clone(), |builder| builder.anonymous().drain_limit(SECOND)).unwrap();
    let mut other = TestHub::on(FaultStore::new(store.inner().clone()), Builder::anonymous).unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Hang));
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    hub.step().await;
    client.drain();
    store.fail(Fault::Hang);
    for _ in 0..90 {
        other.advance(SECOND).await;
        hub.step().await;
    }
    store.heal();
    hub.advance(SECOND * 15).await;
    assert_eq!((state(&hub, "a").await, watch.alive(), hub.sse.health().active), (StreamState::Orphaned, 1, 0));
    let (_, took) = drain_alone(&mut hub).await;
    assert!(took <= SECOND);
    hub.step().await;
    assert_eq!(watch.alive(), 0);
}

/// The code of a body after its terminal event is work too: a handler saves the answer there.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_lets_bodies_finish_after_their_terminal_events() {
    for (rest, limit, finishes) in [(SECOND, SECOND * 25, true), (SECOND * 3, SECOND * 2, false)] {
        let mut hub = hub(true, |builder| builder.drain_limit(limit));
        let watch = Watch::default();
        let steps = vec![crate::support::bodies::chunk("event: completed\ndata: done\n\n"), Step::Sleep(rest)];
        let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, steps);
        let mut clients = [Client::new(send(&app, request("/s/a")).await.into_body())];
        clients[0].drain();
        hub.step().await;
        let (report, took) = drain(&mut hub, &mut clients).await;
        assert_eq!((report.bodies_unfinished, report.unsettled), (usize::from(!finishes), 0), "{report:?}");
        assert!(took <= if finishes { rest + MILLI * 100 } else { limit }, "{took:?}");
        hub.step().await;
        assert_eq!(watch.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_publication_that_is_being_opened_when_the_drain_begins_is_refused() {
    let mut hub = hub(true, |builder| builder);
    hub.store.fail_on("open", Fault::Delay(MILLI * 500));
    let publisher = hub.sse.publisher();
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
    let opening = tokio::spawn(async move { publisher.open(spec).await.map(drop) });
    hub.advance(MILLI * 100).await;
    hub.shut_down_on(ready(()));
    hub.advance(SECOND).await;
    assert!(matches!(opening.await.unwrap(), Err(resilient_sse::PublishError::Draining)));
    assert_eq!(hub.sse.registry().stream(&key("a")).await.unwrap(), None);
    assert!(hub.report().is_some_and(|report| report.unsettled == 0));
}

/// One failed read of the store proves nothing about a job.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_asks_the_probe_also_where_the_store_is_slow_for_a_moment() {
    const JOBS: usize = 100;
    // After the store was emptied, it knows the jobs once their own node has registered them again.
    for fault in [Some(Fault::Hang), Some(Fault::Refuse), None] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let probe = move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            ready(JobStatus::Completed(Event::new("42").named("completed")))
        };
        let mut hub = hub(true, |builder| builder.job_probe(probe));
        let mut jobs = Vec::new();
        for n in 0..JOBS {
            jobs.push(open(&hub, &n.to_string()).await);
        }
        hub.advance(SECOND).await;
        hub.shut_down_on(ready(()));
        // The probe is asked from 19.5 s on.
        hub.advance(MILLI * 19_250).await;
        match fault {
            Some(fault) => hub.store.fail_on("info", fault),
            None => hub.store.forget(),
        }
        hub.advance(MILLI * 750).await;
        hub.store.heal();
        hub.advance(SECOND * 6).await;
        let report = hub.report().expect("it is over");
        assert_eq!((report.closed, report.unsettled), (JOBS, 0), "{fault:?}: {report:?}");
        assert_eq!(asked.load(Ordering::SeqCst), JOBS, "{fault:?}");
        for n in 0..JOBS {
            assert_eq!(state(&hub, &n.to_string()).await, StreamState::Completed, "{fault:?}: {n}");
        }
    }
}

/// Only the drain stops the work of a client that does not read, since its stream has no lane that ends.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_drops_and_counts_unrecorded_work_whose_client_does_not_read() {
    for feed in [false, true] {
        let mut hub = hub(false, |builder| builder.drain_limit(SECOND * 10));
        let watch = Watch::default();
        let layer = if feed { hub.sse.feed() } else { hub.sse.generation() };
        let app = app(layer.id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Hang));
        hub.store.fail_on("open", Fault::Refuse);
        let mut clients = Vec::new();
        for n in 0..3 {
            let mut client = Client::new(send(&app, request(&format!("/s/{n}"))).await.into_body());
            assert!(client.poll());
            clients.push(client);
        }
        // A client that has left is not counted.
        clients.pop();
        hub.store.heal();
        let (report, took) = drain_alone(&mut hub).await;
        assert!(took <= SECOND * 10 && (feed || took > SECOND * 5), "feed {feed}: {took:?}");
        hub.step().await;
        assert_eq!((watch.made(), watch.alive(), report.cut_off), (3, 0, 2), "feed {feed}: {report:?}");
    }
}

/// The client would lose its answer, like any other.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_waits_for_handlers_that_have_not_answered() {
    for (named, recorded) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut hub = hub(true, |builder| builder);
        let watch = Watch::default();
        let bodies = watch.clone();
        let layer = hub.sse.generation();
        let layer = if named { layer.id(StreamId::path("/s/{id}")) } else { layer };
        let app = serving_async(layer, move |_| {
            let bodies = bodies.clone();
            async move {
                tokio::time::sleep(SECOND * 3).await;
                events(bodies.body(then(numbers(3), Step::Sleep(SECOND * 3))))
            }
        });
        if !recorded {
            hub.store.fail_on("open", Fault::Refuse);
        }
        let asking = tokio::spawn(app.oneshot(Request::post("/s/a").body(()).unwrap()));
        hub.advance(SECOND).await;
        hub.shut_down_on(ready(()));
        hub.advance(MILLI * 2100).await;
        assert!(asking.is_finished(), "named {named}, recorded {recorded}");
        let response = asking.await.unwrap().unwrap();
        assert_eq!(response.status(), 200, "named {named}, recorded {recorded}");
        let mut client = Client::new(response.into_body());
        client.finish(&mut hub).await;
        hub.advance(SECOND).await;
        assert_eq!(client.names().last(), Some(&"completed"), "named {named}, recorded {recorded}");
        let report = hub.report().expect("it is over once nobody is served any more");
        assert_eq!((report.closed, report.cut_off), (0, 0), "named {named}, recorded {recorded}: {report:?}");
    }
}

/// The drain waits for handlers as long as it serves clients. It does not wait for handlers that begin in the drain, or
/// for clients that reconnect.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_waits_for_no_handler_in_vain() {
    for (case, takes, limit) in
        [("late", SECOND * 60, SECOND * 25), ("comes again", SECOND * 5, SECOND), ("new", SECOND, SECOND / 2)]
    {
        let mut hub = hub(true, |builder| builder);
        let watch = Watch::default();
        let bodies = watch.clone();
        let app = serving_async(hub.sse.generation(), move |_| {
            let bodies = bodies.clone();
            async move {
                tokio::time::sleep(takes).await;
                events(bodies.body(numbers(3)))
            }
        });
        let request = match case {
            "comes again" => Request::get("/s/a").header("accept", "text/event-stream"),
            _ => Request::post("/s/a"),
        };
        let request = request.body(()).unwrap();
        let asks = async move { app.oneshot(request).await.unwrap() };
        let (report, took, response) = if case == "new" {
            let (report, took) = drain_alone(&mut hub).await;
            (report, took, asks.await)
        } else {
            let asking = tokio::spawn(asks);
            hub.advance(MILLI * 100).await;
            let (report, took) = drain_alone(&mut hub).await;
            tokio::time::advance(takes).await;
            (report, took, asking.await.unwrap())
        };
        assert!(took <= limit, "{case}: {took:?}");
        let comes_again = case == "comes again";
        assert_eq!(response.status(), if comes_again { 200 } else { 503 }, "{case}");
        drop(response);
        assert_eq!((watch.alive(), report.unsettled), (0, 0), "{case}: {report:?}");
        assert_eq!(report.cut_off, usize::from(case != "new"), "{case}: {report:?}");
    }
}

/// A handler that has not answered when clients are let go is dropped, its work is stopped, and its client is told to
/// come again. It does not delay the process any longer.
#[tokio::test(start_paused = true)]
async fn g5_a_drain_drops_a_handler_that_does_not_answer() {
    for unrecorded in [false, true] {
        let mut hub = hub(true, |builder| builder);
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let handler = move |request: Request<()>| {
            let context = request.extensions().get::<StreamContext>().expect("it has an owner").clone();
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                context.stopped().await;
                told.store(true, Ordering::SeqCst);
            });
            pending::<http::Response<Script>>()
        };
        let layer = hub.sse.generation();
        let app = if unrecorded {
            hub.store.fail(Fault::Refuse);
            serving_async(layer.id(StreamId::path("/s/{id}")), handler)
        } else {
            serving_async(layer, handler)
        };
        let asking = tokio::spawn(async move { app.oneshot(Request::post("/s/a").body(()).unwrap()).await.unwrap() });
        hub.advance(MILLI * 100).await;
        let (report, took) = drain_alone(&mut hub).await;
        assert!(took <= SECOND * 25, "{took:?}");
        assert_eq!(report.cut_off, 1, "unrecorded {unrecorded}: {report:?}");
        assert!(asking.is_finished(), "unrecorded {unrecorded}: its client has its answer by then");
        assert_eq!(asking.await.unwrap().status(), 503);
        assert!(stopped.load(Ordering::SeqCst), "unrecorded {unrecorded}");
    }
}
