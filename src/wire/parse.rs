//! Parses a stream of server-sent events as a client does (WHATWG HTML § 9.2.6).

use std::{collections::VecDeque, mem};

use memchr::memchr;
use serde::Deserialize;

use super::{
    TooLarge,
    lines::{BOM, Field, delay, line_end, valid_id},
    view::owned_text,
};

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event's name; `message` if the stream sets none.
    pub name: String,
    /// The data lines, joined by line feeds.
    pub data: String,
    /// The last event id after this event: its own or that of an earlier event; empty if no event has set one.
    pub last_event_id: String,
    /// The reconnect delay, in milliseconds, that this event set.
    pub retry: Option<u64>,
}

impl Message {
    /// Reads the data as JSON.
    ///
    /// ```
    /// use resilient_sse::wire::{Parsed, Parser};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Token<'a> {
    ///     text: &'a str,
    /// }
    ///
    /// let mut parser = Parser::new(1 << 20);
    /// parser.push(b"data: {\"text\":\"hello\"}\n\n")?;
    /// let Some(Parsed::Message(message)) = parser.pop() else { panic!("a message was due") };
    /// assert_eq!(message.json::<Token>()?.text, "hello");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `serde_json` if the data is not JSON or does not match the type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// An item that a [`Parser`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An event.
    Message(Message),
    /// The text of a comment, after the colon. Servers send comments to show that they are alive.
    Comment(String),
}

/// A parser of one event stream.
///
/// It takes the bytes of a response body in pieces split at any byte. Its memory is bounded: neither a line nor the
/// fields of an event may be longer than the limit.
///
/// ```
/// use resilient_sse::wire::{Parsed, Parser};
///
/// let mut parser = Parser::new(1 << 20);
/// parser.push(b"id: 7\ndata: he")?;
/// assert_eq!(parser.pop(), None);
///
/// parser.push(b"llo\n\n")?;
/// let Some(Parsed::Message(message)) = parser.pop() else { panic!("a message was due") };
/// assert_eq!((&*message.name, &*message.data, parser.last_event_id()), ("message", "hello", "7"));
/// # Ok::<_, resilient_sse::wire::TooLarge>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser {
    limit: usize,
    found: VecDeque<Parsed>,
    /// How many bytes of the byte order mark were seen; its full length once the start of the stream is past.
    bom: usize,
    after_cr: bool,
    /// An unfinished line.
    line: Vec<u8>,
    block: Fields,
    last_event_id: String,
    reconnection_time: Option<u64>,
    failed: bool,
}

/// The fields of the block so far.
#[derive(Clone, Debug, Default)]
struct Fields {
    name: Vec<u8>,
    /// Every data line, each with a line feed after it. So this is empty only if the block has no data line.
    data: Vec<u8>,
    id: Option<Vec<u8>>,
    retry: Option<u64>,
}

impl Fields {
    fn len(&self) -> usize {
        self.name.len() + self.data.len() + self.id.as_ref().map_or(0, Vec::len)
    }
}

