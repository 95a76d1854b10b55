//! Admission: what the store says of a request's stream, and what follows from that.

use std::{borrow::Cow, future::poll_fn, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::route::Route;
use crate::{
    config::OnUnavailable,
    follow::{FollowBody, FollowRequest},
    hub::{Core, Head, Rejection},
    id::{EventId, StreamId, StreamKey},
    protocol::{admission::Position, replay::Owed},
    recorder::{Lane, Opening},
    store::{Open, Opened},
    stream::{Ended, Metadata, Origin},
    telemetry::add,
};

/// How long a request waits for another's producer to begin to answer, before it follows that.
const START_WAIT: Duration = Duration::from_secs(2);

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
    /// When the request came.
    pub(super) opened: Instant,
    /// What the host's hooks are shown of it.
    pub(super) head: Head,
}

/// What the store said, with what undoes it.
type Answered = (Opening, Result<Opened, crate::StoreError>);

/// What becomes of a request.
pub(super) enum Admission {
    /// It is the stream's producer.
    Produce(Registered),
    /// It reads what another produces, or produced.
    Follow(Box<FollowBody>),
    /// It has everything.
    NoContent,
    /// It is to come again: 200, `retry:`, end.
    Retry,
    /// It produces, but nothing is recorded.
    Unrecorded,
    /// Its stream is gone, and may be run anew under a name of its own.
    Anew,
    Reject(Rejection),
}

/// A registration, which is withdrawn if it is dropped before its producer has begun to answer.
pub(super) struct Registered {
    core: Arc<Core>,
    pub(super) lane: Arc<Lane>,
    /// Where the run before ended, if there was one.
    pub(super) previous: Option<EventId>,
    pub(super) inner_id: Option<String>,
    opening: Opening,
}

impl Registered {
    /// The producer has begun to answer: from here on its body decides.
    pub(super) fn start(mut self) -> Arc<Lane> {
        self.opening.keep();
        Arc::clone(&self.lane)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Settled first: what is queued or in flight must not register the stream again.
        if self.opening.is_armed() && !self.core.recorder.withdraw(&self.lane) {
            self.opening.keep();
        }
    }
}

impl Admission {
    /// Admits a request that names a stream.
    pub(super) async fn ask(core: Arc<Core>, route: Arc<Route>, asked: Asked) -> Self {
        if let Err(rejection) = core.authorize(&asked.key, &asked.head).await {
            return Self::Reject(rejection);
        }
        core.check_guarded();
        if core.is_draining() {
            return Self::while_draining(&core, &route, asked).await;
        }
        let give_up = Instant::now() + START_WAIT;
        loop {
            // Before the stream is looked at: what changes in between is then seen.
            let mut tail = core.store.tail(&asked.key);
            let (opening, opened) = match open_held_first(&core, &route, &asked).await {
                Ok(opened) => opened,
                Err(admission) => return admission,
            };
            let waiting = matches!(opened, Ok(Opened::Active { started: false })) && Instant::now() < give_up;
            if !waiting {
                return Self::decide(&core, &route, asked, opening, opened);
            }
            let changed = poll_fn(|cx| tail.poll_changed(cx));
            let _ = tokio::time::timeout_at(give_up, changed).await;
        }
    }

    /// Registers a producer whose inner service has answered already.
    pub(super) async fn register(core: Arc<Core>, route: Arc<Route>, asked: Asked) -> Self {
        core.check_guarded();
        if core.is_draining() {
            return Self::Retry;
        }
        let (opening, opened) = open(&core, &route, &asked, true).await;
        Self::decide(&core, &route, asked, opening, opened)
    }

    fn decide(
        core: &Arc<Core>,
        route: &Route,
        asked: Asked,
        opening: Opening,
        opened: Result<Opened, crate::StoreError>,
    ) -> Self {
        match opened {
            Err(_) => Self::without_store(route, asked.position),
            Ok(Opened::New { epoch, previous, inner_id }) => {
                let registration = registration(core, route, &asked, opening.token, true);
                let lane = Lane::new(registration, epoch, core.hooks.lease_within(route.retention.recovery_window));
                core.recorder.enter(&lane);
                Self::Produce(Registered { core: Arc::clone(core), lane, previous, inner_id, opening })
            }
            Ok(Opened::Ended(ended)) => Self::ended(core, route, asked, &ended),
            Ok(Opened::Active { .. }) => Self::follow(core, route, asked),
            Ok(Opened::Missing) if core.may_be_forgotten() => Self::Retry,
            Ok(Opened::Missing) if route.disconnect.reruns() => Self::Anew,
            Ok(Opened::Missing) => Self::Reject(Rejection::NotFound),
            // An `EventSource` would give up for good at a 429.
            Ok(Opened::OverLimit) if asked.position.is_reconnect() => Self::Retry,
            Ok(Opened::OverLimit) => Self::Reject(Rejection::TooManyStreams { limit: route.limit.unwrap_or(0) }),
            Ok(Opened::OtherKind { kind }) => Self::Reject(core.other_kind(&asked.key.id, &asked.kind, kind)),
            Ok(Opened::OtherFingerprint) => Self::Reject(Rejection::OtherRequest),
        }
    }

