//! Finds blocks in a stream of server-sent events whose chunks are split at any byte.
//!
//! A block within one chunk is borrowed from the chunk, and found by searching for line ends alone. If a block
//! continues in the next chunk, its beginning is copied to a buffer, and its lines are appended as they arrive.

use std::{mem, ops::Range};

use bytes::{Buf, Bytes};
use memchr::memchr;

use super::{
    Block, Scan, Scanned, TooLarge,
    lines::{BOM, Field, Lines, is_field, line_end, valid_id},
};

/// The greatest capacity of the buffer that is kept for the next block.
const KEPT: usize = 1024;

/// The scanner of one stream of server-sent events.
///
/// The length of a block includes its line ends. A comment before a block is not part of the block, and only its text
/// is limited.
#[derive(Debug)]
pub(super) struct SseScan {
    limit: usize,
    chunk: Bytes,
    /// The offset in `chunk` at which the next block begins, or the held one continues.
    start: usize,
    /// Whether `chunk` has a carriage return.
    has_cr: bool,
    /// Whether the last byte so far is a carriage return. A line feed right after it belongs to the same line end.
    after_cr: bool,
    /// How many bytes of the byte order mark were seen; its full length once the start of the stream is past.
    bom: usize,
    /// The beginning of a block that continues in the next chunk.
    held: Vec<u8>,
    /// Whether `held` was returned to the caller and can be cleared at the next call.
    given: bool,
    /// The offset in `held` of the unfinished line.
    line: usize,
    /// The kinds of fields in the whole lines of `held`.
    seen: Seen,
    /// The lines of a block without data that take effect without an event.
    lines: Vec<u8>,
    /// Whether `lines` are still to be returned, after the id of their block.
    queued: bool,
    failed: bool,
}

/// An item, with the place of its bytes.
enum Item {
    Event(Place, bool),
    Aside(Place),
    Id(Place),
}

enum Place {
    Chunk(Range<usize>),
    Held(Range<usize>),
    Lines,
}

/// The next item in a chunk.
enum Found {
    /// The lines of a block: their start, their end and the kinds of their fields.
    Block(usize, usize, Seen),
    /// Whole comment lines from this offset to [`SseScan::start`].
    Comments(usize),
    /// No whole item.
    Rest,
}

/// The kinds of fields in the lines of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    any: bool,
    data: bool,
    id: bool,
}

impl Seen {
    #[inline]
    fn line(&mut self, text: &[u8]) {
        self.any = true;
        self.data |= is_field(text, b"data");
        self.id |= is_field(text, b"id");
    }
}

