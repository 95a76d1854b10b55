//! The service that stops the running stream of a conversation.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use tower_service::Service;

use super::conversation;
use crate::{
    conversation::{Current, stream_of},
    follow::{AnswerBody, AnswerFuture, brief::no_content},
    model::{
        error::StoreError,
        id::{StreamId, StreamKey},
        stream::reason,
    },
    node::{
        Node,
        head::Head,
        headers::{no_store, stream_id},
        reject::Rejection,
        request::parameter,
        stop::Stopped,
    },
    recorder::{Lane, Status},
    route::identify::Identify,
};

const METHODS: HeaderValue = HeaderValue::from_static("DELETE, POST, OPTIONS");

/// The stop service of a hub: see [`ResilientSse::stop`](crate::ResilientSse::stop).
///
/// `DELETE` and `POST` stop the conversation's running stream, on whatever node it runs. The stream ends as
/// `cancelled`, reason `stopped`. The answer is 202, and its `X-Stream-Id` names the stream. If no stream runs, the
/// answer is 404. If the store may have lost the stream because it was emptied, the answer is 503.
///
/// `?stream=<id>` stops only that stream. If a later turn has replaced it, nothing is stopped, so that a late stop does
/// not end the later turn. A turn whose handler has not answered has not replaced the turn before it yet, so both are
/// stopped.
///
/// Another owner's conversation, and a conversation that [`Builder::authorize`](crate::Builder::authorize) denies, is
/// answered with 404. OPTIONS is answered with the allowed methods, and any other method with 405.
///
/// ```
/// use axum::{Router, routing::delete_service};
/// use resilient_sse::{ResilientSse, StreamId};
///
/// fn stopping(sse: &ResilientSse) -> Router {
///     let stop = sse.stop().conversation(StreamId::path("/chat/{id}/stream"));
///     Router::new().route("/chat/{id}/stream", delete_service(stop))
/// }
/// ```
#[derive(Clone)]
pub struct Stop {
    node: Arc<Node>,
    conversation: Arc<dyn Identify>,
}

impl Stop {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, conversation: Arc::new(StreamId::path("/{id}/stream")) }
    }

    /// Sets the identifier that finds a request's conversation. Default: the segment before `stream` at the path's end
    /// (`/{id}/stream`).
    #[must_use]
    pub fn conversation(mut self, identify: impl Identify) -> Self {
        self.conversation = Arc::new(identify);
        self
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

impl<B> Service<Request<B>> for Stop {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        let (parts, _) = request.into_parts();
        let stop = self.clone();
        AnswerFuture(Box::pin(async move {
            let head = stop.node.head(&parts);
            match stop.answer(&parts, &head).await {
                Ok(response) => response,
                Err(rejection) => stop.rejected(&rejection, &head).map(AnswerBody::full),
            }
        }))
    }
}

impl Stop {
    fn rejected(&self, rejection: &Rejection, head: &Head) -> Response<Bytes> {
        let mut response = rejection.response();
        if *rejection == Rejection::MethodNotAllowed {
            response.headers_mut().insert(header::ALLOW, METHODS);
        }
        self.node.reject_with(rejection, head, response)
    }

    async fn answer(&self, parts: &Parts, head: &Head) -> Result<Response<AnswerBody>, Rejection> {
        match parts.method {
            Method::DELETE | Method::POST => {}
            Method::OPTIONS => {
                let mut response = no_content(&self.node);
                response.headers_mut().insert(header::ALLOW, METHODS);
                return Ok(response);
            }
            _ => return Err(Rejection::MethodNotAllowed),
        }
        let conversation = conversation(&self.node, &self.conversation, parts)?;
        let only = parameter(parts, "stream");
        let (mut stopped, mut failed) = (None, None);
        for stream in self.running(&conversation).await.map_err(|_| Rejection::Unavailable)? {
            if only.as_ref().is_some_and(|only| only != stream.as_str()) {
                continue;
            }
            match self.stop(&conversation, &stream, head).await {
                Ok(is_stopped) => stopped = stopped.or(is_stopped.then_some(stream)),
                Err(rejection) => failed = failed.or(Some(rejection)),
            }
        }
        match (stopped, failed) {
            (Some(stream), _) => Ok(accepted(&stream)),
            (None, Some(rejection)) => Err(rejection),
            // After the store was emptied, the stream's producer may be about to register it again.
            (None, None) if !matches!(self.node.ask_whether_forgotten().await, Ok(false)) => {
                Err(Rejection::Unavailable)
            }
            (None, None) => Err(Rejection::NotFound),
        }
    }

    /// Stops a stream of the conversation. Returns whether the stream was running.
    async fn stop(&self, conversation: &StreamKey, stream: &StreamId, head: &Head) -> Result<bool, Rejection> {
        let key = stream_of(conversation, stream);
        self.node.authorize_in(&key, Some(&conversation.id), head).await?;
        match self.node.stop(&key, reason::STOPPED).await {
            Ok(stopped) => Ok(matches!(stopped, Stopped::Now(_))),
            Err(_) => Err(Rejection::Unavailable),
        }
    }

    /// Returns the streams of the conversation that may be running: the newest turn and, until that has started, the
    /// turns that it will replace. If the store does not answer, or knows no turn, these are the running streams of
    /// this node.
    async fn running(&self, conversation: &StreamKey) -> Result<Vec<StreamId>, StoreError> {
        let current = self.node.current(conversation).await;
        if let Ok(Some(Current { pointer, info })) = current {
            let behind = if info.started { Vec::new() } else { pointer.behind };
            return Ok(std::iter::once(pointer.stream).chain(behind).collect());
        }
        let is_meant = |lane: &Arc<Lane>| {
            lane.turn().is_some_and(|turn| turn.conversation == *conversation) && lane.status() == Status::Running
        };
        let here: Vec<_> = self.node.recorder.lanes().into_iter().filter(is_meant).collect();
        match current {
            Err(error) if here.is_empty() => Err(error),
            _ => Ok(here.iter().map(|lane| lane.key.id.clone()).collect()),
        }
    }
}

fn accepted(stream: &StreamId) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::ACCEPTED;
    no_store(response.headers_mut());
    stream_id(response.headers_mut(), stream);
    response
}