    fn ended(core: &Arc<Core>, route: &Route, asked: Asked, ended: &Ended) -> Self {
        if asked.position.has_all(ended, route.voice.tells(&ended.ending)) {
            return Self::NoContent;
        }
        Self::follow(core, route, asked)
    }

    fn follow(core: &Arc<Core>, route: &Route, asked: Asked) -> Self {
        if asked.position.is_reconnect() {
            add(&core.telemetry.resumed, 1);
        }
        let Asked { key, position, prefix, .. } = asked;
        let owed = if route.endless { Owed::Nothing } else { Owed::Run };
        let request = FollowRequest { key, position, owed, voice: route.voice, prefix, wait: None, until: None };
        Self::Follow(Box::new(FollowBody::new(core, request)))
    }

    /// What a client saw is only in the store: without that, it is to come again.
    fn without_store(route: &Route, position: Position) -> Self {
        match route.on_unavailable {
            _ if position.is_reconnect() => Self::Retry,
            OnUnavailable::Serve => Self::Unrecorded,
            OnUnavailable::Retry => Self::Retry,
            OnUnavailable::Status => Self::Reject(Rejection::Unavailable),
        }
    }

    /// Nothing new is begun; what has ended is still told.
    async fn while_draining(core: &Arc<Core>, route: &Route, asked: Asked) -> Self {
        let info = core.store.info(asked.key.clone()).await.ok().flatten();
        match info.and_then(|info| info.ended) {
            Some(ended) => Self::ended(core, route, asked, &ended),
            None => Self::Retry,
        }
    }
}

/// Asks the store to register the request's producer. Where the stream that its cursor speaks of is missing, it
/// is run anew, or not found, only if the store was not emptied since this node last heard of it.
async fn open_held_first(core: &Arc<Core>, route: &Route, asked: &Asked) -> Result<Answered, Admission> {
    if !asked.position.names_what_was() {
        return Ok(open(core, route, asked, false).await);
    }
    let request = registration(core, route, asked, core.random.u128(), false);
    let answered = core.recorder.open(Open { create: false, ..request.clone() }).await;
    if !matches!(answered.1, Ok(Opened::Missing)) {
        return Ok(answered);
    }
    match core.ask_whether_forgotten().await {
        Err(_) => Err(Admission::without_store(route, asked.position)),
        Ok(false) if request.create => Ok(core.recorder.open(request).await),
        Ok(_) => Ok(answered),
    }
}

/// Asks the store to register the request's producer. `answered`: as in [`registration`].
async fn open(core: &Arc<Core>, route: &Route, asked: &Asked, answered: bool) -> Answered {
    core.recorder.open(registration(core, route, asked, core.random.u128(), answered)).await
}

/// `answered`: the inner service has answered with an event stream already.
fn registration(core: &Core, route: &Route, asked: &Asked, token: u128, answered: bool) -> Open {
    // A name that the library made up names no new stream, whoever brings it back.
    let anew = asked.prefix.is_none() || answered;
    Open {
        key: asked.key.clone(),
        kind: asked.kind.clone(),
        origin: if asked.prefix.is_some() { Origin::Generated } else { Origin::Named },
        node: core.node.clone(),
        token,
        create: anew && (answered || asked.position.may_create(route.disconnect)) && !forgotten(core, asked, answered),
        reruns: route.disconnect.reruns(),
        // Said once the producer's body is there: see `Lane::start`.
        started: false,
        fingerprint: asked.fingerprint.clone(),
        limit: route.limit,
        metadata: asked.metadata.clone(),
        retention: route.retention,
    }
}

/// Whether the stream that a cursor speaks of may be about to register again.
fn forgotten(core: &Core, asked: &Asked, answered: bool) -> bool {
    !answered && asked.position.is_reconnect() && core.may_be_forgotten()
}
