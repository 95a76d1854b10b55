//! The relay: a service that follows published streams. It never registers a stream and never beats.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    follow::{
        AnswerBody, AnswerFuture, FollowRequest, Manner, Unknown,
        brief::{come_again, no_content, options},
    },
    model::{
        config::bounded,
        id::{StreamId, StreamKey},
        stream::StreamInfo,
        voice::Voice,
    },
    node::{
        Node,
        head::Head,
        readers::BEGIN_WAIT,
        reject::Rejection,
        request::{asks_by_name, last_seen},
    },
    protocol::{admission::Position, replay::Owed},
    route::identify::{Identify, Name},
    telemetry::add,
};

/// A service that follows published streams: see [`ResilientSse::relay`](crate::ResilientSse::relay).
///
/// GET follows the stream. HEAD is answered with the head alone, OPTIONS with the allowed methods, and any other method
/// with 405.
///
/// If the stream is not opened yet, the response begins at once, and its body sends heartbeats and waits. If the stream
/// is still not opened after [`wait`](Self::wait), the body breaks off, and the client comes again.
///
/// A client with the cursor of a stream that the store does not hold gets 404, and an `EventSource` gives up then. With
/// the memory store that is every client after a restart of the process, until the stream is published again. A host may
/// answer such a request otherwise, see [`Builder::on_reject`](crate::Builder::on_reject).
///
/// If the route of an opened stream keeps headers of its response
/// ([`keep_headers`](crate::ResilientSseLayer::keep_headers)), the relay waits for them for up to 2 s.
///
/// ```
/// use axum::Router;
/// use resilient_sse::{ResilientSse, StreamId};
///
/// fn exports(sse: &ResilientSse) -> Router {
///     // A background job publishes the events: see `ResilientSse::publisher`.
///     let events = sse.relay().id(StreamId::path("/exports/{id}/events"));
///     Router::new().route_service("/exports/{id}/events", events)
/// }
/// ```
#[derive(Clone)]
pub struct Relay {
    node: Arc<Node>,
    /// The identifier of the stream. `None`: the path is the stream's name and nothing else.
    identify: Option<Arc<dyn Identify>>,
    voice: Option<Voice>,
    wait: Duration,
}

impl Relay {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let wait = node.settings.relay_wait;
        Self { node, identify: None, voice: None, wait }
    }

    /// Sets the identifier that finds a request's stream.
    ///
    /// Default: the path is exactly `/{id}`, as it is when the relay is nested under a prefix of its own
    /// (`nest_service("/jobs", sse.relay())`). Any other path is answered with 404, and logged: in a longer path, such
    /// as `/exports/7/events`, the relay cannot tell which segment is the name.
    #[must_use]
    pub fn id(mut self, identify: impl Identify) -> Self {
        self.identify = Some(Arc::new(identify));
        self
    }

    /// Sets how long a response waits for a stream that is not opened yet. With zero such a stream is answered with
    /// 404. Default: [`Builder::relay_wait`](crate::Builder::relay_wait), 30 s.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = bounded(wait);
        self
    }

    /// Sets the form of the library's own events. Default: the stream's voice
    /// ([`StreamSpec::voice`](crate::StreamSpec::voice)).
    ///
    /// Before a stream is opened its voice is not known, so a client that waits for it is greeted in [`Voice::Named`].
    /// Set a voice here if the route's clients fail on events that they do not know.
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = Some(voice);
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
        let relay = self.clone();
        AnswerFuture(Box::pin(async move {
            let head = relay.node.head(&parts);
            match relay.answer(&parts, &head).await {
                Ok(response) => response,
                Err(rejection) => relay.node.reject(&rejection, &head).map(AnswerBody::full),
            }
        }))
    }
}

impl Relay {
    async fn answer(&self, parts: &Parts, head: &Head) -> Result<Response<AnswerBody>, Rejection> {
        match parts.method {
            Method::GET => self.follow(parts, head).await,
            Method::HEAD => Ok(self.follow(parts, head).await?.map(|_| AnswerBody::full(Bytes::new()))),
            Method::OPTIONS => Ok(options(&self.node)),
            _ => Err(Rejection::MethodNotAllowed),
        }
    }

    fn name(&self, parts: &Parts) -> Result<StreamId, Rejection> {
        let name = match &self.identify {
            Some(identify) => identify.identify(parts).name,
            None => {
                let path = parts.uri.path();
                let is_bare = path.strip_prefix('/').is_some_and(|name| !name.is_empty() && !name.contains('/'));
                if !is_bare {
                    return Err(self.node.no_stream_name("relay", path));
                }
                StreamId::path("/{id}").identify(parts).name
            }
        };
        match name {
            Name::Id(id) => Ok(id),
            Name::Malformed(error) => Err(Rejection::MalformedId(error)),
            Name::OtherPath => Err(self.node.no_stream_name("relay", parts.uri.path())),
            Name::Bypass | Name::Generate => Err(Rejection::NotFound),
        }
    }

    async fn follow(&self, parts: &Parts, head: &Head) -> Result<Response<AnswerBody>, Rejection> {
        let node = &self.node;
        let owner = node.owner_of(parts)?;
        let key = StreamKey::new(owner, self.name(parts)?);
        node.authorize(&key, head).await?;
        let began = Instant::now();
        let position = Position::of(&last_seen(parts, Some(&key.id)));
        let comes_again = asks_by_name(parts);
        if node.is_draining() && comes_again {
            return Ok(come_again(node, Some(&key.id), comes_again, head));
        }
        // A store error does not fail the request: the store may answer while the body waits.
        let info = node.store.info(key.clone()).await;
        let missing = matches!(info, Ok(None));
        let info = info.ok().flatten();
        let known_voice = self.voice.or(info.as_ref().map(|info| info.voice));
        let voice = known_voice.unwrap_or_default();
        let has_all = info.as_ref().is_some_and(|info| position.has_all_of(info, |ending| voice.announces(ending)));
        if has_all || (missing && position.is_end()) {
            return Ok(no_content(node));
        }
        // Answer with 404 if the relay does not wait, or if a cursor shows that the stream existed and has expired
        // since.
        let is_due = self.wait.is_zero() || matches!(position, Position::After(_));
        if missing && is_due && matches!(node.ask_whether_forgotten().await, Ok(false)) {
            return Err(Rejection::NotFound);
        }
        if position.is_reconnect() {
            add(&node.telemetry.resumed, 1);
        }
        let manner = Manner { voice, heartbeat: node.settings.heartbeat, endless: false, comes_again };
        // Only a stream that is not opened yet is waited for.
        let wait = info.is_none().then_some(self.wait);
        let unknown = match info {
            Some(_) => Unknown::Nothing,
            None if known_voice.is_some() => Unknown::Stream,
            None => Unknown::StreamAndVoice,
        };
        let headers = info.as_ref().map(|info| info.headers.clone()).unwrap_or_default();
        let headers = node.await_headers(&key, headers, began + BEGIN_WAIT).await;
        let retry = info.as_ref().and_then(|info| info.inner_retry);
        let prefix = info.and_then(StreamInfo::into_prefix);
        let owed = Owed::Run;
        let request = FollowRequest { key, position, owed, manner, prefix, retry, wait, unknown, until: None };
        node.check_version(parts.version);
        Ok(AnswerBody::follow(node, request, &headers).await)
    }
}
