//! Rejects requests: counts them, logs hints about mistakes in the application's set-up, and makes the answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::Response;

use super::{Node, head::Head, reject::Rejection};
use crate::{
    model::id::StreamId,
    telemetry::{add, log_alert},
};

impl Node {
    /// Returns the rejection of a path in which a service finds no name: a relay without an identifier, or one whose path
    /// template does not match.
    pub(crate) fn no_stream_name(&self, service: &'static str, path: &str) -> Rejection {
        if let Some(requests) = self.no_stream_name.due() {
            log_alert!(
                service = service,
                path = path,
                requests = requests,
                "a service finds no name of a stream or a conversation in this path: set its identifier (such as `Relay::id`), or mend its path template"
            );
        }
        Rejection::NotFound
    }

    /// Reports an event stream that passes unrecorded because the route's path template does not match the request's path.
    pub(crate) fn unmatched(&self, path: &str) {
        if let Some(requests) = self.unmatched.due() {
            log_alert!(
                path = path,
                requests = requests,
                "an event stream is not recorded: the layer's path template does not match this path, and has matched none so far"
            );
        }
    }

    /// Reports a stream that belongs to no conversation although its route has conversations: the route's path template
    /// for conversations does not match the request's path.
    pub(crate) fn no_conversation(&self, path: &str) {
        if let Some(requests) = self.no_conversation.due() {
            log_alert!(
                path = path,
                requests = requests,
                "a stream is a turn of no conversation: the route's path template for conversations does not match this path"
            );
        }
    }

    /// Returns the rejection of a request on a route of the kind `asks` for a stream that a route of the kind `kind`
    /// produces.
    pub(crate) fn other_kind(&self, id: &StreamId, asks: &str, kind: Cow<'static, str>) -> Rejection {
        if let Some(requests) = self.shared_ids.due() {
            log_alert!(
                stream = id.as_str(),
                route = asks,
                producer = &*kind,
                requests = requests,
                "a request names a stream that a route of another kind produces: two routes share ids"
            );
        }
        Rejection::OtherKind { kind }
    }

    pub(crate) fn reject(&self, rejection: &Rejection, head: &Head) -> Response<Bytes> {
        self.reject_with(rejection, head, rejection.response())
    }

    /// Rejects a request like [`reject`](Self::reject), with the caller's response in place of the rejection's own.
    pub(crate) fn reject_with(&self, rejection: &Rejection, head: &Head, response: Response<Bytes>) -> Response<Bytes> {
        add(&self.telemetry.rejected, 1);
        self.rejecter.shape(rejection, head, response)
    }
}