impl SseScan {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            start: 0,
            has_cr: false,
            after_cr: false,
            bom: 0,
            held: Vec::new(),
            given: false,
            line: 0,
            seen: Seen::default(),
            lines: Vec::new(),
            queued: false,
            failed: false,
        }
    }

    /// Searches for an item that begins in this chunk.
    fn scan(&mut self) -> Result<Option<Item>, TooLarge> {
        loop {
            let (begin, end, seen) = match self.find() {
                Found::Block(begin, end, seen) => (begin, end, seen),
                Found::Comments(begin) => return Ok(Some(Item::Aside(Place::Chunk(begin..self.start)))),
                Found::Rest => return self.hold_rest(),
            };
            if end - begin > self.limit {
                return self.fail();
            }
            if seen.data {
                return Ok(Some(Item::Event(Place::Chunk(begin..end), seen.id)));
            }
            let id = dataless(&self.chunk[begin..end], &mut self.lines);
            if let Some(found) = self.left(id.map(|id| Place::Chunk(begin + id.start..begin + id.end))) {
                return Ok(Some(found));
            }
        }
    }

    /// Moves to the end of the next block or comment in the chunk.
    #[inline]
    fn find(&mut self) -> Found {
        let bytes = &self.chunk[..];
        let mut at = self.start;
        let mut seen = Seen::default();
        while let Some(&first) = bytes.get(at) {
            if first == b'\n' || first == b'\r' {
                let end = at;
                // The line feed after a carriage return is read as another blank line, which changes nothing.
                at += 1;
                let begin = mem::replace(&mut self.start, at);
                if seen.any {
                    return Found::Block(begin, end, seen);
                }
            } else if first == b':' && !seen.any {
                return self.comments();
            } else {
                let line = &bytes[at..];
                let Some((text, whole)) = line_end(line, self.has_cr) else { break };
                seen.line(&line[..text]);
                at += whole;
            }
        }
        self.line = at - self.start;
        self.seen = seen;
        Found::Rest
    }

    /// Takes the whole comment lines at the current offset.
    fn comments(&mut self) -> Found {
        let begin = self.start;
        while self.chunk.get(self.start) == Some(&b':') {
            match line_end(&self.chunk[self.start..], self.has_cr) {
                Some((text, whole)) if text <= self.limit => self.start += whole,
                _ => break,
            }
        }
        if self.start > begin {
            return Found::Comments(begin);
        }
        self.line = 0;
        Found::Rest
    }

    /// Continues the held block.
    fn resume(&mut self) -> Result<Option<Item>, TooLarge> {
        while let Some((text, whole)) = line_end(&self.chunk[self.start..], self.has_cr) {
            let from = self.start;
            self.start += whole;
            if text == 0 && self.line == self.held.len() {
                let seen = mem::take(&mut self.seen);
                let held = self.give_held();
                if seen.data {
                    return Ok(Some(Item::Event(Place::Held(held), seen.id)));
                }
                let id = dataless(&self.held, &mut self.lines);
                if let Some(found) = self.left(id.map(Place::Held)) {
                    return Ok(Some(found));
                }
                self.drop_given();
                return self.scan();
            }
            // A comment is not part of the block after it, so its line end does not count.
            let comment = !self.seen.any && self.held.first() == Some(&b':');
            if self.held.len() + if comment { text } else { whole } > self.limit {
                return self.fail();
            }
            self.held.extend_from_slice(&self.chunk[from..self.start]);
            if comment {
                return Ok(Some(Item::Aside(Place::Held(self.give_held()))));
            }
            self.seen.line(&self.held[self.line..self.held.len() - (whole - text)]);
            self.line = self.held.len();
        }
        self.hold_rest()
    }

    /// Copies the rest of the chunk to `held`. It does not end the block.
    fn hold_rest(&mut self) -> Result<Option<Item>, TooLarge> {
        if self.chunk.is_empty() {
            return Ok(None);
        }
        let chunk = mem::take(&mut self.chunk);
        let rest = &chunk[mem::take(&mut self.start)..];
        if self.held.len() + rest.len() > self.limit {
            return self.fail();
        }
        self.held.extend_from_slice(rest);
        Ok(None)
    }

    /// Returns the range of the held bytes and marks them to be cleared at the next call.
    fn give_held(&mut self) -> Range<usize> {
        self.line = 0;
        self.given = true;
        0..self.held.len()
    }

    fn drop_given(&mut self) {
        if mem::take(&mut self.given) {
            self.held.clear();
            self.held.shrink_to(KEPT);
        }
    }

    /// Returns the first item of a block without data: its id, or the lines that take effect without an event.
    fn left(&mut self, id: Option<Place>) -> Option<Item> {
        let lines = !self.lines.is_empty();
        match id {
            Some(id) => {
                self.queued = lines;
                Some(Item::Id(id))
            }
            None => lines.then_some(Item::Aside(Place::Lines)),
        }
    }

    fn step(&mut self) -> Result<Option<Item>, TooLarge> {
        if self.failed {
            return Err(TooLarge { limit: self.limit });
        }
        self.drop_given();
        if mem::take(&mut self.queued) {
            return Ok(Some(Item::Aside(Place::Lines)));
        }
        if self.held.is_empty() { self.scan() } else { self.resume() }
    }

    #[inline]
    fn at(&self, place: Place) -> &[u8] {
        match place {
            Place::Chunk(range) => &self.chunk[range],
            Place::Held(range) => &self.held[range],
            Place::Lines => &self.lines,
        }
    }

    #[cold]
    fn fail(&mut self) -> Result<Option<Item>, TooLarge> {
        self.failed = true;
        self.chunk = Bytes::new();
        self.held = Vec::new();
        Err(TooLarge { limit: self.limit })
    }

    /// Removes the byte order mark from the first bytes of the stream.
    fn skip_bom(&mut self, chunk: &mut Bytes) {
        while self.bom < BOM.len()
            && let Some(&first) = chunk.first()
        {
            if first != BOM[self.bom] {
                self.held.extend_from_slice(&BOM[..self.bom]);
                self.bom = BOM.len();
                return;
            }
            self.bom += 1;
            chunk.advance(1);
        }
    }

    /// Removes the line feed of a line end that two chunks split. A held line keeps it.
    fn skip_owned_line_feed(&mut self, chunk: &mut Bytes) {
        if mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
            chunk.advance(1);
            if !self.held.is_empty() {
                self.held.push(b'\n');
                self.line = self.held.len();
                self.failed = self.held.len() > self.limit;
            }
        }
    }
}

impl Scan for SseScan {
    fn push(&mut self, mut chunk: Bytes) {
        self.drop_given();
        if chunk.is_empty() || self.failed {
            return;
        }
        if self.start < self.chunk.len() {
            let whole = [&self.chunk[self.start..], &chunk[..]].concat();
            chunk = whole.into();
        } else {
            self.skip_bom(&mut chunk);
            self.skip_owned_line_feed(&mut chunk);
        }
        if let Some(&last) = chunk.last() {
            self.after_cr = last == b'\r';
            self.has_cr = memchr(b'\r', &chunk).is_some();
        }
        self.chunk = chunk;
        self.start = 0;
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge> {
        Ok(self.step()?.map(|item| match item {
            Item::Event(place, has_id) => Scanned::Event(Block { bytes: self.at(place), has_id }),
            Item::Aside(place) => Scanned::Aside(self.at(place)),
            Item::Id(place) => Scanned::Id(self.at(place)),
        }))
    }

    fn finish(&mut self) {
        // The first line end completes an unfinished line, the second one ends the block. Outside of a block both are
        // blank lines. After a carriage return the line is already complete, and a line feed would belong to its line
        // end.
        self.push(Bytes::from_static(if self.after_cr { b"\r" } else { b"\n\n" }));
    }

    fn pending(&self) -> usize {
        if self.given { 0 } else { self.held.len() }
    }
}

/// Reads a block without data. Returns the range of its id, and fills `lines` with the lines that take effect without
/// an event.
fn dataless(block: &[u8], lines: &mut Vec<u8>) -> Option<Range<usize>> {
    lines.clear();
    let (mut id, mut at) = (None, 0);
    for line in Lines::of(block) {
        match Field::of(line.text) {
            Field::Id(value) if valid_id(value) => {
                // The value is the last part of its line.
                let end = at + line.text.len();
                id = Some(end - value.len()..end);
            }
            Field::Retry(_) | Field::Comment(_) => lines.extend_from_slice(line.whole),
            _ => {}
        }
        at += line.whole.len();
    }
    id
}

#[cfg(test)]
pub(super) mod tests;
