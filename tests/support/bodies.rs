//! Inner services and clients that follow a test's script.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use resilient_sse::{
    ResilientSseBody, ResilientSseLayer,
    test_util::{Seen, TestHub},
    wire::{Parsed, Parser},
};
use tokio::time::Sleep;
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};

/// The next step of an inner body.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Chunk(Bytes),
    Sleep(Duration),
    /// Returns `Pending` once, and wakes the task immediately.
    Yield,
    /// Stays pending for ever.
    Hang,
    Fail,
    Panic,
    /// Blocks the thread.
    Block(Duration),
}

pub(crate) fn chunk(text: impl Into<String>) -> Step {
    Step::Chunk(Bytes::from(text.into()))
}

/// Returns events with the data `0`, `1`, …, each in a chunk of its own.
pub(crate) fn numbers(count: usize) -> Vec<Step> {
    (0..count).map(|n| chunk(format!("data: {n}\n\n"))).collect()
}

pub(crate) fn then(mut steps: Vec<Step>, last: Step) -> Vec<Step> {
    steps.push(last);
    steps
}

/// Counts a test's inner bodies, their polls and their drops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    polls: AtomicUsize,
    dropped: AtomicUsize,
}

impl Watch {
    pub(crate) fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.polls.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.made() - self.0.dropped.load(Ordering::SeqCst)
    }

    pub(crate) fn body(&self, steps: Vec<Step>) -> Script {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Script { steps: steps.into(), sleep: None, watch: self.clone(), panics_in_drop: false }
    }
}

/// The error of a [`Step::Fail`].
#[derive(Debug)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

/// An inner body that follows a script.
pub(crate) struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    watch: Watch,
    pub(crate) panics_in_drop: bool,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.watch.0.dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics_in_drop || std::thread::panicking(), "told to panic in drop");
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.watch.0.polls.fetch_add(1, Ordering::SeqCst);
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Chunk(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Sleep(time)) => self.sleep = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Yield) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Fail) => return Poll::Ready(Some(Err(Broken))),
                Some(Step::Panic) => panic!("told to panic"),
                Some(Step::Block(time)) => std::thread::sleep(time),
            }
        }
    }
}

pub(crate) type App = BoxCloneService<Request<()>, Response<ResilientSseBody<Script>>, Infallible>;

/// Makes a protected service whose every response is an event stream that follows this script.
pub(crate) fn app(layer: ResilientSseLayer, watch: &Watch, steps: Vec<Step>) -> App {
    let watch = watch.clone();
    serving(layer, move |_| events(watch.body(steps.clone())))
}

/// Puts a service into a layer.
pub(crate) fn serving<F>(layer: ResilientSseLayer, answer: F) -> App
where
    F: Fn(Request<()>) -> Response<Script> + Clone + Send + 'static,
{
    let inner = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response) }
    });
    ServiceBuilder::new().layer(layer).service(inner).boxed_clone()
}

/// Puts a service with a slow response into a layer.
pub(crate) fn serving_async<F, R>(layer: ResilientSseLayer, answer: F) -> App
where
    F: Fn(Request<()>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Script>> + Send + 'static,
{
    let inner = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    ServiceBuilder::new().layer(layer).service(inner).boxed_clone()
}

pub(crate) fn events(body: Script) -> Response<Script> {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

pub(crate) fn request(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// Makes the request of an `EventSource` that reconnects.
pub(crate) fn resuming(uri: &str, cursor: &str) -> Request<()> {
    Request::get(uri).header("accept", "text/event-stream").header("last-event-id", cursor).body(()).unwrap()
}

pub(crate) async fn send(app: &App, request: Request<()>) -> Response<ResilientSseBody<Script>> {
    app.clone().oneshot(request).await.unwrap()
}

/// A client that reads poll by poll, and keeps what it has seen when its body is dropped.
pub(crate) struct Client<B> {
    pub(crate) body: Option<Pin<Box<B>>>,
    parser: Parser,
    pub(crate) seen: Vec<Seen>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Bytes>,
    pub(crate) ended: bool,
    /// Whether the body ended with an error, like a broken connection.
    pub(crate) broke: bool,
}

impl<B: Body<Data = Bytes>> Client<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body: Some(Box::pin(body)),
            parser: Parser::new(64 << 20),
            seen: Vec::new(),
            bytes: Vec::new(),
            frames: Vec::new(),
            ended: false,
            broke: false,
        }
    }

    /// Polls once. Returns whether anything arrived.
    pub(crate) fn poll(&mut self) -> bool {
        self.poll_with(&mut Context::from_waker(std::task::Waker::noop()))
    }

    pub(crate) fn poll_with(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(body) = &mut self.body else { return false };
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => false,
            end @ Poll::Ready(None | Some(Err(_))) => {
                self.ended = true;
                self.broke = matches!(end, Poll::Ready(Some(_)));
                true
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.take(frame.into_data().unwrap_or_default());
                true
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        self.bytes.extend_from_slice(&data);
        self.parser.push(&data).unwrap();
        self.frames.push(data);
        while let Some(parsed) = self.parser.pop() {
            if let Parsed::Message(message) = parsed {
                self.seen.push(Seen { name: message.name, data: message.data, id: message.last_event_id });
            }
        }
    }

    /// Reads everything that is ready.
    pub(crate) fn drain(&mut self) {
        while !self.ended && self.poll() {}
    }

    /// Reads to the end, and lets time pass for the client and the guardian.
    pub(crate) async fn finish(&mut self, hub: &mut TestHub) {
        for _ in 0..2_000 {
            self.drain();
            if self.ended {
                return;
            }
            hub.advance(Duration::from_millis(100)).await;
        }
        panic!("the body does not end: {:?}", String::from_utf8_lossy(&self.bytes));
    }

    /// Returns the data of all events except `connected`.
    pub(crate) fn data(&self) -> Vec<&str> {
        self.seen.iter().filter(|event| event.name != "connected").map(|event| event.data.as_str()).collect()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.seen.iter().map(|event| event.name.as_str()).filter(|name| *name != "connected").collect()
    }

    pub(crate) fn last_id(&self) -> String {
        self.seen.last().map_or_else(String::new, |event| event.id.clone())
    }
}

/// Asserts that each complete block of a transcript has data. Strict clients take a block without data for an empty
/// event.
pub(crate) fn assert_no_empty_block(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n");
    let blocks: Vec<_> = text.split_inclusive("\n\n").collect();
    for block in blocks.iter().filter(|block| block.ends_with("\n\n")) {
        let has_data = block.lines().any(|line| line == "data" || line.starts_with("data:"));
        assert!(has_data, "a block without data: {block:?} in {text:?}");
    }
}

/// Returns the data of the events that [`numbers`] makes.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}
