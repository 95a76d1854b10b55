//! One server, and the supervised connections to it. A link makes a connection when one is needed, and replaces it when
//! it no longer works.
//!
//! The `redis` crate reconnects only after a broken pipe. A link replaces a connection when it is closed, when the
//! server does not answer on it (half open), and when the server says that it is a replica now.

mod connect;
mod exchange;
mod state;

pub(super) use connect::spread;
pub(super) use state::{Link, Watch};
