//! Answers that no inner service has a part in: a text, or a stream that is followed.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use super::{FollowBody, FollowRequest};
use crate::{
    headers::{event_stream, no_store},
    hub::Core,
    store::handle::BoxFuture,
};

/// The answer of [`Recover`](crate::Recover) and [`Relay`](crate::Relay).
///
/// # Cancel safety
///
/// Both only read: dropped at any point, nothing has changed.
#[must_use = "futures do nothing unless polled"]
pub struct AnswerFuture(pub(crate) BoxFuture<Response<AnswerBody>>);

impl Future for AnswerFuture {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for AnswerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerFuture")
    }
}

/// The body of [`Recover`](crate::Recover)'s and [`Relay`](crate::Relay)'s answers.
#[derive(Debug)]
pub struct AnswerBody(State);

#[derive(Debug)]
enum State {
    Full(Option<Bytes>),
    Follow(Box<FollowBody>),
}

impl AnswerBody {
    /// Follows a stream.
    pub(crate) fn follow(core: &Arc<Core>, request: FollowRequest) -> Response<Self> {
        let id = request.key.id.clone();
        let mut response = Response::new(Self(State::Follow(Box::new(FollowBody::new(core, request)))));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(core.framing.content_type()));
        event_stream(headers, &id);
        response
    }

    /// Finished, all delivered: an `EventSource` does not come again.
    pub(crate) fn no_content() -> Response<Self> {
        let mut response = Response::new(Self::full(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        no_store(response.headers_mut());
        response
    }

    /// Which methods there are.
    pub(crate) fn options() -> Response<Self> {
        let mut response = Self::no_content();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        response
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(State::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.0 {
            State::Full(bytes) => Poll::Ready(bytes.take()),
            State::Follow(follow) => follow.poll_bytes(cx),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Full(bytes) => bytes.is_none(),
            State::Follow(follow) => follow.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            State::Follow(_) => SizeHint::default(),
        }
    }
}
