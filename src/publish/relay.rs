//! Following a stream that others publish: a service that never registers and never beats.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use tower_service::Service;

use crate::{
    config::RELAY_WAIT,
    follow::{AnswerBody, AnswerFuture, FollowRequest},
    hub::{Core, Rejection},
    id::StreamKey,
    layer::{
        identify::{Identify, Name},
        voice::Voice,
    },
    protocol::admission::Position,
    request::last_seen,
    telemetry::add,
};

/// A service that follows streams which others publish: see [`ResilientSse::relay`](crate::ResilientSse::relay).
///
/// On a stream that is not opened yet it answers at once, heartbeats, and waits for up to 30 s; then
/// the body ends, and the client comes again.
#[derive(Clone)]
pub struct Relay {
    core: Arc<Core>,
    identify: Arc<dyn Identify>,
    voice: Voice,
}

impl Relay {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, identify: Arc::new(crate::StreamId::path("/{id}")), voice: Voice::default() }
    }

    /// Which stream a request means. Default: the path's last segment.
    #[must_use]
    pub fn id(mut self, identify: impl Identify) -> Self {
        self.identify = Arc::new(identify);
        self
    }

    /// How the library itself speaks. Default: [`Voice::Named`].
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Relay {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        let (parts, _) = request.into_parts();
        let name = self.identify.identify(&parts).name;
        let (core, voice) = (Arc::clone(&self.core), self.voice);
        AnswerFuture(Box::pin(async move {
            match relay(&core, &parts, name, voice).await {
                Ok(response) => response,
                Err(rejection) => core.reject(&rejection).map(AnswerBody::full),
            }
        }))
    }
}

async fn relay(core: &Arc<Core>, parts: &Parts, name: Name, voice: Voice) -> Result<Response<AnswerBody>, Rejection> {
    let owner = core.owner_of(parts)?;
    let id = match name {
        Name::Id(id) => id,
        Name::Malformed(error) => return Err(Rejection::MalformedId(error)),
        Name::Bypass | Name::Generate => return Err(Rejection::NotFound),
    };
    let key = StreamKey::new(owner, id.clone());
    core.authorize(&key, parts).await?;
    let position = Position::of(&last_seen(parts, Some(&id)));
    // A store that does not answer now may do so while the body waits.
    let info = core.store.info(key.clone()).await;
    let missing = matches!(info, Ok(None));
    let ended = info.ok().flatten().and_then(|info| info.ended);
    if ended.as_ref().is_some_and(|ended| position.has_all(ended, voice.tells(&ended.ending))) {
        return Ok(AnswerBody::no_content());
    }
    if missing && matches!(position, Position::After(_)) && matches!(core.ask_whether_forgotten().await, Ok(false)) {
        // It existed, and has expired: nobody is going to open it.
        return Err(Rejection::NotFound);
    }
    if position.is_reconnect() {
        add(&core.telemetry.resumed, 1);
    }
    let request = FollowRequest { key, position, voice, prefix: None, wait: Some(RELAY_WAIT), until: None };
    Ok(AnswerBody::follow(core, request))
}
