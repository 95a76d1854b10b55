//! What a handler can learn of its stream, and say of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio_util::sync::WaitForCancellationFuture;

use crate::{
    layer::{
        admit::{Admission, Asked, Registered},
        handler::Waiting,
    },
    model::{
        id::{EventId, Owner, StreamId},
        metadata::{Metadata, MetadataTooLarge, keep},
        turn::Turn,
    },
    node::{Node, headers::stream_id, reject::Rejection},
    produce::stop::Stop,
    recorder::Lane,
    route::settings::Route,
    runtime::sync::lock,
};

/// The stream that a request is part of: an extension of the inner request.
///
/// ```
/// # use resilient_sse::StreamContext;
/// async fn start(stream: &StreamContext, job: &str) {
///     // Stored before the first event is delivered: a probe on another node can find the job.
///     stream.metadata("job", job).expect("fits");
/// }
/// ```
#[derive(Clone)]
pub struct StreamContext(Arc<Inner>);

struct Inner {
    recorded: OnceLock<bool>,
    last_inner_id: Option<String>,
    stop: Stop,
    /// The metadata to keep with the stream, until it is registered.
    metadata: Mutex<Metadata>,
    lane: OnceLock<Arc<Lane>>,
    node: Arc<Node>,
    route: Arc<Route>,
    asked: Asked,
    /// Whether the stream had a run before this one.
    runs_again: AtomicBool,
    /// The stream that was in the way when the handler named its conversation.
    in_the_way: OnceLock<StreamId>,
    early: Mutex<Early>,
    /// Whether the handler goes on without its request.
    outlives: AtomicBool,
}

/// A registration that the handler asked for before it answered, on a route that makes up ids.
enum Early {
    /// The handler has not answered, and has asked for none.
    Open,
    /// It is under way: one at a time.
    UnderWay,
    Registered(Box<Waiting>),
    /// The handler has answered, or its future is gone.
    Over,
}

impl StreamContext {
    pub(super) fn new(node: &Arc<Node>, route: &Arc<Route>, asked: &Asked, last_inner_id: Option<String>) -> Self {
        Self(Arc::new(Inner {
            recorded: OnceLock::new(),
            last_inner_id,
            stop: Stop::default(),
            metadata: Mutex::new(asked.metadata.clone()),
            lane: OnceLock::new(),
            node: Arc::clone(node),
            route: Arc::clone(route),
            asked: asked.clone(),
            runs_again: AtomicBool::new(false),
            in_the_way: OnceLock::new(),
            early: Mutex::new(Early::Open),
            outlives: AtomicBool::new(false),
        }))
    }

