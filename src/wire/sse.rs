//! Server-sent events as a [`Framing`].

use bytes::{Bytes, BytesMut};

use super::{
    EncodeError, EventView, Framing, Scan, deliver, encode::encode, lines::retry_in, mime::is_event_stream,
    scan::SseScan, view::view,
};
use crate::model::event::Event;

/// Server-sent events, `text/event-stream` (WHATWG HTML § 9.2).
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use resilient_sse::wire::{Framing, Scanned, Sse};
///
/// let mut scanner = Sse.scanner(1 << 20);
/// scanner.push(Bytes::from_static(b": hi\ndata: {\"n\":1}\nid: 7\n\nda"));
///
/// let mut out = BytesMut::new();
/// while let Some(found) = scanner.next()? {
///     match found {
///         Scanned::Event(block) => Sse.deliver(block.bytes, block.has_id, Some(b"e1-1"), None, &mut out),
///         Scanned::Aside(lines) => out.extend_from_slice(lines),
///         Scanned::Id(_) => {}
///     }
/// }
/// assert_eq!(out, ": hi\ndata: {\"n\":1}\nid: e1-1\n\n");
/// assert_eq!(scanner.pending(), 2);
/// # Ok::<_, resilient_sse::wire::TooLarge>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sse;

impl Framing for Sse {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// Compares the media type without case. Claims no charset other than UTF-8, because browsers refuse any other.
    fn claims(&self, content_type: &str) -> bool {
        is_event_stream(content_type)
    }

    fn scanner(&self, max_block: usize) -> Box<dyn Scan> {
        Box::new(SseScan::new(max_block))
    }

    fn view<'a>(&self, block: &'a [u8]) -> EventView<'a> {
        view(block)
    }

    fn deliver(&self, block: &[u8], has_id: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut) {
        deliver::deliver(block, has_id, id, retry, out);
    }

    fn deliver_around(&self, block: &[u8], has_id: bool, out: &mut BytesMut) -> &'static [u8] {
        deliver::deliver_around(block, has_id, out)
    }

    /// Finds the first blank line, which ends an event and occurs nowhere else.
    fn first(&self, events: &[u8]) -> usize {
        deliver::first(events)
    }

    fn encode(&self, event: &Event) -> Result<Bytes, EncodeError> {
        encode(event)
    }

    /// Returns a comment with a single line end. After a blank line, several clients would dispatch an empty event.
    fn heartbeat(&self) -> &'static [u8] {
        b": heartbeat\n"
    }

    /// Ignores a delay that has anything but digits (WHATWG HTML § 9.2.6).
    fn retry_in(&self, lines: &[u8]) -> Option<u64> {
        retry_in(lines)
    }

    fn retry(&self, ms: u64, out: &mut BytesMut) {
        deliver::write_retry(ms, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_server_sent_events_are_claimed() {
        assert!(Sse.claims(Sse.content_type()) && Sse.claims("text/event-stream; charset=utf8"));
        assert!(!Sse.claims("text/html") && !Sse.claims("text/event-stream; charset=latin1"));
    }

    #[test]
    fn an_event_is_completed_by_what_follows_its_id() {
        let mut out = BytesMut::new();
        let rest = Sse.deliver_around(b"data: a\n", false, &mut out);
        assert_eq!((&out[..], rest), (&b"data: a\nid: "[..], &b"\n\n"[..]));
    }
}
