//! One server, and the supervised connections to it: made when they are needed, replaced when they are of no more use.
//!
//! The client library reconnects for a broken pipe only. Here a connection is replaced when it is closed, when nothing
//! comes back on it (half open), and when its server says that it is a replica now.

mod connect;
mod exchange;
mod state;

pub(super) use connect::spread;
pub(super) use state::{Link, Watch};