    /// The stream's name.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.0.asked.key.id
    }

    /// The owner of the stream.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.asked.key.owner
    }

    /// Whether the stream is recorded, and metadata kept; `None` until that is known, which on a route that makes up ids is
    /// after the handler has answered.
    #[must_use]
    pub fn is_recorded(&self) -> Option<bool> {
        self.0.recorded.get().copied()
    }

    /// Which run this is; `None` until the stream is registered, which on a route that makes up ids
    /// happens once the handler has answered.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.0.lane.get().map(|lane| lane.epoch)
    }

    /// The last event that the client saw, if it came with a readable cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<EventId> {
        self.0.asked.cursor()
    }

    /// The last id that the handler itself gave an event of this stream, in an earlier run.
    /// The inner request carries the same as its `Last-Event-ID`.
    #[must_use]
    pub fn last_inner_id(&self) -> Option<&str> {
        self.0.last_inner_id.as_deref()
    }

    /// Ready once the stream's work is to stop: the stream was stopped or ended elsewhere, nobody has read it for too
    /// long, an event was too large, the process goes down, or the handler is dropped before it answers.
    ///
    /// The body is dropped in all these cases. This future is for work that the body does not own.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing; once ready, always ready.
    pub fn stopped(&self) -> WaitStopped<'_> {
        WaitStopped { wait: self.0.stop.token().cancelled() }
    }

    /// Whether the stream's work is to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_stopped()
    }

    /// Keeps something with the stream, such as the id of the job that makes its events: a job
    /// probe gets it, on any node. It is stored before the next event is delivered. A key that is kept already is
    /// replaced.
    ///
    /// On an unrecorded stream this is `Ok`, but nothing is kept: see [`is_recorded`](Self::is_recorded).
    ///
    /// # Errors
    ///
    /// [`MetadataTooLarge`] if the stream would keep more than 4 KiB of keys and values; the metadata from before stays.
    pub fn metadata(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), MetadataTooLarge> {
        let (key, value) = (key.into(), value.into());
        let mut metadata = lock(&self.0.metadata);
        let kept = match self.0.lane.get() {
            Some(lane) => lane.keep(&self.0.node.recorder, key, value),
            None => keep(&mut metadata, key, value).map(drop),
        };
        kept.map_err(|bytes| MetadataTooLarge { bytes })
    }

    /// Makes the stream a turn of its owner's conversation of this name, for a handler that finds the name in the request's body; see
    /// [`ResilientSseLayer::conversation`](crate::ResilientSseLayer::conversation) for one that stands in the head. A stream that is not registered yet is registered
    /// at once.
    ///
    /// ```
    /// # use resilient_sse::StreamContext;
    /// # use http::StatusCode;
    /// # struct Question { chat: String }
    /// async fn ask(stream: &StreamContext, question: &Question) -> Result<(), (StatusCode, String)> {
    ///     let named = stream.conversation(&question.chat).await;
    ///     named.map_err(|refused| (refused.status(), refused.to_string()))
    /// }
    /// ```
    ///
    /// While the store is away this is `Ok` on a route that serves streams unrecorded then: see [`is_recorded`](Self::is_recorded). If the
    /// handler answers with something else than an event stream, fails or is dropped, the turn is withdrawn. On a
    /// [`Detach`](crate::Disconnect::Detach) route the handler goes on from here if its client leaves, and the conversation is resumed.
    ///
    /// # Errors
    ///
    /// [`Rejection`], which has the status that the handler should answer with: `Running` with [`Overlap::Refuse`](crate::Overlap::Refuse) while
    /// another stream of the conversation runs (a 409 then gets its `X-Stream-Id`), `MalformedConversation`, `OtherConversation` if the stream is a turn of another one, `NotFound`
    /// if [`Builder::authorize`](crate::Builder::authorize) denies it, and whatever keeps a stream from being registered.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream is registered or not; what was registered is withdrawn.
    pub async fn conversation(&self, name: impl AsRef<str>) -> Result<(), Rejection> {
        let conversation = StreamId::new(name).map_err(Rejection::MalformedConversation)?;
        let Inner { node, route, asked, lane, .. } = &*self.0;
        node.authorize_in(&self.0.asked.key, Some(&conversation), &asked.head).await?;
        let turn = Turn { conversation, overlap: route.overlap };
        match lane.get() {
            Some(lane) => self.name_registered(lane, turn).await,
            None if self.is_recorded() == Some(false) => Ok(()),
            None => self.register(turn).await,
        }
    }

    /// Makes a stream that is registered a turn.
    async fn name_registered(&self, lane: &Arc<Lane>, turn: Turn) -> Result<(), Rejection> {
        let node = &self.0.node;
        match lane.turn() {
            Some(named) if named.turn().conversation != turn.conversation => return Err(Rejection::OtherConversation),
            // One that was refused may ask again.
            Some(named) if !named.waits() => return Ok(()),
            _ => {}
        }
        // A run after the first is no new turn.
        let runs_again = self.0.runs_again.load(Ordering::Relaxed);
        if !runs_again {
            node.name_turn(lane, self.0.asked.new_turn(turn.clone()));
            // Before the pointer is moved: should the client leave in between, the withdrawal takes the pointer back.
            node.recorder.say_again(lane).await;
        }
        let begun = Admission::begin_turn(node, &self.0.route, &self.0.asked, lane, runs_again, turn).await;
        begun.map_err(|refused| self.refused(refused))
    }

    /// Why the stream is no turn, for the handler; noted for the head of its answer.
    fn refused(&self, admission: Admission) -> Rejection {
        let Admission::Reject(rejection) = admission else { return Rejection::ComeAgain };
        if let Rejection::Running { stream } = &rejection {
            let _ = self.0.in_the_way.set(stream.clone());
        }
        rejection
    }

    /// Names the stream that was in the way of the turn, where the handler says so by its answer.
    pub(super) fn name_refused<B>(&self, response: &mut http::Response<B>) {
        if let Some(stream) = self.0.in_the_way.get().filter(|_| response.status() == http::StatusCode::CONFLICT) {
            stream_id(response.headers_mut(), stream);
        }
    }

    /// Registers the stream as a turn, before its handler has answered.
    async fn register(&self, turn: Turn) -> Result<(), Rejection> {
        let Inner { node, route, asked, .. } = &*self.0;
        if !matches!(std::mem::replace(&mut *lock(&self.0.early), Early::UnderWay), Early::Open) {
            return Err(Rejection::OtherConversation);
        }
        let _ends = EndsUnderWay(self);
        let asked = Asked { turn: Some(turn), metadata: self.kept(), ..asked.clone() };
        match Admission::register_for(node, route, asked).await {
            Admission::Produce(registered) => {
                self.registered(&registered.lane);
                let waiting = Box::new(Waiting::new(registered, self.clone(), route.endless));
                self.hold(waiting).map_err(|late| {
                    // Withdrawn with this.
                    drop(late);
                    Rejection::ComeAgain
                })
            }
            Admission::Unrecorded => {
                self.unrecorded();
                Ok(())
            }
            refused => Err(self.refused(refused)),
        }
    }

    /// Holds a registration until the handler answers, unless that has happened, or the handler's future is gone.
    fn hold(&self, waiting: Box<Waiting>) -> Result<(), Box<Waiting>> {
        let mut early = lock(&self.0.early);
        if !matches!(*early, Early::UnderWay) {
            return Err(waiting);
        }
        *early = Early::Registered(waiting);
        Ok(())
    }

    /// The stream has run before: it is no new turn.
    pub(super) fn set_runs_again(&self) {
        self.0.runs_again.store(true, Ordering::Relaxed);
    }

    /// Whether it is known what becomes of the stream: its handler asked, and has answered since.
    pub(super) fn is_settled(&self) -> bool {
        self.is_recorded().is_some()
    }

    /// The registration that the handler asked for, once it has answered.
    pub(super) fn take_registered(&self) -> Option<Registered> {
        match std::mem::replace(&mut *lock(&self.0.early), Early::Over) {
            Early::Registered(waiting) => Some(waiting.into_registered()),
            Early::Open | Early::UnderWay | Early::Over => None,
        }
    }

    /// The request is gone, and its handler's future may go on. Whether it is to: the handler has registered its stream, or is about to.
    pub(super) fn outlives_request(&self) -> bool {
        let outlives = matches!(*lock(&self.0.early), Early::UnderWay | Early::Registered(_));
        self.0.outlives.store(outlives, Ordering::Relaxed);
        outlives
    }

    /// Whether the handler's registration is under way.
    pub(super) fn is_registering(&self) -> bool {
        matches!(*lock(&self.0.early), Early::UnderWay)
    }

    /// The registration that the handler has asked for, before it answers.
    pub(super) fn take_waiting(&self) -> Option<Waiting> {
        let mut early = lock(&self.0.early);
        match std::mem::replace(&mut *early, Early::Over) {
            Early::Registered(waiting) => Some(*waiting),
            other => {
                *early = other;
                None
            }
        }
    }

    /// Ready once the stream that the handler has registered was stopped, or went to another producer.
    pub(super) fn poll_halted(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &*lock(&self.0.early) {
            Early::Registered(waiting) => waiting.poll_halted(cx),
            Early::Open | Early::UnderWay | Early::Over => Poll::Pending,
        }
    }

    /// The metadata from before the stream is registered.
    pub(crate) fn kept(&self) -> Metadata {
        lock(&self.0.metadata).clone()
    }

    /// The stream is registered.
    pub(crate) fn registered(&self, lane: &Arc<Lane>) {
        let kept = {
            let mut metadata = lock(&self.0.metadata);
            let _ = self.0.lane.set(Arc::clone(lane));
            let _ = self.0.recorded.set(true);
            std::mem::take(&mut *metadata)
        };
        for (key, value) in kept {
            // Pairs that the stream was registered with change nothing; those added since were within the bound.
            let _ = lane.keep(&self.0.node.recorder, key, value);
        }
    }

    /// The stream cannot be registered.
    pub(crate) fn unrecorded(&self) {
        let _ = self.0.recorded.set(false);
    }

    /// What stops the work, for those who have no other business with the handler.
    pub(super) fn stopper(&self) -> Stop {
        self.0.stop.clone()
    }

    pub(crate) fn stop(&self) {
        self.0.stop.stop();
    }

    /// The handler's future is gone, and its work with it: what it registered is withdrawn.
    pub(super) fn abandon(&self) {
        if self.0.outlives.load(Ordering::Relaxed) {
            return;
        }
        self.stop();
        let early = std::mem::replace(&mut *lock(&self.0.early), Early::Over);
        drop(early);
    }
}

/// Notes that a registration is under way no more, should it have come to nothing.
struct EndsUnderWay<'a>(&'a StreamContext);

impl Drop for EndsUnderWay<'_> {
    fn drop(&mut self) {
        let mut early = lock(&self.0.0.early);
        if matches!(*early, Early::UnderWay) {
            *early = Early::Open;
        }
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// Ready once the work is to stop: see [`StreamContext::stopped`].
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitStopped<'a> {
        #[pin]
        wait: WaitForCancellationFuture<'a>,
    }
}

impl Future for WaitStopped<'_> {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.project().wait.poll(cx)
    }
}

impl fmt::Debug for WaitStopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitStopped")
    }
}
