//! Writes blocks for clients.

use std::sync::LazyLock;

use bytes::BytesMut;
use memchr::memmem::Finder;

use super::lines::{BOM, Lines, is_field};

/// The most bytes that delivery adds to a block and its id: a `retry` line or a comment, `id: `, and line ends.
const ADDED: usize = "retry: \n".len() + DIGITS + "id: \n\n\n".len();

/// The number of digits of the greatest `u64`.
const DIGITS: usize = 20;

/// Writes a block as one whole event, see [`Framing::deliver`](super::Framing::deliver).
///
/// The id is the last line, because some clients store an id as soon as they read its line. If the connection breaks
/// inside the event, they would skip the event on reconnect.
#[inline]
pub(super) fn deliver(block: &[u8], has_id: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut) {
    out.reserve(block.len() + id.map_or(0, <[u8]>::len) + ADDED);
    match retry {
        Some(ms) => write_retry(ms, out),
        // A client drops a byte order mark at the start of the stream, which would change the field name of this line.
        // An empty comment in front keeps the mark.
        None if block.starts_with(BOM) => out.extend_from_slice(b":\n"),
        None => {}
    }
    // The last byte is taken from the block, because reading back bytes that were just written is slow.
    let last = if has_id { write_without_ids(block, out) } else { write(block, out) };
    match (id, last) {
        (Some(id), Some(b'\n' | b'\r') | None) => write_id(b"id: ", id, out),
        (Some(id), Some(_)) => write_id(b"\nid: ", id, out),
        (None, Some(b'\n')) => out.extend_from_slice(b"\n"),
        // A client reads a line feed after a carriage return as part of the same line end, so a second one is needed.
        (None, _) => out.extend_from_slice(b"\n\n"),
    }
}

/// Writes the part of an event before its id, see [`Framing::deliver_around`](super::Framing::deliver_around).
pub(super) fn deliver_around(block: &[u8], has_id: bool, out: &mut BytesMut) -> &'static [u8] {
    const END: &[u8] = b"\n\n";
    deliver(block, has_id, Some(b""), None, out);
    out.truncate(out.len() - END.len());
    END
}

/// Returns the length in bytes of the first delivered event.
pub(super) fn first(events: &[u8]) -> usize {
    static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));
    END.find(events).map_or(events.len(), |at| at + END.needle().len())
}

#[inline]
fn write_id(field: &[u8], id: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(field);
    out.extend_from_slice(id);
    out.extend_from_slice(b"\n\n");
}

/// Writes a piece of a block and returns its last byte.
#[inline]
fn write(piece: &[u8], out: &mut BytesMut) -> Option<u8> {
    out.extend_from_slice(piece);
    piece.last().copied()
}

/// Writes the lines that are not ids and returns the last byte written.
fn write_without_ids(block: &[u8], out: &mut BytesMut) -> Option<u8> {
    // The lines between two ids are written in one piece.
    let (mut kept, mut at, mut last) = (0, 0, None);
    for line in Lines::of(block) {
        let next = at + line.whole.len();
        if is_field(line.text, b"id") {
            last = write(&block[kept..at], out).or(last);
            kept = next;
        }
        at = next;
    }
    write(&block[kept..], out).or(last)
}

/// Writes a `retry` line.
pub(super) fn write_retry(ms: u64, out: &mut BytesMut) {
    let mut digits = [0; DIGITS];
    let (mut at, mut rest) = (DIGITS, ms);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(block: &str, has_id: bool, id: Option<&str>, retry: Option<u64>) -> String {
        let mut out = BytesMut::new();
        deliver(block.as_bytes(), has_id, id.map(str::as_bytes), retry, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn id_is_last_and_retry_first() {
        assert_eq!(
            delivered("event: a\ndata: b\n", false, Some("1-2"), Some(2000)),
            "retry: 2000\nevent: a\ndata: b\nid: 1-2\n\n"
        );
    }

    #[test]
    fn only_the_blocks_ids_are_left_out() {
        let block = "id: 1\ndata: a\r\nid\r\nidx: y\nid:2\r:c\nid\0: 3\nid: 4\n";
        let rest = "data: a\r\nidx: y\n:c\nid\0: 3\n";
        assert_eq!(delivered(block, true, Some("9"), None), format!("{rest}id: 9\n\n"));
        assert_eq!(delivered(block, true, None, None), format!("{rest}\n"));
        assert_eq!(delivered(block, false, None, None), format!("{block}\n"));
    }

    #[test]
    fn an_event_always_ends() {
        assert_eq!(delivered("data: a\r", false, Some("1"), None), "data: a\rid: 1\n\n");
        assert_eq!(delivered("data: a\r", false, None, None), "data: a\r\n\n");
        assert_eq!(delivered("data: a\rid: 1\n", true, None, None), "data: a\r\n\n");
        assert_eq!(delivered("data: a", false, Some("1"), None), "data: a\nid: 1\n\n");
        assert_eq!(delivered("data: a", false, None, None), "data: a\n\n");
    }

    #[test]
    fn a_byte_order_mark_is_never_a_streams_first() {
        assert_eq!(delivered("\u{feff}event: a\ndata: b\n", false, None, None), ":\n\u{feff}event: a\ndata: b\n\n");
        assert_eq!(delivered("\u{feff}x\ndata: b\n", true, None, Some(1)), "retry: 1\n\u{feff}x\ndata: b\n\n");
    }

    #[test]
    fn an_event_around_an_id_is_that_event() {
        for (block, has_id) in
            [("event: a\ndata: b\n", false), ("data: a\r", false), ("data: a\rid: 1\n", true), ("data", false)]
        {
            let mut out = BytesMut::new();
            let rest = deliver_around(block.as_bytes(), has_id, &mut out);
            out.extend_from_slice(b"e5-6");
            out.extend_from_slice(rest);
            assert_eq!(out, delivered(block, has_id, Some("e5-6"), None).as_bytes());
        }
    }

    #[test]
    fn events_in_a_row_are_told_apart() {
        let blocks =
            [("event: a\r\ndata: b\r\n", Some("1")), ("data: a\r", None), ("data: a\r", Some("3")), ("data: x", None)];
        let events: Vec<_> = blocks.iter().map(|(block, id)| delivered(block, false, *id, None)).collect();
        let row = events.concat();
        let mut rest = row.as_bytes();
        for event in &events {
            let (one, others) = rest.split_at(first(rest));
            assert_eq!(one, event.as_bytes());
            rest = others;
        }
        assert_eq!((rest.len(), first(b"torn"), first(b"")), (0, 4, 0));
    }

    #[test]
    fn delays_are_written_in_full() {
        for ms in [0, 9, 10, 2000, u64::MAX] {
            let mut out = BytesMut::new();
            write_retry(ms, &mut out);
            assert_eq!(out, format!("retry: {ms}\n").as_bytes());
        }
    }
}
