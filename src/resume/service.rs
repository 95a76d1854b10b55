//! The service that follows the running stream of a conversation.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use tokio::time::Instant;
use tower_service::Service;

use super::conversation;
use crate::{
    follow::{
        AnswerBody, AnswerFuture,
        brief::{come_again, no_content, options},
    },
    model::{
        error::StoreError,
        id::{Cursor, EventId, StreamKey},
        stream::{StreamInfo, StreamState},
        voice::Voice,
    },
    node::{
        Node,
        head::Head,
        readers::BEGIN_WAIT,
        reject::Rejection,
        request::{asks_by_name, last_seen},
    },
    protocol::{admission::Position, cursor::LastSeen},
    recover::follow_known,
    route::identify::Identify,
};

/// The resume service of a hub: see [`ResilientSse::resume`](crate::ResilientSse::resume).
///
/// `GET` follows the conversation's running stream, from its first event or after the client's cursor, regardless of
/// `Accept`. If no stream runs, the answer is 204. A client whose cursor stands before the end of a stream that has
/// ended still gets the rest of that stream.
///
/// A client whose cursor belongs to an earlier turn gets a `gap`, unless it has seen that turn's end. Another owner's
/// conversation, and a conversation that [`Builder::authorize`](crate::Builder::authorize) denies, is answered with
/// 204.
///
/// HEAD is answered with the head alone, OPTIONS with the allowed methods, and any other method with 405.
///
/// ```
/// use axum::Router;
/// use resilient_sse::{ResilientSse, StreamId};
///
/// fn resuming(sse: &ResilientSse) -> Router {
///     let resume = sse.resume().conversation(StreamId::path("/chat/{id}/stream"));
///     Router::new().route_service("/chat/{id}/stream", resume)
/// }
/// ```
#[derive(Clone)]
pub struct Resume {
    node: Arc<Node>,
    conversation: Arc<dyn Identify>,
    voice: Option<Voice>,
}

impl Resume {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, conversation: Arc::new(crate::StreamId::path("/{id}/stream")), voice: None }
    }

    /// Sets the identifier that finds a request's conversation. Default: the segment before `stream` at the path's end
    /// (`/{id}/stream`).
    #[must_use]
    pub fn conversation(mut self, identify: impl Identify) -> Self {
        self.conversation = Arc::new(identify);
        self
    }

    /// Sets the form of the library's own events. Default: the voice of the route that produces the stream.
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = Some(voice);
        self
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Resume {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        let (parts, _) = request.into_parts();
        let resume = self.clone();
        AnswerFuture(Box::pin(async move {
            let head = resume.node.head(&parts);
            match resume.answer(&parts, &head).await {
                Ok(response) => response,
                Err(rejection) => resume.node.reject(&rejection, &head).map(AnswerBody::full),
            }
        }))
    }
}

impl Resume {
    async fn answer(&self, parts: &Parts, head: &Head) -> Result<Response<AnswerBody>, Rejection> {
        match parts.method {
            Method::GET => self.follow(parts, head).await,
            Method::HEAD => Ok(self.follow(parts, head).await?.map(|_| AnswerBody::full(Bytes::new()))),
            Method::OPTIONS => Ok(options(&self.node)),
            _ => Err(Rejection::MethodNotAllowed),
        }
    }

    async fn follow(&self, parts: &Parts, head: &Head) -> Result<Response<AnswerBody>, Rejection> {
        let node = &self.node;
        let conversation = conversation(node, &self.conversation, parts)?;
        node.check_guarded();
        let deadline = Instant::now() + BEGIN_WAIT;
        let has_cursor = last_seen(parts, None) != LastSeen::Nothing;
        let again = || Ok(come_again(node, None, asks_by_name(parts), head));
        let info = match self.newest(&conversation, deadline).await {
            // An `EventSource` would give up for good at a 503.
            Err(_) if has_cursor => return again(),
            Err(_) => return Err(Rejection::Unavailable),
            Ok(None) => {
                // After the store was emptied, the stream's producer may be about to register it again.
                let forgotten =
                    node.may_be_forgotten() || (has_cursor && !matches!(node.ask_whether_forgotten().await, Ok(false)));
                return if forgotten { again() } else { Ok(no_content(node)) };
            }
            Ok(Some(info)) => info,
        };
        // A denied conversation is answered like one without a stream, so that the answer does not give it away.
        if node.authorize_in(&info.key, Some(&conversation.id), head).await.is_err() {
            return Ok(no_content(node));
        }
        let position = position(parts, &info);
        let runs = info.state == StreamState::Active;
        if !runs && matches!(position, Position::Newest | Position::Live) {
            return Ok(no_content(node));
        }
        follow_known(node, info, position, parts, head, self.voice, deadline).await
    }

    /// Finds the newest turn. It waits until `deadline` for a turn whose handler has not answered: that turn may be
    /// withdrawn, and the turn before it is then the newest again.
    async fn newest(&self, conversation: &StreamKey, deadline: Instant) -> Result<Option<StreamInfo>, StoreError> {
        loop {
            let Some(current) = self.node.current(conversation).await? else { return Ok(None) };
            let mut tail = self.node.store.tail(&current.info.key);
            // Read after the tail is taken: a change from then on wakes the tail.
            let Some(info) = self.node.store.info(current.info.key.clone()).await? else { continue };
            let waits = info.state == StreamState::Active && !info.started;
            let changed = poll_fn(|cx| tail.poll_changed(cx));
            if !waits || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(Some(info));
            }
        }
    }
}

/// Returns where a client continues in the stream. A cursor at the end of an earlier turn shows that the client has all
/// of that turn, so it begins this stream at its first event. Any end but this stream's own counts as an earlier
/// turn's, since comparing the epochs of two streams does not tell which stream is older.
fn position(parts: &Parts, info: &StreamInfo) -> Position {
    let seen = last_seen(parts, Some(&info.key.id));
    match &seen {
        LastSeen::Event(Cursor { stream: Some(_), at }) if at.seq == 0 => Position::Newest,
        LastSeen::Event(Cursor { stream: None, at }) if at.seq == 0 && *at != EventId::terminal(info.epoch) => {
            Position::Newest
        }
        seen => Position::of(seen),
    }
}
