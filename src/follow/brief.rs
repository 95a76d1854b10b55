//! Answers without a stream: come again, nothing left, which methods there are.
//!
//! Every answer to a client that cannot be served now is made by [`come_again`].

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
