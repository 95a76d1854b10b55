//! Reads the head of a request: the client's cursor, the types that the client accepts, and the query.

mod accept;
mod cursor;
mod query;

pub(crate) use accept::{asks_by_name, prefers_events};
pub(crate) use cursor::{inner_target, last_seen};
pub(crate) use query::{parameter, parameters};
