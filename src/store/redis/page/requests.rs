//! The requests that a page is read with.

use redis::cmd;

use super::super::{keys::StreamKeys, request::Request, script, stored};
use crate::model::id::EventId;

/// The first entry in a direction, without its events.
pub(in super::super) fn peek(keys: &StreamKeys, command: &str, from: &str) -> Request {
    let to = if command == "XRANGE" { "+" } else { "-" };
    Request::script(keys.slot, &script::PEEK, &[&keys.log]).arg(command).arg(from).arg(to)
}

/// The next `count` entries after an id.
pub(super) fn range(keys: &StreamKeys, after: EventId, count: usize) -> Request {
    let mut range = cmd("XRANGE");
    // A server refuses an open range after the highest id. The closed one returns at most the entry with that id.
    let open = if after == EventId::new(u64::MAX, u64::MAX) { "" } else { "(" };
    range.arg(&keys.log).arg(format!("{open}{}", after.to_pair())).arg("+").arg("COUNT").arg(count);
    Request::new(keys.slot, range)
}

/// The fields that an end is read from.
pub(super) fn completion(keys: &StreamKeys) -> Request {
    let mut fields = cmd("HMGET");
    fields.arg(&keys.completion).arg(&stored::ENDED);
    Request::new(keys.slot, fields)
}