impl Parser {
    /// Creates a parser for lines and events of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            found: VecDeque::new(),
            bom: 0,
            after_cr: false,
            line: Vec::new(),
            block: Fields::default(),
            last_event_id: String::new(),
            reconnection_time: None,
            failed: false,
        }
    }

    /// Sets the last event id that the client kept from an earlier connection.
    #[must_use]
    pub fn with_last_event_id(mut self, id: impl Into<String>) -> Self {
        self.last_event_id = id.into();
        self
    }

    /// Takes the next bytes of the stream. Call [`pop`](Self::pop) for the messages in them.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if a line or an event is longer than the limit. The messages before it can still be popped. Nothing
    /// after it is read until [`reconnect`](Self::reconnect) is called.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.failed {
            return Err(self.too_large());
        }
        let pushed = self.read(bytes);
        if pushed.is_err() {
            self.failed = true;
            self.line = Vec::new();
            self.block = Fields::default();
        }
        pushed
    }

    /// Returns the next message or comment.
    pub fn pop(&mut self) -> Option<Parsed> {
        self.found.pop_front()
    }

    /// Begins a new stream, as after a reconnect. Drops an unfinished event, and keeps the last event id, the reconnect
    /// delay and the messages that were not popped.
    pub fn reconnect(&mut self) {
        *self = Self {
            found: mem::take(&mut self.found),
            last_event_id: mem::take(&mut self.last_event_id),
            reconnection_time: self.reconnection_time,
            ..Self::new(self.limit)
        };
    }

    /// Returns the id to send as `Last-Event-ID`: that of the last complete block that had one; empty if there is none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Returns the reconnect delay, in milliseconds, if the stream set one.
    ///
    /// The delay counts as soon as its line is complete, even if the rest of the block is cut off. A number above
    /// [`u64::MAX`] gives [`u64::MAX`].
    #[must_use]
    pub fn reconnection_time(&self) -> Option<u64> {
        self.reconnection_time
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let mut rest = self.after_bom(bytes);
        if rest.is_empty() {
            return Ok(());
        }
        if mem::take(&mut self.after_cr) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        self.after_cr = rest.last() == Some(&b'\r');
        let has_cr = memchr(b'\r', rest).is_some();
        while let Some((text, whole)) = line_end(rest, has_cr) {
            if self.line.is_empty() {
                self.take_line(&rest[..text])?;
            } else {
                self.hold(&rest[..text])?;
                let mut line = mem::take(&mut self.line);
                self.take_line(&line)?;
                line.clear();
                self.line = line;
            }
            rest = &rest[whole..];
        }
        self.hold(rest)
    }

    /// Drops the byte order mark from the stream's first bytes.
    fn after_bom<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.bom < BOM.len()
            && let Some((&first, rest)) = bytes.split_first()
        {
            if first == BOM[self.bom] {
                self.bom += 1;
                bytes = rest;
            } else {
                self.line.extend_from_slice(&BOM[..self.bom]);
                self.bom = BOM.len();
            }
        }
        bytes
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        self.check(self.line.len() + part.len())?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), TooLarge> {
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        self.check(line.len())?;
        let block = &mut self.block;
        match Field::of(line) {
            Field::Comment(text) => self.found.push_back(Parsed::Comment(String::from_utf8_lossy(text).into_owned())),
            Field::Event(value) => value.clone_into(&mut block.name),
            Field::Data(value) => {
                block.data.extend_from_slice(value);
                block.data.push(b'\n');
            }
            Field::Id(value) if valid_id(value) => block.id = Some(value.to_vec()),
            Field::Retry(value) => {
                if let Some(ms) = delay(value) {
                    block.retry = Some(ms);
                    self.reconnection_time = Some(ms);
                }
            }
            Field::Id(_) | Field::Unknown => {}
        }
        self.check(self.block.len())
    }

    /// Ends a block: stores its id, and queues a message if the block has data.
    fn dispatch(&mut self) {
        let Fields { name, mut data, id, retry } = mem::take(&mut self.block);
        if let Some(id) = id {
            self.last_event_id = owned_text(id);
        }
        if data.pop().is_none() {
            return;
        }
        let name = if name.is_empty() { "message".to_owned() } else { owned_text(name) };
        let last_event_id = self.last_event_id.clone();
        self.found.push_back(Parsed::Message(Message { name, data: owned_text(data), last_event_id, retry }));
    }

    fn check(&self, len: usize) -> Result<(), TooLarge> {
        if len > self.limit { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> TooLarge {
        TooLarge { limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(parser: &mut Parser) -> Vec<String> {
        std::iter::from_fn(|| parser.pop())
            .map(|parsed| match parsed {
                Parsed::Message(message) => format!("{}={}", message.name, message.data),
                Parsed::Comment(text) => format!(":{text}"),
            })
            .collect()
    }

    #[test]
    fn a_reconnect_keeps_id_and_delay_and_drops_the_unfinished() {
        let mut parser = Parser::new(100);
        parser.push(b"\xef\xbb\xbfretry: 5\nid: 1\ndata: a\n\nid: 2\ndata: b\r").expect("small");
        parser.reconnect();
        parser.push(b"\n\xef\xbb\xbfdata: c\n\ndata: d\n\n").expect("small");
        assert_eq!(messages(&mut parser), ["message=a", "message=d"]);
        assert_eq!((parser.last_event_id(), parser.reconnection_time()), ("1", Some(5)));
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let fits = Ok(());
        let too_large = Err(TooLarge { limit: 8 });
        for (stream, expected) in [
            (&b"data: 78"[..], fits),
            (b"data: 789", too_large),
            (b":2345678", fits),
            (b":23456789", too_large),
            (b"data:2\ndata:4\ndata:6\ndata:8\n", fits),
            (b"data:2\ndata:4\ndata:6\ndata:8\ndata\n", too_large),
            (b"data:6\ndata:6\ndata:6\nevent:7\nid:4", fits),
            (b"data:6\ndata:6\ndata:6\nevent:7\nid:4\n", fits),
            (b"data:6\ndata:6\ndata:6\nevent:7\nid:45\n", too_large),
        ] {
            let mut parser = Parser::new(8);
            parser.push(b"data:6\n\n").expect("small");
            assert_eq!(stream.chunks(3).try_for_each(|chunk| parser.push(chunk)), expected);
            assert_eq!(Parser::new(8).push(stream), expected);
            assert_eq!(parser.push(b"\n"), expected);
            assert_eq!(messages(&mut parser)[0], "message=6");
        }
    }

    #[test]
    fn an_id_with_a_nul_is_ignored() {
        let mut parser = Parser::new(100);
        parser.push(b"id: 1\n\nid: 2\0\ndata: a\n\n").expect("small");
        let Some(Parsed::Message(message)) = parser.pop() else { panic!("a message was due") };
        assert_eq!(message.last_event_id, "1");
    }

    #[test]
    fn an_id_is_kept_from_an_earlier_connection() {
        let mut parser = Parser::new(100).with_last_event_id("7");
        parser.push(b"data\n\n").expect("small");
        let Some(Parsed::Message(message)) = parser.pop() else { panic!("a message was due") };
        assert_eq!(message.last_event_id, "7");
    }
}
