//! Pages of logs. A page takes at most two round trips, and nothing is fetched that the reader does not get.
//!
//! The size of an entry is unknown until it is fetched. So the first read of a log asks for one entry, and for the id of the
//! newest, which shows if there are more. Later reads of the same log, by any reader, ask for as many entries as should fit,
//! judged by the sizes of those before.

mod density;
mod pager;
mod read;
mod requests;
mod runs;

pub(super) use density::Densities;
pub(super) use requests::peek;
