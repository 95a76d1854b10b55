//! How a body ends, and how a client is told to come again (guarantee G12).
//!
//! Every body of the library ends through [`finish`], and every answer to a client that cannot be served now is made by
//! [`come_again`].

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::Sleep;

use super::AnswerBody;
use crate::{
    model::{
        error::{BodyError, BoxError},
        id::StreamId,
        stream::{Ended, StreamState},
    },
    node::{
        Node,
        headers::{event_stream, no_store},
        owner::Head,
        reject::Rejection,
    },
    route::speaker::Speaker,
};

/// How long a body waits after its last frame before it breaks.
///
/// An error in the same poll as a frame makes hyper drop that frame, and the head too if it was not flushed yet. Measured
/// with axum 0.8 and curl: after 10 ms the frame arrives in 40 of 40 tries over HTTP/1.1 and in 32 of 40 over HTTP/2; after
/// 50 ms in all of them.
const FLUSH: Duration = Duration::from_millis(100);

/// The way in which a body ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The stream has ended.
    Stream {
        ended: Ended,
        /// The inner body's error, where that is why.
        cause: Option<BoxError>,
    },
    /// The stream has not ended: this is why its body does.
    Unfinished(BodyError),
}

impl End {
    pub(crate) fn of(ended: Ended) -> Self {
        Self::Stream { ended, cause: None }
    }
}

/// Writes a body's last words, and decides how it ends: cleanly after the stream's terminal event, else broken.
///
/// `endless`: the body is that of a `feed()` route, which never finishes, and whose clients expect a clean end.
pub(crate) fn finish(speaker: &mut Speaker, end: End, endless: bool) -> Closing {
    let error = match end {
        End::Stream { ended, cause } => {
            let told = speaker.end(&ended);
            // A client that takes the end of the body for the end of the answer is right about this one.
            if told || ended.ending.state == StreamState::Completed {
                return Closing::clean();
            }
            let (state, reason) = (ended.ending.state, ended.ending.reason);
            BodyError::Ended { state, reason, source: cause }
        }
        End::Unfinished(error) => error,
    };
    if endless {
        speaker.retry_only();
        return Closing::clean();
    }
    speaker.unfinished(&error);
    Closing::broken(error)
}

/// The rest of a body whose last words are written.
#[derive(Debug)]
pub(crate) struct Closing {
    error: Option<BodyError>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Closing {
    /// The body ends.
    pub(crate) fn clean() -> Self {
        Self { error: None, wait: None }
    }

    /// The body breaks, once the transport has had time to deliver the frames before.
    pub(crate) fn broken(error: BodyError) -> Self {
        Self { error: Some(error), wait: None }
    }

    /// The body's end: to be polled only when every frame was given.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<BodyError>> {
        if self.error.is_none() {
            return Poll::Ready(None);
        }
        let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(self.error.take())
    }

    /// Whether nothing more will be given, not even an error.
    pub(crate) fn is_over(&self) -> bool {
        self.error.is_none()
    }
}

/// Tells a client that cannot be served now to reconnect.
///
/// A browser's `EventSource` gives up for good on any status but 200, so a request that asks for an event stream `by_name` gets
/// 200, `retry:` and a body that breaks. Any other client gets 503 with `Retry-After`.
pub(crate) fn come_again(node: &Node, id: Option<&StreamId>, by_name: bool, head: &Head) -> Response<AnswerBody> {
    if !by_name {
        return node.reject(&Rejection::ComeAgain, head).map(AnswerBody::full);
    }
    let mut line = BytesMut::new();
    node.framing.retry(node.retry(), &mut line);
    let mut response = Response::new(AnswerBody::breaking(line.freeze(), BodyError::ComeAgain));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(node.framing.content_type()));
    event_stream(headers, id, node.settings.heartbeat);
    response
}

/// Tells a client that it has everything: an `EventSource` does not reconnect after 204.
pub(crate) fn no_content(node: &Node) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    no_store(response.headers_mut());
    crate::node::headers::heartbeat(response.headers_mut(), node.settings.heartbeat);
    response
}

/// Says which methods a service answers.
pub(crate) fn options(node: &Node) -> Response<AnswerBody> {
    let mut response = no_content(node);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}
