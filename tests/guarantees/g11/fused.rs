//! G11: a body gives nothing after its end, and dropping one needs no runtime.

use std::time::Duration;

use http::Response;
use http_body::Body;
use http_body_util::BodyExt as _;
use resilient_sse::{AnswerBody, Disconnect, Identify, Owner, StreamId, StreamKey, StreamState, test_util::TestHub};
use tower::ServiceExt as _;

use crate::support::bodies::{Client, Step, Watch, app, numbers, request, resuming, send, then};

fn path() -> impl Identify {
    StreamId::path("/s/{id}")
}

async fn assert_fused<B: Body<Data = bytes::Bytes>>(hub: &mut TestHub, response: Response<B>) {
    let mut client = Client::new(response.into_body());
    client.finish(hub).await;
    let body = client.body.as_mut().unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..3 {
        assert!(body.is_end_stream());
        assert!(matches!(body.as_mut().poll_frame(&mut cx), std::task::Poll::Ready(None)));
    }
}

async fn assert_fused_text(response: Response<AnswerBody>) {
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    for _ in 0..3 {
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn g11_bodies_and_answers_are_fused() {
    let mut hub = TestHub::new();
    let app = app(hub.sse.generation().id(path()), &Watch::default(), numbers(2));
    let produced = send(&app, request("/s/a")).await;
    assert_fused(&mut hub, produced).await;
    let followed = send(&app, request("/s/a")).await;
    assert_fused(&mut hub, followed).await;
    let resumed = send(&app, resuming("/s/a", "e1-1")).await;
    assert_fused(&mut hub, resumed).await;
    let relayed = hub.sse.relay().oneshot(request("/a")).await.unwrap();
    assert_fused(&mut hub, relayed).await;
    assert_fused_text(hub.sse.recover().oneshot(request("/a/recover")).await.unwrap()).await;
    assert_fused_text(hub.sse.recover().oneshot(request("/b/recover")).await.unwrap()).await;
}

#[test]
fn g11_a_body_dropped_outside_of_a_runtime_leaves_no_stuck_stream() {
    for policy in [Disconnect::DETACH, Disconnect::Interrupt, Disconnect::Cancel] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let watch = Watch::default();
        let (mut hub, client) = runtime.block_on(async {
            let hub = TestHub::new();
            let layer = hub.sse.layer().id(path()).on_disconnect(policy);
            let app = app(layer, &watch, then(numbers(2), Step::Hang));
            let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
            client.drain();
            (hub, client)
        });
        std::thread::spawn(move || drop(client)).join().unwrap();
        runtime.block_on(async {
            hub.advance(Duration::from_secs(95)).await;
            let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("a").unwrap());
            let state = hub.sse.registry().stream(&key).await.unwrap().unwrap().state;
            let running = (watch.alive(), state) == (1, StreamState::Active);
            assert!(running || (watch.alive() == 0 && state != StreamState::Active), "{policy:?}: {state}");
        });
    }
}
