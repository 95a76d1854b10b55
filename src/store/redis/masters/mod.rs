//! The masters of a cluster: commands go to the master of their slot, and follow redirections.
//!
//! The library's own cluster client is not used. Here a flight goes to each master in one pipeline, connections are supervised
//! like those to a single server, and only the recorder, which knows what may be repeated, repeats requests.

mod map;
mod refresh;
mod routing;
mod table;
mod together;

pub(super) use table::Masters;
