//! The answers of services that run no inner service: a text, or a followed stream.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};

use super::{body::FollowBody, closing::Closing, request::FollowRequest};
use crate::{
    model::{error::BodyError, kept::KeptHeaders},
    node::{
        Node,
        headers::{event_stream, give_again},
    },
    runtime::executor::BoxFuture,
};

/// The response future of [`Recover`](crate::Recover), [`Relay`](crate::Relay), [`Resume`](crate::Resume) and
/// [`Stop`](crate::Stop).
///
/// # Cancel safety
///
/// The futures of recover, relay and resume only read, so dropping one changes nothing. If the future of a stop is
/// dropped, the stream may or may not be stopped.
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

/// The response body of [`Recover`](crate::Recover), [`Relay`](crate::Relay), [`Resume`](crate::Resume) and
/// [`Stop`](crate::Stop).
///
/// An event stream in it ends cleanly only after the stream's terminal event. Otherwise the body breaks with a
/// [`BodyError`].
#[derive(Debug)]
pub struct AnswerBody(State);

#[derive(Debug)]
enum State {
    Full(Option<Bytes>),
    /// Gives the bytes, then breaks.
    Breaking(Option<Bytes>, Closing),
    Follow(Box<FollowBody>),
}

impl AnswerBody {
    /// Returns a response that follows a stream.
    pub(crate) async fn follow(node: &Arc<Node>, request: FollowRequest, kept: &KeptHeaders) -> Response<Self> {
        let (id, heartbeat) = (request.key.id.clone(), request.manner.heartbeat);
        let body = FollowBody::announced(node, request).await;
        let mut response = Response::new(Self(State::Follow(Box::new(body))));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(node.framing.content_type()));
        give_again(headers, kept);
        event_stream(headers, Some(&id), heartbeat);
        response
    }

    /// Returns a body that gives the bytes, then breaks.
    pub(crate) fn breaking(bytes: Bytes, error: BodyError) -> Self {
        Self(State::Breaking(Some(bytes).filter(|bytes| !bytes.is_empty()), Closing::broken(error)))
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(State::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.0 {
            State::Full(bytes) => Poll::Ready(bytes.take().map(Ok)),
            State::Breaking(bytes, closing) => match bytes.take() {
                Some(bytes) => Poll::Ready(Some(Ok(bytes))),
                None => closing.poll(cx).map(|error| error.map(Err)),
            },
            State::Follow(follow) => follow.poll_bytes(cx),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll_bytes(cx).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Full(bytes) => bytes.is_none(),
            State::Breaking(bytes, closing) => bytes.is_none() && closing.is_over(),
            State::Follow(follow) => follow.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            State::Follow(_) | State::Breaking(..) => SizeHint::default(),
        }
    }
}
