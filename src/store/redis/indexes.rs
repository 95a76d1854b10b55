//! The commands that write the indexes, wherever these lie.

use std::time::Duration;

use redis::{Value, cmd};

use super::{
    clock::millis,
    error::RedisStoreError,
    keys::{Keys, StreamKeys},
    request::Request,
    script, value,
};
use crate::{model::id::StreamKey, store::Retention};

/// How long an index outlives the last deadline in it, in milliseconds: longer than all guardians may pause.
const LOOKED_AFTER: u64 = 3_600_000;

/// What a registration writes into an index of deadlines.
#[derive(Clone, Copy)]
pub(super) struct Watching {
    /// Milliseconds from now, by the clock of the server that has the index, until the stream is overdue.
    pub(super) overdue: u64,
    /// Milliseconds for which the index must live.
    pub(super) ttl: u64,
}

impl Watching {
    /// For a stream with a producer, which beats.
    pub(super) fn produced(retention: &Retention) -> Self {
        Self { overdue: millis(retention.stale).min(millis(retention.lifetime)), ttl: millis(retention.kept()) }
    }

    /// For a published stream, which lives as long as events are published.
    pub(super) fn published(retention: &Retention) -> Self {
        Self { overdue: millis(retention.lifetime), ttl: millis(retention.kept()) }
    }
}

/// A deadline as a producer's beat writes it. It is odd; deadlines of reservations and of a guardian's leases are even.
pub(super) fn of_a_beat(deadline: u64) -> u64 {
    deadline.saturating_sub(1) | 1
}

impl Keys {
    fn watching(&self, index: &str, keys: &StreamKeys, watching: Watching, only_new: bool, odd: bool) -> Request {
        Request::script(self.part_slot(self.part(keys.slot)), &script::WATCH, &[index])
            .arg(&keys.name)
            .arg(watching.overdue)
            .arg(watching.ttl)
            .arg(if only_new { "NX" } else { "" })
            .arg(u8::from(odd))
    }

    /// Puts a stream that is about to be registered into the index of active streams, unless it is there. The reply is the
    /// deadline that was written, or 0.
    pub(super) fn reserving(&self, keys: &StreamKeys, watching: Watching) -> Request {
        self.watching(&self.active(self.part(keys.slot)), keys, watching, true, false)
    }

    /// Puts an active stream into the index.
    pub(super) fn registering(&self, keys: &StreamKeys, watching: Watching, only_new: bool) -> Request {
        self.watching(&self.active(self.part(keys.slot)), keys, watching, only_new, true)
    }

    /// Makes a guardian look after a stream that is not active, in `overdue` milliseconds.
    pub(super) fn watching_due(&self, keys: &StreamKeys, overdue: u64) -> Request {
        let watching = Watching { overdue, ttl: overdue + LOOKED_AFTER };
        self.watching(&self.due(self.part(keys.slot)), keys, watching, false, false)
    }

    /// Makes a stream's deadline even, which is the mark described in mark.lua.
    pub(super) fn marking(&self, index: &str, keys: &StreamKeys) -> Request {
        Request::script(self.part_slot(self.part(keys.slot)), &script::MARK, &[index]).arg(&keys.name)
    }

    /// Takes a stream out of an index of deadlines, or sets its deadline, if its deadline is still the one that was `seen`.
    pub(super) fn unwatching(&self, index: &str, keys: &StreamKeys, seen: u64, deadline: Option<u64>) -> Request {
        let deadline = deadline.map(|deadline| of_a_beat(deadline).to_string()).unwrap_or_default();
        let unwatch = Request::script(self.part_slot(self.part(keys.slot)), &script::UNWATCH, &[index]);
        unwatch.arg(&keys.name).arg(seen).arg(deadline)
    }

    /// Takes a stream out of an index of deadlines.
    pub(super) fn removing(&self, index: &str, keys: &StreamKeys) -> Request {
        let mut remove = cmd("ZREM");
        remove.arg(index).arg(&keys.name);
        Request::new(self.part_slot(self.part(keys.slot)), remove)
    }

    /// Asks for the deadline of an active stream: its own, or that of its lease.
    pub(super) fn deadline(&self, keys: &StreamKeys) -> Request {
        let part = self.part(keys.slot);
        let names = [&*self.active(part), &*self.leases(part)];
        Request::script(self.part_slot(part), &script::DEADLINE, &names).arg(&keys.name)
    }

    fn owned(&self, key: &StreamKey) -> Request {
        let (slot, owner) = self.owner(&key.owner);
        Request::script(slot, &script::OWN, &[&owner]).arg(key.id.as_str())
    }

    /// Writes a stream into its owner's index for `ttl` milliseconds, and whether it is active.
    pub(super) fn owning(&self, key: &StreamKey, ttl: u64, active: bool) -> Request {
        self.owned(key).arg(ttl).arg(u8::from(active)).arg("").arg("")
    }

    /// Writes an active stream into its owner's index. If it is there already, nothing changes and the reply is 0.
    pub(super) fn owning_new(&self, key: &StreamKey, ttl: u64) -> Request {
        self.owned(key).arg(ttl).arg(1).arg("").arg("NX")
    }

    /// Counts a stream as active in its owner's index for `ttl` milliseconds. If the owner has `limit` active streams already,
    /// the reply is 0.
    pub(super) fn admitting(&self, key: &StreamKey, ttl: u64, limit: usize) -> Request {
        self.owned(key).arg(ttl).arg(1).arg(limit).arg("")
    }

    /// Takes a stream out of the owner's index.
    pub(super) fn disowning(&self, key: &StreamKey) -> Request {
        self.owned(key).arg("").arg(0).arg("").arg("")
    }

    /// Asks the stream's own keys what the indexes must contain.
    pub(super) fn standing(&self, keys: &StreamKeys) -> Request {
        Request::script(keys.slot, &script::STANDING, &[&keys.stream, &keys.completion]).reading()
    }
}

/// What the indexes must contain about a stream.
#[derive(Clone, Copy)]
pub(super) struct Indexed {
    /// How long the stream is held, in milliseconds. 0: it is not held.
    pub(super) ttl: u64,
    pub(super) active: bool,
    /// In how many milliseconds a guardian must look after it.
    pub(super) overdue: Option<u64>,
}

impl Indexed {
    /// For a stream that has ended. `hook`: how long the caller has to run its hook.
    pub(super) fn ended(ttl: u64, hook: Option<Duration>) -> Self {
        Self { ttl, active: false, overdue: hook.map(millis) }
    }
}

/// Reads the reply to [`Keys::standing`].
pub(super) fn standing(reply: Value) -> Result<Indexed, RedisStoreError> {
    const WHAT: &str = "standing";
    let mut parts = value::array(reply, WHAT)?.into_iter();
    let mut number = || parts.next().as_ref().map(value::number).ok_or_else(|| value::unexpected(WHAT));
    let (ttl, active, overdue) = (number()?, number()?, number()?);
    Ok(Indexed { ttl: ttl.unwrap_or(0), active: active == Some(1), overdue })
}
