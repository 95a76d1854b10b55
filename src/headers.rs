//! The headers of what the library answers.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::id::StreamId;

/// Names the stream that a response belongs to.
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");
/// `false` where an event stream is not protected.
pub(crate) const STREAM_RECORDED: HeaderName = HeaderName::from_static("x-stream-recorded");
/// Has nginx and its like pass events on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The cursor with which an `EventSource` reconnects (WHATWG HTML § 9.2.4).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Nobody between here and the client may keep or change it.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
}

/// The headers of every event stream that the library has a hand in.
pub(crate) fn event_stream(headers: &mut HeaderMap, id: &StreamId) {
    no_store(headers);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.remove(header::CONTENT_LENGTH);
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(STREAM_ID, id);
    }
}
