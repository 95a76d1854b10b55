//! G11, G5: an unused registration is withdrawn, whatever was stored of it meanwhile, and on every store.

use std::{
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use resilient_sse::{
    MemoryStore, Owner, StreamContext, StreamId, StreamInfo, StreamKey, StreamSpec,
    test_util::{Fault, FaultStore, TestHub},
};

use tower::ServiceExt as _;

use crate::support::bodies::{App, Client, Step, Watch, app, events, numbers, request, send, serving_async};

const SECOND: Duration = Duration::from_secs(1);

fn key() -> StreamKey {
    StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap())
}

fn spec() -> StreamSpec {
    StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").unwrap())
}

/// A hub on a store that answers at once, or on one that gets gathered batches.
fn hub(batched: bool) -> TestHub {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    TestHub::on(if batched { store.batched() } else { store }, resilient_sse::Builder::anonymous).unwrap()
}

async fn status(app: App, request: Request<()>) -> StatusCode {
    app.oneshot(request).await.unwrap().status()
}

async fn info(hub: &TestHub) -> Option<StreamInfo> {
    hub.sse.registry().stream(&key()).await.unwrap()
}

/// A handler that keeps metadata, waits, and then fails. From its second call on it answers.
fn failing_first(hub: &TestHub, takes: Duration, calls: &Arc<AtomicUsize>) -> App {
    let (calls, watch) = (Arc::clone(calls), Watch::default());
    serving_async(hub.sse.generation().id(StreamId::path("/s/{id}")), move |request: Request<()>| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        let watch = watch.clone();
        async move {
            if !first {
                return events(watch.body(numbers(2)));
            }
            let context = request.extensions().get::<StreamContext>().unwrap();
            context.metadata("job", "7").unwrap();
            tokio::time::sleep(takes).await;
            Response::builder().status(503).body(watch.body(vec![])).unwrap()
        }
    })
}

