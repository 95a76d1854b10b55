//! Frames: consecutive events of one run in their wire form.
//!
//! A batch of events is written once. The client receives these bytes, the store keeps them, and followers on every
//! node write them to their sockets. Code that needs single events splits a frame.

use bytes::{Bytes, BytesMut};

use super::Framing;
use crate::model::{
    id::{CursorWriter, EventId, StreamId},
    stream::{Frame, Record, RecordKind},
};

/// Writes the events of one run.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    id: CursorWriter,
    /// Whether events get ids. Events of a stream that could not be registered get none, because no node could serve a
    /// client that reconnects with such an id.
    has_ids: bool,
}

impl FrameWriter {
    /// Creates a writer. `prefix` is the id of a stream whose id the library generated; it precedes every event id.
    pub(crate) fn new(prefix: Option<StreamId>) -> Self {
        Self { id: CursorWriter::new(prefix), has_ids: true }
    }

    pub(crate) fn without_ids() -> Self {
        Self { has_ids: false, ..Self::new(None) }
    }

    /// Writes a block as the event with this id.
    pub(crate) fn write(&mut self, framing: &dyn Framing, block: &[u8], has_id: bool, id: EventId, out: &mut BytesMut) {
        let id = if self.has_ids { Some(self.id.write(id)) } else { None };
        framing.deliver(block, has_id, id, None, out);
    }

    /// Returns a frame with one event.
    pub(crate) fn one(&mut self, framing: &dyn Framing, block: &[u8], has_id: bool, id: EventId) -> Frame {
        let mut out = BytesMut::with_capacity(block.len() + self.id.max_len() + ADDED);
        self.write(framing, block, has_id, id, &mut out);
        Frame { count: 1, bytes: exact(&out) }
    }
}

/// The most bytes that delivery adds to an event and its id.
const ADDED: usize = 16;

/// Copies bytes into an allocation of exactly their size, so that keeping them does not keep a larger buffer alive.
pub(crate) fn exact(bytes: &[u8]) -> Bytes {
    Bytes::from(Box::<[u8]>::from(bytes))
}

/// Returns the length of the first event: at least one byte, so that loops over events end.
fn first(framing: &dyn Framing, events: &[u8]) -> usize {
    framing.first(events).clamp(1.min(events.len()), events.len())
}

/// Iterates over the events of a frame, oldest first.
pub(crate) fn events<'a>(framing: &'a dyn Framing, frame: &'a Frame) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = &frame.bytes[..];
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (event, others) = rest.split_at(first(framing, rest));
        rest = others;
        Some(event)
    })
}

/// Returns a frame's bytes without its first events. Complexity: O(bytes of those events).
pub(crate) fn without_first(framing: &dyn Framing, frame: &Frame, events: u64) -> Bytes {
    let mut at = 0;
    for _ in 0..events {
        if at == frame.bytes.len() {
            break;
        }
        at += first(framing, &frame.bytes[at..]);
    }
    frame.bytes.slice(at..)
}

/// Splits an entry of a log into entries of one event each. An entry without events is returned unchanged.
///
/// Events that were recorded together share an entry. Complexity: O(bytes of the entry); nothing is copied.
#[must_use]
pub fn single_events(framing: &dyn Framing, record: Record) -> Vec<Record> {
    let RecordKind::Events(frame) = &record.kind else { return vec![record] };
    let begins = record.first();
    let one = |(event, seq)| {
        let frame = Frame { count: 1, bytes: frame.bytes.slice_ref(event) };
        Record { id: EventId::new(begins.epoch, seq), at: record.at, kind: RecordKind::Events(frame) }
    };
    events(framing, frame).zip(begins.seq..=record.id.seq).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Sse;

    fn frame(blocks: &[&str]) -> Frame {
        let mut writer = FrameWriter::new(None);
        let mut out = BytesMut::new();
        for (block, seq) in blocks.iter().zip(1..) {
            writer.write(&Sse, block.as_bytes(), true, EventId::new(5, seq), &mut out);
        }
        Frame { count: blocks.len() as u64, bytes: exact(&out) }
    }

    #[test]
    fn a_frame_is_taken_apart_into_what_was_written() {
        let frame = frame(&["data: a\nid: 7\n", "data: b\r", "event: x\ndata: c"]);
        let written = ["data: a\nid: e5-1\n\n", "data: b\rid: e5-2\n\n", "event: x\ndata: c\nid: e5-3\n\n"];
        assert!(events(&Sse, &frame).eq(written.map(str::as_bytes)));
        for skipped in 0..=4 {
            assert_eq!(without_first(&Sse, &frame, skipped as u64), written[skipped.min(3)..].concat());
        }
        let record = Record { id: EventId::new(5, 3), at: 9, kind: RecordKind::Events(frame) };
        for (one, (seq, event)) in single_events(&Sse, record).into_iter().zip((1..).zip(written)) {
            assert_eq!((one.id, one.at), (EventId::new(5, seq), 9));
            assert_eq!(one.kind, RecordKind::Events(Frame { count: 1, bytes: Bytes::from(event) }));
        }
    }

    #[test]
    fn events_that_nobody_can_come_back_to_have_no_ids() {
        let mut writer = FrameWriter::without_ids();
        let frame = writer.one(&Sse, b"data: a\nid: 7\n", true, EventId::new(5, 1));
        assert_eq!(frame, Frame { count: 1, bytes: Bytes::from("data: a\n\n") });
    }

    #[test]
    fn a_torn_frame_is_read_to_its_end_and_no_further() {
        let torn = Frame { count: 3, bytes: Bytes::from("data: a\nid: e5-1\n\ndata: b") };
        assert_eq!(events(&Sse, &torn).count(), 2);
        assert_eq!(without_first(&Sse, &torn, 3), "");
        assert_eq!(without_first(&Sse, &torn, u64::MAX), "");
        let all = Record {
            id: EventId::new(5, u64::MAX),
            at: 0,
            kind: RecordKind::Events(Frame { count: u64::MAX, ..torn.clone() }),
        };
        assert_eq!((all.first(), single_events(&Sse, all).len()), (EventId::new(5, 1), 2));
        let record = Record { id: EventId::new(5, 3), at: 0, kind: RecordKind::Events(torn) };
        assert_eq!(single_events(&Sse, record).len(), 2, "what is not there is a gap");
    }
}
