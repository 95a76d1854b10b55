//! What a request's head says to the library, whichever service it reaches: which event the client saw last, what it
//! accepts, what its query holds.

mod accept;
mod cursor;
mod query;

pub(crate) use accept::{asks_by_name, prefers_events};
pub(crate) use cursor::{inner_target, last_seen};
pub(crate) use query::{decoded, parameter, parameters};
