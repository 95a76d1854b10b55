//! What the calls of scripts have in common.

use super::super::{keys::StreamKeys, request::Request, script::Script, shared::Shared};
use crate::model::id::StreamKey;

/// Which keys a script gets besides the stream's own.
#[derive(Clone, Copy, Default)]
pub(super) struct Indexes {
    sent: bool,
    due: bool,
    /// The index of leases, for a script that compares deadlines.
    leases: bool,
}

impl Indexes {
    pub(super) const DUE: Self = Self { sent: false, due: true, leases: false };
    pub(super) const BOTH: Self = Self { sent: true, ..Self::DUE };

    pub(super) fn compared(self) -> Self {
        Self { leases: true, ..self }
    }
}

impl Shared {
    /// A call of a script, with the keys of the indexes if they are on the same server.
    pub(super) fn call(&self, keys: &StreamKeys, key: &StreamKey, script: &'static Script, with: Indexes) -> Request {
        let names = self.names(keys, key, with);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Request::script(keys.slot, script, &names).arg(&keys.name).arg(key.id.as_str())
    }

    /// The keys that a script gets.
    pub(super) fn names(&self, keys: &StreamKeys, key: &StreamKey, with: Indexes) -> Vec<String> {
        let mut names = vec![keys.stream.clone(), keys.log.clone(), keys.completion.clone()];
        names.extend(with.sent.then(|| self.keys.sent(keys)));
        if !self.cluster {
            let (_, owner) = self.keys.owner(&key.owner);
            names.extend([self.keys.active(0), owner]);
            names.extend(with.due.then(|| self.keys.due(0)));
            names.extend(with.leases.then(|| self.keys.leases(0)));
        }
        names
    }
}

pub(super) fn hex(token: u128) -> String {
    format!("{token:032x}")
}

/// A text that may be missing. It is marked, since an empty text is not a missing one.
pub(super) fn flagged(text: Option<&str>) -> String {
    text.map(|text| format!("={text}")).unwrap_or_default()
}

pub(super) fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Adds a field of the hash that the script writes.
pub(super) fn written(request: Request, (name, value): (&str, impl redis::ToRedisArgs)) -> Request {
    request.arg(name).arg(value)
}
