//! What the calls of scripts have in common.

use super::super::{keys::StreamKeys, request::Request, script::Script, shared::Shared};
use crate::model::id::StreamKey;

/// Which keys a script takes besides the stream's own.
#[derive(Clone, Copy, Default)]
pub(super) struct Indexes {
    sent: bool,
    due: bool,
    /// What a deadline that is compared may stand for.
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
    /// A script's call, with the indexes where they can be reached.
    pub(super) fn call(&self, keys: &StreamKeys, key: &StreamKey, script: &'static Script, with: Indexes) -> Request {
        let names = self.names(keys, key, with);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Request::script(keys.slot, script, &names).arg(&keys.name).arg(key.id.as_str())
    }

    /// The keys that a script takes.
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

/// A text that may be missing, where an empty one is not the same.
pub(super) fn flagged(text: Option<&str>) -> String {
    text.map(|text| format!("={text}")).unwrap_or_default()
}

pub(super) fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// A field of a hash that a script writes.
pub(super) fn written(request: Request, (name, value): (&str, impl redis::ToRedisArgs)) -> Request {
    request.arg(name).arg(value)
}
