//! Admission: asks the store about a request's stream, and decides how the request is served.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use super::{
    asked::{Asked, registration},
    registered::Registered,
};
use crate::{
    follow::FollowBody,
    model::{config::OnUnavailable, error::BodyError, kept::KeptHeaders, stream::StreamState, voice::Voice},
    node::{Node, readers::BEGIN_WAIT, reject::Rejection},
    protocol::admission::Position,
    recorder::{Lane, Opening},
    route::settings::Route,
    store::{Open, Opened},
};

/// How long a request waits for a stream of this node to be registered again with a store that lost it.
const REOPEN_WAIT: Duration = Duration::from_secs(2);

/// How often the request asks for the stream meanwhile. No notice wakes it if the stream was deleted.
const REOPEN_LOOK: Duration = Duration::from_millis(50);

/// The store's answer, with the guard that withdraws the registration.
type Answered = (Opening, Result<Opened, crate::StoreError>);

/// The outcome of a request's admission.
pub(super) enum Admission {
    /// The request produces its stream.
    Produce(Registered),
    /// The request follows a stream that another request produces, or produced.
    Follow(Box<FollowBody>, KeptHeaders),
    /// The client has everything.
    NoContent,
    /// The client must come again.
    Retry,
    /// The route's voice cannot express the answer. The body breaks, and the inner service does not run.
    Break(BodyError),
    /// The request produces its stream, but nothing is recorded.
    Unrecorded,
    /// The request's stream is gone. The request may run the work anew, under a new stream id.
    Anew,
    Reject(Rejection),
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
        if let Some(error) = inexpressible(&node, &route, &asked).await {
            return Self::Break(error);
        }
        let begun = asked.opened;
        loop {
            // Taken before the store is asked, so that a change in between wakes this request.
            let mut tail = node.store.tail(&asked.key);
            let running = running_here(&node, &asked);
            let (opening, opened) = match open_held_first(&node, &route, &asked, running.is_some()).await {
                Ok(opened) => opened,
                Err(admission) => return admission,
            };
            let (patience, at_most) = match &opened {
                // An `EventSource` waits 2 s, then gets a response with heartbeats. Other clients wait until the
                // producer answers or withdraws, since its answer may be no event stream.
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
                // The store does not know a stream that runs on this node. The lane checks: it registers the stream
                // again, or finds that it was deleted.
                Some(lane) if matches!(opened, Ok(Opened::Missing)) => node.recorder.check_stream(&lane),
                // The producer may have begun without having told the store yet.
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

    /// Registers a stream whose inner service has answered already.
    pub(super) async fn register(node: Arc<Node>, route: Arc<Route>, asked: Asked) -> Self {
        Self::register_for(&node, &route, asked).await
    }

    /// Registers a stream whose id the library made up.
    pub(super) async fn register_for(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        node.check_guarded();
        if !asked.may_begin(node) {
            return Self::Retry;
        }
        let (opening, opened) = node.recorder.open(registration(node, route, &asked, node.random.u128(), true)).await;
        Self::decide(node, route, asked, opening, opened).await
    }

    pub(super) async fn decide(
        node: &Arc<Node>,
        route: &Route,
        asked: Asked,
        opening: Opening,
        opened: Result<Opened, crate::StoreError>,
    ) -> Self {
        if let Ok(held) = &opened
            && let Some(refused) = Self::in_other_conversation(node, &asked, held).await
        {
            // Dropping `opening` withdraws the registration.
            return refused;
        }
        match opened {
            // The drain begins no more streams, recorded or not.
            Err(_) | Ok(Opened::Missing) if !asked.may_begin(node) && !asked.position.is_end() => Self::Retry,
            Err(_) => Self::without_store(route, asked.position),
            // The drain begins no more streams. Dropping `opening` withdraws the registration.
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
                if let Some(path) = asked.unmatched_path.as_deref().filter(|_| asked.turn.is_none()) {
                    node.no_conversation(path);
                }
                if let Some(turn) = asked.turn.clone()
                    && let Err(refused) =
                        Self::begin_turn(node, route, &asked, &registered.lane, runs_again, turn).await
                {
                    // Dropping `registered` withdraws the registration.
                    return refused;
                }
                // Checked after the lane is entered, so that a drain that begins later sees the lane.
                if asked.may_begin(node) { Self::Produce(registered) } else { Self::Retry }
            }
            Ok(Opened::Ended(ended)) => Self::ended(node, route, asked, &ended).await,
            Ok(Opened::Active { .. }) => Self::active(node, route, asked).await,
            Ok(Opened::Missing) if asked.position.is_end() => Self::NoContent,
            Ok(Opened::Missing) if node.may_be_forgotten() || running_here(node, &asked).is_some() => Self::Retry,
            Ok(Opened::Missing) if asked.prefix.is_some() && route.disconnect.reruns() => Self::Anew,
            // The stream was not created because the store seemed to have been emptied a moment ago. The client tries
            // again.
            Ok(Opened::Missing) if asked.prefix.is_none() && asked.position.may_create(route.disconnect) => Self::Retry,
            Ok(Opened::Missing) => Self::Reject(Rejection::NotFound),
            Ok(Opened::OverLimit) => Self::over_limit(node, route, asked).await,
            Ok(Opened::OtherKind { kind }) => Self::Reject(node.other_kind(&asked.key.id, &asked.kind, kind)),
            Ok(Opened::OtherFingerprint) => Self::Reject(Rejection::OtherRequest),
        }
    }

    /// Decides about a request while the store does not answer. A request with a cursor must come again, since only the
    /// store has the events that it needs.
    pub(super) fn without_store(route: &Route, position: Position) -> Self {
        match route.on_unavailable {
            _ if position.is_reconnect() => Self::Retry,
            OnUnavailable::Serve => Self::Unrecorded,
            OnUnavailable::Retry => Self::Retry,
            OnUnavailable::Status => Self::Reject(Rejection::Unavailable),
        }
    }

    /// Decides about a request during a drain, which begins no new stream. The request may still replay an ended
    /// stream, and follow a running one if its client does not reconnect by itself.
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
            // A producer that has not begun to answer may yet answer with something else than an event stream.
            None if info.state == StreamState::Active && info.started && !asked.comes_again => {
                Self::active(node, route, asked).await
            }
            None => Self::Retry,
        }
    }
}

/// Returns the error for a reconnect whose answer the route's voice cannot express. It is checked before the handler
/// runs, so that no run begins for a body that breaks.
async fn inexpressible(node: &Arc<Node>, route: &Route, asked: &Asked) -> Option<BodyError> {
    if route.voice != Voice::OpenAi || !route.disconnect.reruns() || !asked.position.shows_existence() {
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

/// Returns the lane of the stream that a request means, if the stream runs on this node.
fn running_here(node: &Node, asked: &Asked) -> Option<Arc<Lane>> {
    node.recorder.lane(&asked.key).filter(|lane| lane.is_meant_by(asked.origin(), &asked.kind))
}

/// Asks the store to register the request's producer.
///
/// If the request names a stream that existed, or that runs on this node, this first looks for the stream without
/// creating it. A missing stream is created only if the store was not emptied since its last answer to this node.
async fn open_held_first(
    node: &Arc<Node>,
    route: &Route,
    asked: &Asked,
    runs_here: bool,
) -> Result<Answered, Admission> {
    let request = registration(node, route, asked, node.random.u128(), false);
    if !runs_here && !asked.position.shows_existence() {
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
