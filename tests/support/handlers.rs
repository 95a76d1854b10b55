//! Handlers whose events name their stream and run, and services that wrap them in a layer.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use resilient_sse::{BoxError, ResilientSseBody, ResilientSseLayer, StreamContext};
use tokio::sync::watch;
use tower::{ServiceBuilder, service_fn, util::BoxCloneService};

pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type App = BoxCloneService<Request<()>, Response<ResilientSseBody<Body>>, Infallible>;

/// How a handler's body ends.
#[derive(Clone, Debug)]
pub enum Finish {
    /// With an event of this name.
    Event(&'static str),
    /// With this block.
    Raw(&'static str),
    Eof,
    Error,
    Panic,
    /// With an event of this many bytes, then the end of the body.
    Large(usize),
    Never,
}

/// The script of a handler's bodies. An event's data is `<owner>/<stream>#<run>:<n>`.
#[derive(Clone, Debug)]
pub struct Script {
    pub events: u64,
    pub tick: Duration,
    pub finish: Finish,
    /// Whether the handler gives each event the id `own-<n>`, and continues after the `Last-Event-ID` that it receives.
    pub own_ids: bool,
    /// The number of the last event that bodies may make. The end counts as one more event.
    pub gate: Option<watch::Receiver<u64>>,
}

impl Script {
    /// Makes events 10 ms apart, then `completed`.
    pub fn events(events: u64) -> Self {
        let tick = Duration::from_millis(10);
        Self { events, tick, finish: Finish::Event("completed"), own_ids: false, gate: None }
    }

    pub fn then(self, finish: Finish) -> Self {
        Self { finish, ..self }
    }

    pub fn every(self, tick: Duration) -> Self {
        Self { tick, ..self }
    }

    pub fn own_ids(self) -> Self {
        Self { own_ids: true, ..self }
    }

    /// Makes bodies wait for the returned sender, which sets the number of the last event that they may make.
    pub fn gated(self) -> (Self, watch::Sender<u64>) {
        let (sender, gate) = watch::channel(0);
        (Self { gate: Some(gate), tick: Duration::ZERO, ..self }, sender)
    }

    /// Makes a body of events with `tag`, from event `first` on. The body holds `alive`.
    pub fn body(&self, tag: String, first: u64, alive: Alive) -> Body {
        let run = Running { script: self.clone(), tag, next: first, over: false, _alive: alive };
        StreamBody::new(futures_util::stream::unfold(run, Running::next)).boxed_unsync()
    }
}

/// Counts the bodies of a handler that are not dropped yet.
#[derive(Debug)]
pub struct Alive(Arc<AtomicI64>);

impl Alive {
    pub fn new(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Running {
    script: Script,
    tag: String,
    next: u64,
    over: bool,
    _alive: Alive,
}

impl Running {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, BoxError>, Self)> {
        let n = self.next;
        if self.over {
            return None;
        }
        if let Some(gate) = &mut self.script.gate {
            // Without a sender there is no limit.
            let _ = gate.wait_for(|upto| *upto >= n).await;
        }
        if !self.script.tick.is_zero() {
            tokio::time::sleep(self.script.tick).await;
        }
        self.next += 1;
        let block = if n <= self.script.events {
            let id = if self.script.own_ids { format!("id: own-{n}\n") } else { String::new() };
            format!("{id}data: {}:{n}\n\n", self.tag)
        } else {
            self.over = true;
            match self.script.finish.clone() {
                Finish::Event(name) => format!("event: {name}\ndata: {}:end\n\n", self.tag),
                Finish::Raw(block) => block.to_owned(),
                Finish::Eof => return None,
                Finish::Error => return Some((Err("the work failed".into()), self)),
                Finish::Panic => panic!("the script tells the handler to panic"),
                Finish::Large(bytes) => format!("data: {}\n\n", "x".repeat(bytes)),
                Finish::Never => std::future::pending().await,
            }
        };
        Some((Ok(Frame::data(block.into())), self))
    }
}

/// One call of a handler.
#[derive(Debug)]
pub struct Call {
    /// The number of the call, from 1.
    pub run: u64,
    pub request: Request<()>,
    pub context: Option<StreamContext>,
    alive: Arc<AtomicI64>,
}

impl Call {
    /// The prefix of the run's events.
    pub fn tag(&self) -> String {
        match &self.context {
            Some(context) => format!("{}/{}#{}", context.owner().name().unwrap_or("-"), context.id(), self.run),
            None => format!("-/-#{}", self.run),
        }
    }

    pub fn last_event_id(&self) -> Option<&str> {
        self.request.headers().get("last-event-id")?.to_str().ok()
    }

    /// Answers with an event stream.
    pub fn stream(&self, script: &Script) -> Response<Body> {
        let given_back = self.last_event_id().and_then(|id| id.strip_prefix("own-")?.parse::<u64>().ok());
        let first = given_back.filter(|_| script.own_ids).map_or(1, |last| last + 1);
        sse(script.body(self.tag(), first, Alive::new(&self.alive)))
    }
}

/// Returns a response that is an event stream.
pub fn sse(body: Body) -> Response<Body> {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

/// Returns a response of any content type.
pub fn plain(status: u16, content_type: &str, body: &'static str) -> Response<Body> {
    let body = Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", content_type).body(body).unwrap()
}

/// An inner service that counts its runs and keeps their requests.
#[derive(Clone)]
pub struct Handler(Arc<Inner>);

type Answer = dyn Fn(&Call) -> Response<Body> + Send + Sync;

struct Inner {
    calls: AtomicU64,
    alive: Arc<AtomicI64>,
    /// The `Last-Event-ID` of each call.
    last_event_ids: Mutex<Vec<Option<String>>>,
    answer: Box<Answer>,
}

impl Handler {
    pub fn new(answer: impl Fn(&Call) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            calls: AtomicU64::new(0),
            alive: Arc::default(),
            last_event_ids: Mutex::default(),
            answer: Box::new(answer),
        }))
    }

    pub fn plays(script: Script) -> Self {
        Self::new(move |call| call.stream(&script))
    }

    /// Makes events 10 ms apart, then `completed`.
    pub fn events(events: u64) -> Self {
        Self::plays(Script::events(events))
    }

    /// Returns how often the handler ran.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Returns how many of the handler's bodies are not dropped yet.
    pub fn alive(&self) -> i64 {
        self.0.alive.load(Ordering::SeqCst)
    }

    pub fn last_event_ids(&self) -> Vec<Option<String>> {
        self.0.last_event_ids.lock().unwrap().clone()
    }

    fn answer(&self, request: Request<()>) -> Response<Body> {
        let run = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let context = request.extensions().get::<StreamContext>().cloned();
        let call = Call { run, request, context, alive: Arc::clone(&self.0.alive) };
        self.0.last_event_ids.lock().unwrap().push(call.last_event_id().map(str::to_owned));
        (self.0.answer)(&call)
    }
}

/// Puts a handler that never answers behind a layer.
pub fn blocked(layer: ResilientSseLayer) -> App {
    let inner = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>());
    BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
}

/// Puts a handler behind a layer.
pub fn app(layer: ResilientSseLayer, handler: &Handler) -> App {
    let handler = handler.clone();
    let inner = service_fn(move |request: Request<()>| {
        let response = handler.answer(request);
        async move { Ok::<_, Infallible>(response) }
    });
    BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
}

/// A handler that never answers, as if its upstream hung.
#[derive(Clone, Default)]
pub struct Waiting {
    context: Arc<Mutex<Option<StreamContext>>>,
    dropped: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Waiting {
    pub fn behind(&self, layer: ResilientSseLayer) -> App {
        let waiting = self.clone();
        let inner = service_fn(move |request: Request<()>| {
            *waiting.context.lock().unwrap() = request.extensions().get().cloned();
            let work = SetOnDrop(Arc::clone(&waiting.dropped));
            async move {
                let _work = work;
                std::future::pending::<Result<Response<Body>, Infallible>>().await
            }
        });
        BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
    }

    /// Returns whether the handler's stop token has fired.
    pub fn is_stopped(&self) -> bool {
        self.context.lock().unwrap().as_ref().is_some_and(StreamContext::is_stopped)
    }

    /// Returns whether the handler's future has been dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }
}
