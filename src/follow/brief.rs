//! Answers without a stream: "come again", 204, and the allowed methods.
//!
//! [`come_again`] makes every answer to a client that cannot be served now.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};

use super::answer::AnswerBody;
use crate::{
    model::{error::BodyError, id::StreamId},
    node::{
        Node,
        head::Head,
        headers::{event_stream, no_store},
        reject::Rejection,
    },
};

/// Returns the response that makes a client reconnect, since it cannot be served now.
///
/// A browser's `EventSource` gives up for good on any status but 200, so a request that asks for an event stream
/// `by_name` gets 200, `retry:` and a body that breaks. Any other client gets 503 with `Retry-After`.
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

/// Returns the 204 for a client that has everything. An `EventSource` does not reconnect after 204.
pub(crate) fn no_content(node: &Node) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    no_store(response.headers_mut());
    crate::node::headers::heartbeat(response.headers_mut(), node.settings.heartbeat);
    response
}

/// Returns the response to OPTIONS, which lists the allowed methods.
pub(crate) fn options(node: &Node) -> Response<AnswerBody> {
    let mut response = no_content(node);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}
