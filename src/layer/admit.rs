//! Admission: what the store says of a request's stream, and what follows from that.

use std::{borrow::Cow, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use http::Version;
use tokio::time::Instant;

use crate::{
    conversation::Beginning,
    follow::{FollowBody, FollowRequest, Manner, Unknown},
    layer::context::StreamContext,
    model::{
        config::OnUnavailable,
        error::BodyError,
        id::{EventId, StreamId, StreamKey},
        kept::KeptHeaders,
        metadata::Metadata,
        stream::{Ended, Origin, StreamState},
        turn::{Overlap, Turn},
        voice::Voice,
    },
    node::{Node, head::Head, readers::BEGIN_WAIT, reject::Rejection},
    protocol::{admission::Position, replay::Owed},
    recorder::{Lane, Opening},
    route::settings::Route,
    runtime::sync::Entered,
    store::{Open, Opened},
    telemetry::add,
};

/// How long the stream of a producer of this node may take to be registered again with a store that forgot it.
const REOPEN_WAIT: Duration = Duration::from_secs(2);
/// How often that is looked for: where the stream was deleted, nobody tells.
const REOPEN_LOOK: Duration = Duration::from_millis(50);

/// What a request asks for.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) key: StreamKey,
    pub(super) position: Position,
    /// Stands before every event id where the library made up the stream's.
    pub(super) prefix: Option<StreamId>,
    pub(super) kind: Cow<'static, str>,
    pub(super) metadata: Metadata,
    pub(super) fingerprint: Option<String>,
    /// The conversation that the stream is a turn of, if the request begins it.
    pub(super) turn: Option<Turn>,
    /// The request begins a stream under a name that the library has just made up.
    pub(super) begins: bool,
    /// The request came with the cursor of a stream that is gone.
    pub(super) is_stale: bool,
    /// The headers of the handler's response that the route keeps.
    pub(super) headers: KeptHeaders,
    /// Whether the request asks for an event stream by name, and so reconnects by itself when its body breaks.
    pub(super) comes_again: bool,
    /// The request's version of HTTP.
    pub(super) version: Version,
    /// A drain that has begun since the request came waits for it, as it does for a stream.
    pub(super) waited_for: bool,
    /// When the request came.
    pub(super) opened: Instant,
    /// The request's head, for the host's hooks.
    pub(super) head: Head,
}

impl Asked {
    /// The context that the inner service gets.
    pub(super) fn context(&self, node: &Arc<Node>, route: &Arc<Route>, last_inner_id: Option<String>) -> StreamContext {
        StreamContext::new(node, route, self, last_inner_id)
    }

    /// Begins a stream under a name that the library makes up, in place of one that is gone. The client is told of a gap.
    pub(super) fn begin_anew(&mut self, node: &Node) {
        let id = StreamId::from_random(node.random.u128());
        self.key.id = id.clone();
        self.prefix = Some(id);
        self.position = Position::Unreadable;
        self.begins = self.turn.is_some();
        self.is_stale = true;
    }

    /// The turn that a first run of the stream is. A cursor of a stream that is gone asks for that one's work and is no new question: it
    /// begins a turn only where no stream of the conversation runs.
    pub(super) fn new_turn(&self, turn: Turn) -> Turn {
        let overlap = if self.is_stale || self.cursor().is_some() { Overlap::Refuse } else { turn.overlap };
        Turn { overlap, ..turn }
    }

    /// Counts the request until what this returns is dropped, and has a drain wait for it, unless its client may go at once, as a
    /// feed's and one that comes again by itself may. For requests whose handler runs and that no lane stands for.
    pub(super) fn wait_for(&mut self, node: &Node, route: &Route) -> Entered {
        let may_go = route.endless || self.comes_again;
        let entered = (!may_go).then(|| node.handlers.enter());
        // Entered before this look: a drain that is not seen here sees the request.
        self.waited_for = entered.is_some() && !node.is_draining();
        // One that came in the drain begins no stream, but may answer something else: it is waited for as well.
        entered.unwrap_or_else(|| node.bystanders.enter())
    }

    /// Whether the request may begin a stream now.
    fn may_begin(&self, node: &Node) -> bool {
        if self.waited_for { !node.is_letting_go() } else { !node.is_draining() }
    }

    fn origin(&self) -> Origin {
        if self.prefix.is_some() { Origin::Generated } else { Origin::Named }
    }

    pub(super) fn cursor(&self) -> Option<EventId> {
        match self.position {
            Position::After(id) => Some(id),
            Position::Newest | Position::Live | Position::Unreadable => None,
        }
    }

