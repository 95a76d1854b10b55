//! One server, and the supervised connections to it: made when they are needed, replaced when they are useless.
//!
//! The client library reconnects after a broken pipe only. A link replaces a connection when it is closed, when nothing comes
//! back on it (half open), and when the server says that it is a replica now.

mod connect;
mod exchange;
mod state;

pub(super) use connect::spread;
pub(super) use state::{Link, Watch};
