//! Cursors: event ids as clients see and send them.

use std::fmt;

use super::{EventId, StreamId};

/// An event id as a client sees it: prefixed with the stream's id if the library generated that id.
///
/// An `EventSource` reconnects to the URL it was opened with, so only the cursor can name a stream with a generated id.
///
/// Cursors are ordered by their events: epochs rise with time, so the greater one is the newer one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) at: EventId,
    pub(crate) stream: Option<StreamId>,
}

impl Cursor {
    /// Reads a cursor; `None` for any text that [`CursorWriter`] does not write.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // Stream ids may hold dots, event ids do not.
        let (stream, at) = match text.rsplit_once('.') {
            Some((stream, at)) => (Some(StreamId::new(stream).ok()?), at),
            None => (None, text),
        };
        Some(Self { stream, at: at.parse().ok()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stream {
            Some(stream) => write!(f, "{stream}.{}", self.at),
            None => self.at.fmt(f),
        }
    }
}

/// Writes event ids in their wire form. The part that the ids of a run share is written once.
#[derive(Debug)]
pub(crate) struct CursorWriter {
    stream: Option<StreamId>,
    text: Vec<u8>,
    /// The epoch that `text` is written for, and the length of the part that all ids of that epoch share.
    stem: Option<(u64, usize)>,
    /// The seq of the last id written.
    seq: u64,
}

impl CursorWriter {
    /// Creates a writer; `stream` is the prefix of every id.
    pub(crate) fn new(stream: Option<StreamId>) -> Self {
        Self { stream, text: Vec::new(), stem: None, seq: 0 }
    }

    /// Returns the greatest length of an id, in bytes.
    pub(crate) fn max_len(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.as_str().len() + 1) + 2 * DIGITS + 2
    }

    /// Writes an event id and returns its text.
    pub(crate) fn write(&mut self, id: EventId) -> &[u8] {
        let stem = self.stem.filter(|(epoch, _)| *epoch == id.epoch);
        let follows = stem.is_some() && self.seq.checked_add(1) == Some(id.seq);
        if !follows || !self.count_on() {
            match stem {
                Some((_, len)) => self.text.truncate(len),
                None => self.begin(id.epoch),
            }
            push_decimal(id.seq, &mut self.text);
        }
        self.seq = id.seq;
        &self.text
    }

    /// Increments the last digit in place, which suffices for nine ids in ten. Returns `false`, with nothing changed,
    /// if the digit is a 9.
    fn count_on(&mut self) -> bool {
        let last = self.text.last_mut().filter(|digit| **digit < b'9');
        last.map(|digit| *digit += 1).is_some()
    }

    fn begin(&mut self, epoch: u64) {
        self.text.clear();
        if let Some(stream) = &self.stream {
            self.text.extend_from_slice(stream.as_str().as_bytes());
            self.text.push(b'.');
        }
        self.text.push(b'e');
        push_decimal(epoch, &mut self.text);
        self.text.push(b'-');
        self.stem = Some((epoch, self.text.len()));
    }
}

/// The number of digits of the greatest `u64`.
const DIGITS: usize = 20;

/// Appends a decimal number. `fmt` is not used: it costs more than the rest of delivering a small event.
fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] += (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}
