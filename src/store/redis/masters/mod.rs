//! The masters of a cluster: commands go to the master of their slot, and follow where they are sent on to.
//!
//! Own routing, since a flight then goes to each master in one go, each connection is supervised as that to a single server
//! is, and what was sent is repeated by those who know what may be repeated.

mod map;
mod refresh;
mod routing;
mod table;
mod together;

pub(super) use table::Masters;
