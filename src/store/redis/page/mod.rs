//! Pages of logs: of an entry only what a reader is given is fetched, and of a page all in at most two round trips.
//!
//! How much an entry holds is not known before it was fetched, so the first page of a log begins with one entry, and the id of
//! the newest, which tells whether that is all; later ones, whoever reads them, ask for as many as fit by what entries held
//! before.

mod density;
mod pager;
mod read;
mod requests;
mod runs;

pub(super) use density::Densities;
pub(super) use requests::peek;
