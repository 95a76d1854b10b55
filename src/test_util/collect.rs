//! A client that reads, and may be cut.

use bytes::Buf as _;
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::wire::{Message, Parsed, Parser};

/// The largest event that a test's client takes, in bytes.
const MAX_EVENT: usize = 64 << 20;

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name, `message` if it has none.
    pub name: String,
    /// Its data.
    pub data: String,
    /// The last id that the client has seen: this event's, if it has one.
    pub id: String,
}

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// All events, in order, the library's own included.
    pub events: Vec<Seen>,
    /// Comment lines, heartbeats among them.
    pub comments: usize,
    /// The reconnect delay it was told, in milliseconds.
    pub retry: Option<u64>,
    /// Whether the body ended cleanly, as opposed to being cut or breaking with an error.
    pub ended: bool,
    /// Everything that came, as it came.
    pub bytes: Vec<u8>,
}

impl Transcript {
    /// The data of all events but the library's own `connected`.
    #[must_use]
    pub fn data(&self) -> Vec<&str> {
        self.events.iter().filter(|event| event.name != "connected").map(|event| event.data.as_str()).collect()
    }

    /// The names of all events but the library's own `connected`.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.name.as_str()).filter(|name| *name != "connected").collect()
    }

    /// The cursor with which this client reconnects; empty if it has seen none.
    #[must_use]
    pub fn last_id(&self) -> &str {
        self.events.last().map_or("", |event| event.id.as_str())
    }
}

/// Reads a body to its end.
///
/// An error of the body ends it like a broken connection.
pub async fn collect<B: Body + Unpin>(body: B) -> Transcript {
    cut_after(usize::MAX, body).await
}

/// Reads a body until so many events have come, the library's `connected` not counted, then drops it.
///
/// The cut falls right behind the last of them: whatever else its frame holds never arrived.
pub async fn cut_after<B: Body + Unpin>(events: usize, mut body: B) -> Transcript {
    let mut parser = Parser::new(MAX_EVENT);
    let mut seen = Transcript::default();
    let mut counted = 0;
    while counted < events {
        match body.frame().await {
            None => {
                seen.ended = true;
                break;
            }
            Some(Err(_)) => break,
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { continue };
                let bytes = data.copy_to_bytes(data.remaining());
                seen.bytes.extend_from_slice(&bytes);
                if parser.push(&bytes).is_err() {
                    break;
                }
                counted += seen.take(&mut parser, events - counted);
            }
        }
    }
    seen.retry = parser.reconnection_time();
    seen
}

impl Transcript {
    /// Takes what the parser has found, up to so many events. Returns how many there were.
    fn take(&mut self, parser: &mut Parser, limit: usize) -> usize {
        let mut counted = 0;
        while counted < limit {
            match parser.pop() {
                None => break,
                Some(Parsed::Comment(_)) => self.comments += 1,
                Some(Parsed::Message(Message { name, data, last_event_id: id, .. })) => {
                    counted += usize::from(name != "connected");
                    self.events.push(Seen { name, data, id });
                }
            }
        }
        counted
    }
}
