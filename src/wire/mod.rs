//! Wire formats, without any I/O: finding, reading and writing the events of a stream.
//!
//! The rest of the crate knows wire formats only through the trait [`Framing`]. [`Sse`] implements it for server-sent
//! events.

mod deliver;
mod encode;
pub(crate) mod fields;
pub(crate) mod frame;
mod lines;
mod mime;
mod parse;
#[cfg(test)]
mod properties;
mod scan;
mod sse;
mod view;

use std::{error::Error, fmt};

use bytes::{Bytes, BytesMut};
pub use encode::EncodeError;
pub use frame::single_events;
pub use parse::{Message, Parsed, Parser};
pub use sse::Sse;
pub use view::EventView;

use crate::model::event::Event;

/// A wire format of event streams.
///
/// A *block* is the content lines of an event, each with its line end, without the blank line (or other mark) that ends
/// the event. Scanners find blocks, and events are recorded and delivered from them.
pub trait Framing: Send + Sync + fmt::Debug + 'static {
    /// Returns the media type of the responses that the library creates itself.
    fn content_type(&self) -> &'static str;

    /// Whether a response with this `Content-Type` has this format.
    fn claims(&self, content_type: &str) -> bool;

    /// Returns a scanner for one stream. It buffers at most `max_block` bytes of an unfinished block.
    fn scanner(&self, max_block: usize) -> Box<dyn Scan>;

    /// Reads the fields of a block.
    fn view<'a>(&self, block: &'a [u8]) -> EventView<'a>;

    /// Writes a block as one whole event.
    ///
    /// `id` becomes the last line and replaces the ids in the block; `has_id` says whether the block may have any.
    /// `retry`, a reconnect delay in milliseconds, becomes the first line. All other bytes of the block are kept.
    fn deliver(&self, block: &[u8], has_id: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut);

    /// Writes the part of an event before its id, and returns the part after it.
    ///
    /// The written part, an id and the returned part are together what [`deliver`](Self::deliver) writes. A store that
    /// assigns the id itself puts it in between.
    fn deliver_around(&self, block: &[u8], has_id: bool, out: &mut BytesMut) -> &'static [u8];

    /// Returns the length in bytes of the first event in `events`, which [`deliver`](Self::deliver) wrote one after the
    /// other with `retry: None`.
    ///
    /// Bytes without the end of an event count as one event. Complexity: O(bytes of the first event).
    fn first(&self, events: &[u8]) -> usize;

    /// Writes an event as a block. Reading the block gives back the same event.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the format cannot represent the event.
    fn encode(&self, event: &Event) -> Result<Bytes, EncodeError>;

    /// Returns bytes that keep a connection alive. They are valid between events, and no client takes them for an
    /// event.
    fn heartbeat(&self) -> &'static [u8];

    /// Returns the last reconnect delay, in milliseconds, that these lines of a block or between blocks set.
    ///
    /// The default implementation returns `None`, for a format without reconnect delays.
    fn retry_in(&self, lines: &[u8]) -> Option<u64> {
        let _ = lines;
        None
    }

    /// Writes a reconnect delay, in milliseconds, outside of any event.
    fn retry(&self, ms: u64, out: &mut BytesMut);
}

/// Finds the events in a stream that arrives in chunks split at any byte.
pub trait Scan: Send {
    /// Takes the next chunk. Call [`next`](Self::next) until it returns `None` first.
    fn push(&mut self, chunk: Bytes);

    /// Returns the next item in the stream; `None` if it needs another chunk.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if a block is larger than the limit. Every later call returns the same error.
    fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge>;

    /// Ends the stream, so that [`next`](Self::next) returns a last block that lacks its end.
    ///
    /// Called once, after [`next`](Self::next) has returned `None`. The default implementation does nothing, and such a
    /// block is dropped.
    fn finish(&mut self) {}

    /// Returns how many bytes of an unfinished block the scanner holds.
    fn pending(&self) -> usize;
}

/// An item that a scanner finds, borrowed from the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// An event.
    Event(Block<'a>),
    /// Whole lines between events: comments and reconnect delays. They matter only to clients that are connected.
    Aside(&'a [u8]),
    /// An id that the stream sets without an event.
    Id(&'a [u8]),
}

/// The block of an event as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The content lines, byte for byte, each with its line end.
    pub bytes: &'a [u8],
    /// Whether the block may have an id of its own.
    pub has_id: bool,
}

/// The error of reading a block that is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is larger than {} bytes", self.limit)
    }
}

impl Error for TooLarge {}
