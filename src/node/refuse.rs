//! Rejects requests: counts them, logs hints about mistakes in the application's set-up, and makes the answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::Response;

use super::{Node, head::Head, reject::Rejection};
use crate::{
    model::id::StreamId,
    telemetry::{add, log_alert, log_error},
};

impl Node {
    /// Returns the rejection of a path in which a relay without an identifier cannot find the stream's name.
    pub(crate) fn unnamed(&self, path: &str) -> Rejection {
        if let Some(requests) = self.unnamed.due() {
            log_error!(
                path = path,
                requests = requests,
                "a relay cannot find a stream's name in this path: set `Relay::id`"
            );
        }
        Rejection::NotFound
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