    /// How the client is spoken to on this route.
    pub(super) fn manner(&self, route: &Route) -> Manner {
        Manner { voice: route.voice, heartbeat: route.heartbeat, endless: route.endless, comes_again: self.comes_again }
    }
}

/// The store's answer, with the guard that undoes it.
type Answered = (Opening, Result<Opened, crate::StoreError>);

/// The outcome of a request's admission.
pub(super) enum Admission {
    /// It is the stream's producer.
    Produce(Registered),
    /// It reads a stream that another request produces, or produced.
    Follow(Box<FollowBody>, KeptHeaders),
    /// It has everything.
    NoContent,
    /// It is to come again.
    Retry,
    /// The route's voice cannot express the answer: the body breaks, and nothing is run.
    Break(BodyError),
    /// It produces, but nothing is recorded.
    Unrecorded,
    /// Its stream is gone, and may be run anew under a name of its own.
    Anew,
    Reject(Rejection),
}

/// A registration, which is withdrawn if it is dropped before its producer has begun to answer.
pub(super) struct Registered {
    node: Arc<Node>,
    pub(super) lane: Arc<Lane>,
    /// Where the run before ended, if there was one.
    pub(super) previous: Option<EventId>,
    pub(super) inner_id: Option<String>,
    opening: Opening,
}

impl Registered {
    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Whether an earlier run has made events: one that was interrupted before that may not have begun.
    pub(super) fn has_begun_before(&self) -> bool {
        self.previous.is_some_and(|previous| previous.seq > 0)
    }

    /// The producer has begun to answer: from here on its body decides.
    pub(super) fn start(mut self) -> Arc<Lane> {
        self.opening.keep();
        Arc::clone(&self.lane)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Settled first: an append that is queued or in flight must not register the stream again.
        if !self.opening.is_armed() {
            return;
        }
        if !self.node.recorder.withdraw(&self.lane) {
            self.opening.keep();
            self.node.turn_is_over(&self.lane);
        }
        self.node.turn_is_left(&self.lane);
    }
}

