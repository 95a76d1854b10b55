//! Wake-ups: followers hear of changes to their streams, nodes of changes that others make to theirs.
//!
//! One connection of its own listens for the whole process, to a channel for each stream that somebody waits for and one
//! for each node. A message says no more than: look. Messages may be lost, so a net is drawn through what is waited for
//! every second. A node publishes the events of its streams only while some other node has asked for that.

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
