//! What a frame and a request cost in allocations: a count that a change can raise only on purpose.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "it uses its part of it")]
#[path = "bounds/support.rs"]
mod support;

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use allocation_counter::{AllocationInfo, measure};
use futures_util::FutureExt as _;
use http::Request;
use http_body::Body;
use resilient_sse::{StreamId, test_util::TestHub};
use support::{App, Step, Watch, app, chunk, numbers, request, send};
use tower::ServiceExt as _;

/// 64 bytes on the wire.
fn event() -> String {
    format!("data: {}\n\n", "x".repeat(56))
}

/// Reads a body to its end, and says what its frames cost, but for the first few.
async fn frames(steps: Vec<Step>) -> (u64, AllocationInfo) {
    let hub = TestHub::new();
    let app = app(hub.sse.generation().id(StreamId::path("/{id}")), &Watch::default(), steps);
    let mut body = pin!(send(&app, request("/a")).await.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..20 {
        let _ = body.as_mut().poll_frame(&mut cx);
    }
    let mut frames = 0;
    let cost = measure(|| {
        loop {
            match body.as_mut().poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => frames += 1,
                Poll::Ready(_) => break,
                Poll::Pending => {}
            }
        }
    });
    (frames, cost)
}

/// A frame of 64 events takes no more allocations than one of a single event.
#[tokio::test(start_paused = true)]
async fn a_frame_costs_so_many_allocations_however_much_it_holds() {
    let together = (0..200).map(|_| chunk(event().repeat(64))).collect();
    let trickle = (0..2000).flat_map(|_| [chunk(event()), Step::Yield]).collect();
    for (what, steps, allocations, bytes) in [("64 together", together, 8, 16 << 10), ("a trickle", trickle, 8, 2560)] {
        let (frames, cost) = frames(steps).await;
        assert!(frames > 100, "{what}: {frames} frames");
        assert!(cost.count_total <= frames * allocations + 100, "{what}: {} in {frames} frames", cost.count_total);
        assert!(cost.bytes_total <= frames * bytes + 4096, "{what}: {} bytes in {frames} frames", cost.bytes_total);
    }
}

fn ask(app: &App, uri: &str) -> AllocationInfo {
    let (app, request): (_, Request<()>) = (app.clone(), request(uri));
    let mut answer = None;
    let cost = measure(|| answer = app.oneshot(request).now_or_never());
    assert!(answer.expect("the store answers at once").is_ok());
    cost
}

/// What the layer does not protect costs hardly anything.
#[tokio::test(start_paused = true)]
async fn a_request_costs_so_many_allocations() {
    let hub = TestHub::new();
    let app = app(hub.sse.generation().id(StreamId::path("/s/{id}")), &Watch::default(), numbers(1));
    // What the first of all requests sets up for the process.
    ask(&app, "/s/first");
    ask(&app, "/other/first");
    let (named, bypassed) = (ask(&app, "/s/fresh"), ask(&app, "/other"));
    assert!(named.count_total <= 52, "{named:?}");
    assert!(bypassed.count_total <= 8, "{bypassed:?}");
}
