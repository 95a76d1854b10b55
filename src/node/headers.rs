//! The headers of the library's responses.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::{id::StreamId, kept::KeptHeaders, metadata::METADATA_BYTES};

/// Names the stream that a response belongs to.
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");
/// `false` if an event stream is not recorded.
pub(crate) const STREAM_RECORDED: HeaderName = HeaderName::from_static("x-stream-recorded");
/// The silence, in seconds, after which a body sends a heartbeat. Clients set their watchdogs by it.
pub(crate) const STREAM_HEARTBEAT: HeaderName = HeaderName::from_static("x-stream-heartbeat");
/// Makes nginx and compatible proxies pass events on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The cursor with which an `EventSource` reconnects (WHATWG HTML § 9.2.4).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Forbids caches and proxies to store or change the response.
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

/// Sets the headers of an event stream that the library produces, follows or replays.
pub(crate) fn event_stream(headers: &mut HeaderMap, id: Option<&StreamId>, every: Duration) {
    no_store(headers);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.remove(header::CONTENT_LENGTH);
    heartbeat(headers, every);
    if let Some(id) = id {
        stream_id(headers, id);
    }
}

/// Sets `X-Stream-Id`.
pub(crate) fn stream_id(headers: &mut HeaderMap, id: &StreamId) {
    // An id is always a header value.
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(STREAM_ID, id);
    }
}

/// Returns the headers of a response to keep with its stream: those with these names that are text and fit into the
/// bound.
///
/// The second value is the number of headers that are left out.
pub(crate) fn kept(headers: &HeaderMap, names: &[HeaderName]) -> (KeptHeaders, usize) {
    let (mut kept, mut bytes, mut left_out) = (Vec::new(), 0, 0);
    for name in names {
        for value in headers.get_all(name) {
            let size = name.as_str().len() + value.len();
            match str::from_utf8(value.as_bytes()) {
                Ok(text) if bytes + size <= METADATA_BYTES => {
                    bytes += size;
                    kept.push((name.as_str().to_owned(), text.to_owned()));
                }
                _ => left_out += 1,
            }
        }
    }
    (KeptHeaders::Kept(kept), left_out)
}

/// Adds a stream's kept headers to a response.
pub(crate) fn give_again(headers: &mut HeaderMap, kept: &KeptHeaders) {
    let KeptHeaders::Kept(kept) = kept else { return };
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
}

/// Whether the library or the transport sets a header of this name, so that it cannot be kept.
pub(crate) fn is_set_here(name: &HeaderName) -> bool {
    const SET: [HeaderName; 10] = [
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::DATE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::X_CONTENT_TYPE_OPTIONS,
    ];
    SET.contains(name) || [STREAM_ID, STREAM_RECORDED, STREAM_HEARTBEAT, ACCEL_BUFFERING].contains(name)
}
