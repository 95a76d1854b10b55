//! A hub on a slow store, whose guardian and clients the test polls one by one.

use std::{future::Future, pin::Pin, task::Context, time::Duration};

use http::Request;
use resilient_sse::{Guardian, Owner, ResilientSse, StreamId, StreamKey, StreamState};

use crate::support::{
    bodies::{App, Client, Watch, send},
    yielding::Yielding,
};

/// More polls than any future under test needs.
pub(crate) const ENOUGH: usize = 400;
/// Polls after which a request to the store is done and its effects have begun.
const SETTLED: usize = 30;

/// A hub on a slow store, and its guardian, which the test polls.
pub(crate) struct Bench {
    pub(crate) sse: ResilientSse,
    pub(crate) store: Yielding,
    pub(crate) guardian: Option<Pin<Box<Guardian>>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(Yielding::new(3), 1)
    }

    pub(crate) fn on(store: Yielding, seed: u64) -> Self {
        let (sse, guardian) = ResilientSse::builder(store.clone())
            .anonymous()
            .seed(seed)
            .recovery_window(Duration::from_secs(60))
            .lifetime(Duration::from_secs(120))
            .build()
            .unwrap();
        Self { sse, store, guardian: Some(Box::pin(guardian)) }
    }

    pub(crate) async fn step(&mut self) {
        if let Some(guardian) = &mut self.guardian {
            let _ = guardian.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        tokio::task::yield_now().await;
    }

    pub(crate) async fn advance(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            // Finish all requests before time passes: the store takes a number of polls, not of seconds.
            for _ in 0..SETTLED {
                self.step().await;
            }
            let step = left.min(Duration::from_secs(1));
            tokio::time::advance(step).await;
            left -= step;
        }
    }

    /// Polls a future `times` times, and the guardian after each poll. Returns the future's output if it became ready.
    pub(crate) async fn poll<F: Future>(&mut self, mut future: Pin<&mut F>, times: usize) -> Option<F::Output> {
        for _ in 0..times {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            self.step().await;
        }
        None
    }

    /// Runs a future to its end.
    pub(crate) async fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        for _ in 0..1000 {
            if let Some(output) = self.poll(future.as_mut(), SETTLED).await {
                return output;
            }
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        panic!("the future never ends");
    }

    pub(crate) async fn get(&mut self, app: &App, request: Request<()>) -> Client<Body> {
        let response = self.run(send(app, request)).await;
        assert!(response.status() == 200, "{}", response.status());
        Client::new(response.into_body())
    }

    /// Reads to the end.
    pub(crate) async fn finish<B: http_body::Body<Data = bytes::Bytes>>(&mut self, client: &mut Client<B>) {
        for _ in 0..2000 {
            for _ in 0..SETTLED {
                client.drain();
                if client.ended {
                    return;
                }
                self.step().await;
            }
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        panic!("the body does not end: {:?}", String::from_utf8_lossy(&client.bytes));
    }

    pub(crate) async fn state(&mut self, name: &str) -> Option<StreamState> {
        let (registry, key) = (self.sse.registry(), StreamKey::new(Owner::ANONYMOUS, id(name)));
        self.run(async move { registry.stream(&key).await.unwrap() }).await.map(|info| info.state)
    }

    /// Lets all streams end and expire, and asserts that nothing is left.
    pub(crate) async fn assert_all_gone(&mut self, watch: &Watch, k: usize) {
        // The stale threshold, the lifetime and the recovery window, each with a sweep.
        self.advance(Duration::from_secs(60 + 150 + 91)).await;
        let health = self.sse.health();
        assert_eq!((health.active, health.detached, health.followers), (0, 0, 0), "dropped after {k} polls");
        assert_eq!(watch.alive(), 0, "dropped after {k} polls");
        assert!(self.store.inner.is_empty(), "dropped after {k} polls: {:?}", self.store.inner);
    }
}

pub(crate) type Body = resilient_sse::ResilientSseBody<crate::support::bodies::Script>;

pub(crate) fn id(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}
