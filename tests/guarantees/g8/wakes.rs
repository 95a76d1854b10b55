//! A body is never woken by its own actions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, channel::Channel};
use resilient_sse::{
    Durability, Event, MemoryStore, Owner, ResilientSse, StreamId,
    test_util::{Fault, FaultStore, TestHub},
};
use tokio::time::Instant;
use tokio_test::task;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::bodies::{Step, Watch, app, chunk};

/// Polls once. Returns whether there was a frame.
fn poll_frame(body: &mut task::Spawn<impl Body<Data = Bytes>>) -> bool {
    body.enter(|cx, body| body.poll_frame(cx)).is_ready()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_stored_at_once_wakes_no_one() {
    let hub = TestHub::new();
    let (mut events, body) = Channel::<Bytes>::new(1);
    let body = Arc::new(Mutex::new(Some(body)));
    let service = ServiceBuilder::new().layer(hub.sse.generation().id(StreamId::path("/{id}"))).service(service_fn(
        move |_: Request<()>| {
            let body = body.lock().unwrap().take().unwrap();
            async { Response::builder().header("content-type", "text/event-stream").body(body) }
        },
    ));
    let response = service.oneshot(Request::get("/a").body(()).unwrap()).await.unwrap();
    let mut body = task::spawn(response.into_body());
    assert_eq!((poll_frame(&mut body), body.is_woken()), (true, false), "the layer's own event");
    for _ in 0..3 {
        assert_eq!((poll_frame(&mut body), body.is_woken()), (false, false));
        events.send_data("data: x\n\n".into()).await.unwrap();
        assert!(body.is_woken());
        assert_eq!((poll_frame(&mut body), body.is_woken()), (true, false));
    }
}

/// A broadcast costs each reader one poll an event: no reader is woken for the others.
#[tokio::test(start_paused = true)]
async fn g8_an_event_wakes_each_of_its_readers_once() {
    let hub = TestHub::new();
    let id = StreamId::new("news").unwrap();
    let publish = async |n: u32| {
        hub.sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new(n.to_string())).await.unwrap();
    };
    publish(0).await;
    let mut bodies = Vec::new();
    for _ in 0..100 {
        let woken = Arc::new(Woken::default());
        let answer = hub.sse.relay().oneshot(Request::get("/news").body(()).unwrap()).await.unwrap();
        let mut body = Box::pin(answer.into_body());
        while body.as_mut().poll_frame(&mut Context::from_waker(&Waker::from(Arc::clone(&woken)))).is_ready() {}
        bodies.push((body, woken));
    }
    for n in 1..=3 {
        publish(n).await;
        for (body, woken) in &mut bodies {
            assert_eq!(woken.0.load(Ordering::SeqCst), n, "once an event");
            let waker = Waker::from(Arc::clone(woken));
            let mut cx = Context::from_waker(&waker);
            assert!(body.as_mut().poll_frame(&mut cx).is_ready());
            assert!(body.as_mut().poll_frame(&mut cx).is_pending());
        }
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The process drains while an event waits for the store. From then on a task drives the body, and waits too.
#[tokio::test(start_paused = true)]
async fn g7_a_client_hears_of_the_store_although_a_task_drives_its_body() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000)).batched();
    let builder = ResilientSse::builder(store.clone()).anonymous().durability(Durability::BeforeSend);
    let (sse, guardian) = builder.build().unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let guardian = tokio::spawn(guardian.with_graceful_shutdown(async { drop(gone.await) }));
    store.fail_on("append", Fault::Delay(Duration::from_millis(50)));
    let wait = Duration::from_millis(200);
    let steps = vec![Step::Sleep(wait), chunk("data: 0\n\n"), Step::Hang];
    let app = app(sse.generation().id(StreamId::path("/s/{id}")), &Watch::default(), steps);
    // An `EventSource`, which is let go at once.
    let request = Request::get("/s/a").header("accept", "text/event-stream").body(()).unwrap();
    let start = Instant::now();
    let mut body = Box::pin(app.oneshot(request).await.unwrap().into_body());
    // Like a connection, this is a task. It is polled before the task that takes over.
    let client = tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if frame.into_data().unwrap_or_default().windows(7).any(|bytes| bytes == b"data: 0") {
                return start.elapsed() - wait;
            }
        }
        panic!("the event was made, recorded, and not delivered");
    });
    tokio::time::sleep_until(start + wait + Duration::from_millis(10)).await;
    go.send(()).unwrap();
    let late = client.await.unwrap();
    assert!((50..200).contains(&late.as_millis()), "{late:?} after it was made");
    guardian.abort();
}
