//! A test client that reads a response body, to its end or up to a cut.

use bytes::Buf as _;
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::wire::{Message, Parsed, Parser};

/// The largest event that the test client accepts, in bytes.
const MAX_EVENT: usize = 64 << 20;

/// An event as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The event's name; `message` if it has none.
    pub name: String,
    /// The event's data.
    pub data: String,
    /// The client's last event id after this event.
    pub id: String,
}

/// Everything that a client has received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// All events in order, including the library's own.
    pub events: Vec<Seen>,
    /// The number of comment lines, including heartbeats.
    pub comments: usize,
    /// The reconnect delay from `retry:`, in milliseconds.
    pub retry: Option<u64>,
    /// Whether the body ended cleanly. It is `false` if the body was cut or failed with an error.
    pub ended: bool,
    /// The bytes as they arrived.
    pub bytes: Vec<u8>,
}

impl Transcript {
    /// Returns the data of all events except the library's `connected`.
    #[must_use]
    pub fn data(&self) -> Vec<&str> {
        self.events.iter().filter(|event| event.name != "connected").map(|event| event.data.as_str()).collect()
    }

    /// Returns the names of all events except the library's `connected`.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.name.as_str()).filter(|name| *name != "connected").collect()
    }

    /// Returns the cursor with which this client reconnects; empty if it has received no id.
    #[must_use]
    pub fn last_id(&self) -> &str {
        self.events.last().map_or("", |event| event.id.as_str())
    }
}

/// Reads a body to its end.
///
/// An error of the body ends the reading, like a broken connection.
pub async fn collect<B: Body + Unpin>(body: B) -> Transcript {
    cut_after(usize::MAX, body).await
}

/// Reads a body until this many events have arrived, not counting the library's `connected`, and then drops it.
///
/// The cut is right after the last event. Further events in the same frame count as not received.
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
    /// Takes the items of the parser, up to `limit` events. Returns the number of events.
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