impl Admission {
    /// Admits a request that names a stream.
    pub(super) async fn ask(node: Arc<Node>, route: Arc<Route>, asked: Asked) -> Self {
        let conversation = asked.turn.as_ref().map(|turn| &turn.conversation);
        if let Err(rejection) = node.authorize_in(&asked.key, conversation, &asked.head).await {
            return Self::Reject(rejection);
        }
        node.check_guarded();
        if node.is_draining() {
            return Self::while_draining(&node, &route, asked).await;
        }
        if let Some(error) = unspeakable(&node, &route, &asked).await {
            return Self::Break(error);
        }
        let begun = asked.opened;
        loop {
            // Before the stream is looked at: what changes in between is then seen.
            let mut tail = node.store.tail(&asked.key);
            let running = running_here(&node, &asked);
            let (opening, opened) = match open_held_first(&node, &route, &asked, running.is_some()).await {
                Ok(opened) => opened,
                Err(admission) => return admission,
            };
            let (patience, at_most) = match &opened {
                // From then on it gets heartbeats. Other clients wait until the producer answers or withdraws, since its answer may be
                // no event stream.
                Ok(Opened::Active { started: false }) if asked.comes_again => (BEGIN_WAIT, BEGIN_WAIT),
                Ok(Opened::Active { started: false }) => (node.settings.lifetime, node.settings.lifetime),
                Ok(Opened::Missing) if !asked.position.is_end() && running.is_some() => (REOPEN_WAIT, REOPEN_LOOK),
                _ => return Self::decide(&node, &route, asked, opening, opened).await,
            };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Self::decide(&node, &route, asked, opening, opened).await;
            }
            match running {
                // The store forgot a stream that runs here: the lane's own look registers it again, or learns that it was deleted.
                Some(lane) if matches!(opened, Ok(Opened::Missing)) => node.recorder.look(&lane),
                // It may have begun, and not have said so yet.
                Some(lane) => node.recorder.ready(&lane),
                None => {}
            }
            let mut drain = pin!(node.drain_began());
            let changed = poll_fn(|cx| match drain.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => tail.poll_changed(cx),
            });
            let _ = tokio::time::timeout(left.min(at_most), changed).await;
            if node.is_draining() {
                return Self::while_draining(&node, &route, asked).await;
            }
        }
    }

    /// Registers a producer whose inner service has answered already.
    pub(super) async fn register(node: Arc<Node>, route: Arc<Route>, asked: Asked) -> Self {
        Self::register_for(&node, &route, asked).await
    }

    /// Registers a stream whose name the library made up.
    pub(super) async fn register_for(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        node.check_guarded();
        if !asked.may_begin(node) {
            return Self::Retry;
        }
        let (opening, opened) = node.recorder.open(registration(node, route, &asked, node.random.u128(), true)).await;
        Self::decide(node, route, asked, opening, opened).await
    }

    async fn decide(
        node: &Arc<Node>,
        route: &Route,
        asked: Asked,
        opening: Opening,
        opened: Result<Opened, crate::StoreError>,
    ) -> Self {
        if let Ok(held) = &opened
            && let Some(refused) = Self::in_other_conversation(node, &asked, held).await
        {
            // What was registered is withdrawn.
            return refused;
        }
        match opened {
            // Nothing is begun any more, recorded or not.
            Err(_) | Ok(Opened::Missing) if !asked.may_begin(node) && !asked.position.is_end() => Self::Retry,
            Err(_) => Self::without_store(route, asked.position),
            // Nothing is begun any more: what was registered is withdrawn.
            Ok(Opened::New { .. }) if !asked.may_begin(node) => Self::Retry,
            Ok(Opened::New { epoch, previous, inner_id, origin }) => {
                let registration = Open { origin, ..registration(node, route, &asked, opening.token, true) };
                let lane = Lane::new(
                    registration,
                    &route.retention,
                    epoch,
                    node.hooks.lease_within(route.retention.recovery_window),
                );
                node.recorder.enter(&lane);
                let registered = Registered { node: Arc::clone(node), lane, previous, inner_id, opening };
                let runs_again = registered.has_begun_before();
                if let Some(turn) = asked.turn.clone()
                    && let Err(refused) =
                        Self::begin_turn(node, route, &asked, &registered.lane, runs_again, turn).await
                {
                    // What was registered is withdrawn.
                    return refused;
                }
                // Entered before this look: a drain that is not seen here sees the lane.
                if asked.may_begin(node) { Self::Produce(registered) } else { Self::Retry }
            }
            Ok(Opened::Ended(ended)) => Self::ended(node, route, asked, &ended).await,
            Ok(Opened::Active { .. }) => Self::active(node, route, asked).await,
            Ok(Opened::Missing) if asked.position.is_end() => Self::NoContent,
            Ok(Opened::Missing) if node.may_be_forgotten() || running_here(node, &asked).is_some() => Self::Retry,
            Ok(Opened::Missing) if asked.prefix.is_some() && route.disconnect.reruns() => Self::Anew,
            // Not created only because the store seemed to have been emptied a moment ago.
            Ok(Opened::Missing) if asked.prefix.is_none() && asked.position.may_create(route.disconnect) => Self::Retry,
            Ok(Opened::Missing) => Self::Reject(Rejection::NotFound),
            Ok(Opened::OverLimit) => Self::over_limit(node, route, asked).await,
            Ok(Opened::OtherKind { kind }) => Self::Reject(node.other_kind(&asked.key.id, &asked.kind, kind)),
            Ok(Opened::OtherFingerprint) => Self::Reject(Rejection::OtherRequest),
        }
    }

    /// The owner has as many streams as are allowed. A turn is refused for the stream that it was to be refused for, and one over the
    /// limit is admitted where that stream makes room as soon as the turn has started.
    async fn over_limit(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        let limit = route.limit.unwrap_or(0);
        let refused = |asked: &Asked| match asked.position.is_reconnect() {
            // An `EventSource` would give up for good at a 429.
            true => Self::Retry,
            false => Self::Reject(Rejection::TooManyStreams { limit }),
        };
        let Some(turn) = asked.turn.clone() else { return refused(&asked) };
        let conversation = StreamKey::new(asked.key.owner.clone(), turn.conversation);
        let running = match node.current(&conversation).await {
            Ok(Some(current)) if current.info.state == StreamState::Active => current.info.key.id,
            _ => return refused(&asked),
        };
        match turn.overlap {
            Overlap::Allow => refused(&asked),
            Overlap::Refuse => Self::Reject(Rejection::Running { stream: running }),
            Overlap::Replace => {
                let request = registration(node, route, &asked, node.random.u128(), true);
                let request = Open { limit: Some(limit.saturating_add(1)), ..request };
                let (opening, opened) = node.recorder.open(request).await;
                match opened {
                    Ok(Opened::OverLimit) => refused(&asked),
                    opened => Box::pin(Self::decide(node, route, asked, opening, opened)).await,
                }
            }
        }
    }

    /// Refuses a request that names a stream of another conversation than its own: the `authorize` hook was asked about the request's.
    async fn in_other_conversation(node: &Node, asked: &Asked, held: &Opened) -> Option<Self> {
        let asks_for = &asked.turn.as_ref().filter(|_| !asked.begins)?.conversation;
        if !matches!(held, Opened::Active { .. } | Opened::Ended(_) | Opened::New { previous: Some(_), .. }) {
            return None;
        }
        let turn = match node.recorder.lane(&asked.key).and_then(|lane| Some(lane.turn()?.turn())) {
            Some(turn) => Some(turn),
            None => match node.store.info(asked.key.clone()).await {
                Ok(info) => info.and_then(|info| info.turn),
                Err(_) => return Some(Self::Retry),
            },
        };
        let is_other = turn.is_some_and(|turn| turn.conversation != *asks_for);
        is_other.then_some(Self::Reject(Rejection::OtherConversation))
    }

    /// Makes a stream that is registered a turn of its conversation. `runs_again`: an earlier run has begun it. The error is what the request is
    /// told instead.
    pub(super) async fn begin_turn(
        node: &Arc<Node>,
        route: &Route,
        asked: &Asked,
        lane: &Arc<Lane>,
        runs_again: bool,
        turn: Turn,
    ) -> Result<(), Self> {
        if runs_again {
            return match node.rejoin_turn(lane, turn).await {
                Some(stream) => Err(Self::Reject(Rejection::Running { stream })),
                None => Ok(()),
            };
        }
        let turn = asked.new_turn(turn);
        let refuses = turn.overlap == Overlap::Refuse;
        match node.begin_turn(lane, turn).await {
            Ok(Beginning::Pointed) => Ok(()),
            Ok(Beginning::Refused(stream)) => Err(Self::Reject(Rejection::Running { stream })),
            Ok(Beginning::Unknown) => Err(Self::Retry),
            Err(_) => match Self::without_store(route, asked.position) {
                // Whether one runs is not known, so none begins.
                Self::Unrecorded if refuses => Err(Self::Retry),
                // The stream is registered, so it is recorded; the pointer is moved once the store takes it.
                Self::Unrecorded => {
                    node.begin_anyway(lane);
                    Ok(())
                }
                refused => Err(refused),
            },
        }
    }

    async fn active(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        if asked.position.is_end()
            && let Ok(Some(info)) = node.store.info(asked.key.clone()).await
            && asked.position.has_all_of(&info, |ending| route.voice.tells(ending))
        {
            return Self::NoContent;
        }
        Self::follow(node, route, asked, true).await
    }

    async fn ended(node: &Arc<Node>, route: &Route, asked: Asked, ended: &Ended) -> Self {
        if asked.position.has_all(ended, route.voice.tells(&ended.ending)) {
            return Self::NoContent;
        }
        Self::follow(node, route, asked, false).await
    }

    /// `runs`: the stream has a producer, which is told of the reader before the response's head is sent.
    pub(super) async fn follow(node: &Arc<Node>, route: &Route, asked: Asked, runs: bool) -> Self {
        if asked.position.is_reconnect() {
            add(&node.telemetry.resumed, 1);
        }
        let manner = asked.manner(route);
        let Asked { key, position, prefix, opened, .. } = asked;
        let owed = if route.endless { Owed::Nothing } else { Owed::Run };
        let lane = node.recorder.lane(&key);
        let unknown = if lane.is_none() { Unknown::Response } else { Unknown::Nothing };
        let retry = lane.as_ref().and_then(|lane| lane.inner_retry());
        let stream = key.clone();
        let request = FollowRequest { key, position, owed, manner, prefix, retry, wait: None, unknown, until: None };
        let mut body = Box::new(FollowBody::new(node, request));
        body.begin().await;
        if runs {
            node.announce(&stream).await;
        }
        let headers = match lane {
            Some(lane) => lane.headers().clone(),
            None => body.begun().await,
        };
        // An `EventSource` has waited for the producer as part of the same time; others have waited until it answered.
        let waits_since = if manner.comes_again { opened } else { Instant::now() };
        let headers = match headers {
            KeptHeaders::Awaited if route.keep_headers.is_empty() => KeptHeaders::None,
            headers => node.await_headers(&stream, headers, waits_since + BEGIN_WAIT).await,
        };
        Self::Follow(body, headers)
    }

    /// A request with a cursor is to come again: the events that it needs are only in the store.
    fn without_store(route: &Route, position: Position) -> Self {
        match route.on_unavailable {
            _ if position.is_reconnect() => Self::Retry,
            OnUnavailable::Serve => Self::Unrecorded,
            OnUnavailable::Retry => Self::Retry,
            OnUnavailable::Status => Self::Reject(Rejection::Unavailable),
        }
    }

    /// Begins nothing new. Ended streams are still told, and running ones still followed by clients that cannot reconnect.
    async fn while_draining(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        let Ok(Some(info)) = node.store.info(asked.key.clone()).await else { return Self::Retry };
        let request = registration(node, route, &asked, 0, false);
        match request.refused_by(info.origin, &info.kind, info.fingerprint.as_deref()) {
            Some(Opened::OtherKind { kind }) => {
                return Self::Reject(node.other_kind(&asked.key.id, &asked.kind, kind));
            }
            Some(Opened::OtherFingerprint) => return Self::Reject(Rejection::OtherRequest),
            Some(_) => return Self::Retry,
            None => {}
        }
        let asks_for = asked.turn.as_ref().filter(|_| !asked.begins);
        if let (Some(asks_for), Some(turn)) = (asks_for, &info.turn)
            && asks_for.conversation != turn.conversation
        {
            return Self::Reject(Rejection::OtherConversation);
        }
        match &info.ended {
            Some(ended) => Self::ended(node, route, asked, ended).await,
            // Whoever has not begun to answer may not answer with an event stream.
            None if info.state == StreamState::Active && info.started && !asked.comes_again => {
                Self::active(node, route, asked).await
            }
            None => Self::Retry,
        }
    }
}

