//! Reads the head of a request, for every service: the event that the client saw last, the types that it
//! accepts, its query.

mod accept;
mod cursor;
mod query;

pub(crate) use accept::{asks_by_name, prefers_events};
pub(crate) use cursor::{inner_target, last_seen};
pub(crate) use query::{parameter, parameters};
