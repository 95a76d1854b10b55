//! What wakes a body: nothing that it did itself.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::channel::Channel;
use resilient_sse::{StreamId, test_util::TestHub};
use tokio_test::task;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

/// Whether there was a frame.
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
