//! The request for the inner service.

use http::{HeaderValue, Request};

use super::context::StreamContext;
use crate::node::{headers::LAST_EVENT_ID, request::inner_target};

/// Returns the request for the inner service, with its stream's context.
///
/// `Last-Event-ID` is the last id that the inner service itself gave an event, byte for byte. An id that no header can
/// hold (one with control characters) is only in the context. The library's cursors are removed. A foreign cursor in
/// the query stays.
pub(super) fn inner_request<B>(mut request: Request<B>, context: Option<&StreamContext>) -> Request<B> {
    let own = context.and_then(StreamContext::last_inner_id).filter(|id| !id.is_empty());
    match own.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok()) {
        Some(id) => {
            request.headers_mut().insert(LAST_EVENT_ID, id);
        }
        None => {
            request.headers_mut().remove(LAST_EVENT_ID);
        }
    }
    if let Some(target) = inner_target(request.uri()) {
        *request.uri_mut() = target;
    }
    if let Some(context) = context {
        request.extensions_mut().insert(context.clone());
    }
    request
}
