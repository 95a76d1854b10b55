//! Wake-ups: of followers when their streams change, and of nodes when others change their streams.
//!
//! One connection listens for the whole process, to a channel for each stream that a follower waits for and one for each
//! node. A message only says that there is something to read. Messages may be lost, so once a second the process asks for
//! changes of all awaited streams (the net). A node publishes the events of a stream only while another node has announced
//! that it follows the stream.

mod announce;
mod listen;
mod messages;
mod net;
mod pace;
mod stream;
mod table;
mod wanted;

pub(super) use announce::announce_all;
pub(super) use listen::listen;
pub(super) use net::watch;
pub(super) use table::Tails;