/// Returns the error for a reconnect that the route's voice cannot express. Checked before the handler runs, so that no run
/// is started for a body that breaks.
async fn unspeakable(node: &Arc<Node>, route: &Route, asked: &Asked) -> Option<BodyError> {
    if route.voice != Voice::OpenAi || !route.disconnect.reruns() || !asked.position.names_what_was() {
        return None;
    }
    match node.store.info(asked.key.clone()).await {
        Ok(Some(info)) if info.state == StreamState::Interrupted => Some(BodyError::Restart),
        Ok(None) if !asked.position.is_end() && matches!(node.ask_whether_forgotten().await, Ok(false)) => {
            Some(BodyError::Gap)
        }
        _ => None,
    }
}

/// The stream that a request means, where it runs on this node.
fn running_here(node: &Node, asked: &Asked) -> Option<Arc<Lane>> {
    node.recorder.lane(&asked.key).filter(|lane| lane.is_meant_by(asked.origin(), &asked.kind))
}

/// Asks the store to register the request's producer. A stream that is held is looked for first, without being created,
/// where the request names one that existed or that runs on this node. If it is missing, it is run anew, or not found, only if
/// the store was not emptied since this node last heard of it.
async fn open_held_first(
    node: &Arc<Node>,
    route: &Route,
    asked: &Asked,
    runs_here: bool,
) -> Result<Answered, Admission> {
    let request = registration(node, route, asked, node.random.u128(), false);
    if !runs_here && !asked.position.names_what_was() {
        return Ok(node.recorder.open(request).await);
    }
    let answered = node.recorder.open(Open { create: false, ..request.clone() }).await;
    if !matches!(answered.1, Ok(Opened::Missing)) || asked.position.is_end() || runs_here {
        return Ok(answered);
    }
    match node.ask_whether_forgotten().await {
        Err(_) => Err(Admission::without_store(route, asked.position)),
        Ok(false) if request.create => Ok(node.recorder.open(request).await),
        Ok(_) => Ok(answered),
    }
}

/// `answered`: the inner service has answered with an event stream already.
pub(super) fn registration(node: &Node, route: &Route, asked: &Asked, token: u128, answered: bool) -> Open {
    // A name that the library made up names no new stream, whoever brings it back.
    let anew = asked.prefix.is_none() || answered || asked.begins;
    Open {
        key: asked.key.clone(),
        kind: asked.kind.clone(),
        origin: asked.origin(),
        node: node.name.clone(),
        token,
        create: anew && (answered || asked.position.may_create(route.disconnect)) && !forgotten(node, asked, answered),
        reruns: route.disconnect.reruns(),
        // Said once the producer's body is there: see `Lane::start`.
        started: false,
        fingerprint: asked.fingerprint.clone(),
        limit: route.limit,
        metadata: asked.metadata.clone(),
        voice: route.voice,
        turn: asked.turn.clone(),
        headers: asked.headers.clone(),
        retention: *route.retention,
    }
}

/// Whether the stream that a cursor speaks of may be about to register again.
fn forgotten(node: &Node, asked: &Asked, answered: bool) -> bool {
    !answered && asked.position.is_reconnect() && node.may_be_forgotten()
}
