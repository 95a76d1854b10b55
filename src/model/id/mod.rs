//! The names of streams, owners, events and nodes.

mod cursor;
mod event;
mod key;
mod node;
mod owner;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use cursor::{Cursor, CursorWriter};
pub use event::{EventId, InvalidEventId};
pub use key::StreamKey;
pub use node::NodeId;
pub use owner::{InvalidOwner, MAX_OWNER, Owner};
pub use stream::{InvalidStreamId, MAX_STREAM_ID, StreamId};