#[tokio::test(start_paused = true)]
async fn g11_a_handler_that_keeps_metadata_and_fails_leaves_no_stream() {
    for (batched, takes) in [(false, 0), (false, 100), (true, 0), (true, 100), (true, 900)] {
        let mut hub = hub(batched);
        let calls = Arc::default();
        let app = failing_first(&hub, Duration::from_millis(takes), &calls);
        let first = tokio::spawn(status(app.clone(), request("/s/a")));
        hub.advance(SECOND).await;
        assert_eq!(first.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        hub.advance(SECOND).await;
        assert_eq!(info(&hub).await, None, "batched {batched}, {takes} ms");
        let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
        client.finish(&mut hub).await;
        assert_eq!((client.data()[..2].to_vec(), calls.load(Ordering::SeqCst)), (vec!["0", "1"], 2));
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_request_dropped_while_its_handler_waits_leaves_no_stream() {
    for batched in [false, true] {
        let mut hub = hub(batched);
        let app = failing_first(&hub, SECOND * 10, &Arc::default());
        // The test's last poll: the future is dropped in its present state, on every route.
        let mut waiting = Box::pin(status(app, request("/s/a")));
        for _ in 0..4 {
            assert!((&mut waiting).now_or_never().is_none());
            hub.step().await;
        }
        assert!(!info(&hub).await.expect("it is registered").started, "metadata is no answer");
        drop(waiting);
        hub.advance(SECOND).await;
        if hub.sse.health().active == 0 {
            assert_eq!(info(&hub).await, None, "batched {batched}");
        }
        // The handler may outlive its client; then it fails later.
        hub.advance(SECOND * 11).await;
        assert_eq!((info(&hub).await, hub.sse.health().active), (None, 0), "batched {batched}");
    }
}

/// After a restart of the store every lane asks for its stream's state and registers it again.
#[tokio::test(start_paused = true)]
async fn g5_a_stream_that_is_registered_again_before_its_handler_answers_has_not_started() {
    for batched in [false, true] {
        let mut hub = hub(batched);
        let app = failing_first(&hub, SECOND * 30, &Arc::default());
        let waiting = tokio::spawn(status(app, request("/s/a")));
        hub.advance(SECOND).await;
        let before = info(&hub).await.expect("it is registered");
        hub.store.forget();
        assert_eq!(info(&hub).await, None);
        hub.store.reconnected();
        hub.advance(SECOND * 11).await;
        let after = info(&hub).await.expect("registered again");
        assert_eq!((after.started, after.epoch), (false, before.epoch), "batched {batched}");
        hub.advance(SECOND * 20).await;
        assert_eq!(waiting.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        hub.advance(SECOND).await;
        assert_eq!(info(&hub).await, None, "batched {batched}");
    }
}

/// A withdrawal overtakes other requests: none that arrives later registers the stream again.
#[tokio::test(start_paused = true)]
async fn g11_what_is_on_the_way_does_not_register_a_withdrawn_stream_again() {
    for operation in ["append", "reopen"] {
        let mut hub = hub(true);
        let app = failing_first(&hub, SECOND, &Arc::default());
        hub.store.fail_on(operation, Fault::Delay(Duration::from_millis(400)));
        let waiting = tokio::spawn(status(app, request("/s/a")));
        hub.advance(Duration::from_millis(750)).await;
        hub.store.forget();
        // The lane is notified and registers again, 400 ms later each time.
        hub.store.reconnected();
        hub.advance(Duration::from_millis(250)).await;
        assert_eq!(waiting.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        hub.advance(SECOND * 5).await;
        assert_eq!((info(&hub).await, hub.sse.health().active), (None, 0), "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_publisher_s_registration_is_repeated_and_otherwise_taken_back() {
    for fault in [Fault::LoseReply, Fault::Hang, Fault::Delay(SECOND * 3), Fault::Refuse] {
        let mut hub = hub(false);
        hub.store.fail_on("open", fault);
        let first = hub.sse.publisher().open(spec()).await;
        assert!(first.is_err(), "{fault:?}");
        assert_eq!(hub.store.calls("open"), if matches!(fault, Fault::LoseReply | Fault::Refuse) { 2 } else { 1 });
        hub.store.heal();
        hub.advance(SECOND * 5).await;
        assert_eq!((info(&hub).await, hub.sse.health().active), (None, 0), "{fault:?}");
        let job = hub.sse.publisher().open(spec()).await.expect("nobody has it");
        hub.advance(SECOND).await;
        assert!(info(&hub).await.expect("registered").started);
        drop(job);
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_publisher_s_open_that_is_dropped_registers_nothing() {
    let mut hub = hub(false);
    // The request is done, but its reply is late.
    hub.store.fail_on("open", Fault::Delay(Duration::from_millis(100)));
    for polls in 0..3 {
        let publisher = hub.sse.publisher();
        let mut opening = Box::pin(publisher.open(spec()));
        for _ in 0..=polls {
            assert!((&mut opening).now_or_never().is_none());
            hub.advance(Duration::from_millis(40)).await;
        }
        drop(opening);
        hub.advance(SECOND).await;
        assert_eq!(info(&hub).await, None, "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_lost_reply_leaves_no_registration_on_a_route_that_makes_up_ids() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ended);
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().on_end(move |stream| {
            told.lock().unwrap().push(stream.ended().ending.state);
            ready(())
        })
    })
    .unwrap();
    let watch = Watch::default();
    let app = app(hub.sse.generation().max_streams(1), &watch, [numbers(2), vec![Step::Sleep(SECOND)]].concat());
    // The guardian's beats have been acknowledged for long enough to claim orphans.
    hub.advance(SECOND * 31).await;
    hub.store.fail_on("open", Fault::LoseReply);
    let mut client = Client::new(send(&app, request("/")).await.into_body());
    hub.store.heal();
    hub.advance(SECOND * 2).await;
    client.drain();
    drop(client);
    assert_eq!(hub.sse.registry().active_count().await.unwrap(), 0);
    assert_eq!(send(&app, request("/")).await.status(), StatusCode::OK, "the owner's one stream is free");
    hub.advance(SECOND * 90).await;
    let ended = ended.lock().unwrap().clone();
    assert!(!ended.contains(&resilient_sse::StreamState::Orphaned), "{ended:?}");
}
