//! The headers of what the library answers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::id::StreamId;

/// Names the stream that a response belongs to.
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");
/// `false` where an event stream is not protected.
pub(crate) const STREAM_RECORDED: HeaderName = HeaderName::from_static("x-stream-recorded");
/// The silence, in seconds, after which a body sends a heartbeat: a client's watchdog is set by it.
const STREAM_HEARTBEAT: HeaderName = HeaderName::from_static("x-stream-heartbeat");
/// Has nginx and its like pass events on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The cursor with which an `EventSource` reconnects (WHATWG HTML § 9.2.4).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Nobody between here and the client may keep or change it.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
}

/// Sets `X-Stream-Heartbeat`: the silence after which a body sends a heartbeat.
pub(crate) fn heartbeat(headers: &mut HeaderMap, every: Duration) {
    // A `Duration`'s seconds as a decimal number are always a header value.
    if let Ok(seconds) = HeaderValue::from_str(&every.as_secs_f64().to_string()) {
        headers.insert(STREAM_HEARTBEAT, seconds);
    }
}

/// The headers of every event stream that the library has a hand in.
pub(crate) fn event_stream(headers: &mut HeaderMap, id: Option<&StreamId>, every: Duration) {
    no_store(headers);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.remove(header::CONTENT_LENGTH);
    heartbeat(headers, every);
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        headers.insert(STREAM_ID, id);
    }
}
