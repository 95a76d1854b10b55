//! Wire formats, without any I/O: where events begin and end, what they say, how they are written.
//!
//! [`Framing`] is the seam: the rest of the crate names no wire format. [`Sse`] is the one that ships.

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
/// A *block* is an event's content lines, each with its line end, without whatever ends the event:
/// the form in which events are scanned, recorded and delivered.
pub trait Framing: Send + Sync + fmt::Debug + 'static {
    /// The media type of responses that the library makes itself.
    fn content_type(&self) -> &'static str;

    /// Whether a response with this `Content-Type` is of this format.
    fn claims(&self, content_type: &str) -> bool;

    /// A scanner for one stream, which holds at most `max_block` bytes of an unfinished block.
    fn scanner(&self, max_block: usize) -> Box<dyn Scan>;

    /// Reads a block.
    fn view<'a>(&self, block: &'a [u8]) -> EventView<'a>;

    /// Writes a block as one whole event.
    ///
    /// `id` is its last line, in place of any id that the block has, which `has_id` says;
    /// `retry`, a reconnect delay in milliseconds, is its first line. All else stands byte for byte.
    fn deliver(&self, block: &[u8], has_id: bool, id: Option<&[u8]>, retry: Option<u64>, out: &mut BytesMut);

    /// Writes a block as one whole event, up to its id and without it: what is written, an id, and what is returned are
    /// together what [`deliver`](Self::deliver) writes.
    ///
    /// A store that gives an event its id itself writes it in between.
    fn deliver_around(&self, block: &[u8], has_id: bool, out: &mut BytesMut) -> &'static [u8];

    /// How long the first of some events is that [`deliver`](Self::deliver) wrote one after the other, without a reconnect
    /// delay of the library's. O(bytes of that event).
    ///
    /// What is not such an event is one event to its end.
    fn first(&self, events: &[u8]) -> usize;

    /// Writes an event as a block.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for what the format cannot say: reading the block gives back the very event.
    fn encode(&self, event: &Event) -> Result<Bytes, EncodeError>;

    /// Bytes that keep a connection alive, valid between events, which no client takes for an event.
    fn heartbeat(&self) -> &'static [u8];

    /// The reconnect delay, in milliseconds, that lines set, of a block or between blocks; the last one counts.
    ///
    /// Default: `None`, for a format whose lines set none.
    fn retry_in(&self, lines: &[u8]) -> Option<u64> {
        let _ = lines;
        None
    }

    /// Writes a reconnect delay, in milliseconds, that stands outside of any event.
    fn retry(&self, ms: u64, out: &mut BytesMut);
}

/// Finds the events in a stream, however it is split into chunks.
pub trait Scan: Send {
    /// Takes the next chunk. What the chunks before it hold is to be taken out first.
    fn push(&mut self, chunk: Bytes);

    /// The next thing found; `None` if another chunk is needed.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] for a block beyond the limit, and then for ever.
    fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge>;

    /// The stream is over: a last block that nothing ends is whole all the same, and is to be taken out.
    ///
    /// Called once, after what the chunks hold was taken out. Default: nothing is done, so such a block is dropped.
    fn finish(&mut self) {}

    /// Bytes held of an unfinished block.
    fn pending(&self) -> usize;
}

/// What a scanner finds, borrowed from what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// An event.
    Event(Block<'a>),
    /// Whole lines between events that no client takes for one, but that may matter to a client that
    /// is there: comments, reconnect delays.
    Aside(&'a [u8]),
    /// An id that is set without an event.
    Id(&'a [u8]),
}

/// An event as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its content lines, byte for byte, each with its line end.
    pub bytes: &'a [u8],
    /// Whether it may have an id of its own.
    pub has_id: bool,
}

/// A block is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// How many bytes it may have.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is larger than {} bytes", self.limit)
    }
}

impl Error for TooLarge {}
