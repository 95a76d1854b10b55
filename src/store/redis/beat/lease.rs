//! Renewing the leases that streams stand under, and finding streams that do not stand under theirs.

use std::collections::HashSet;

use redis::{Value, cmd};

use super::super::{
    clock::millis,
    error::RedisStoreError,
    keys::name_of,
    leases::{Expected, Listed},
    request::Request,
    script,
    shared::Shared,
    value,
};
use crate::{
    model::id::{NodeId, StreamKey},
    store::Beat,
};

/// How many members of the index are read in one command.
const MEMBERS_READ: u64 = 1000;

impl Shared {
    /// Describes a stream that a beat lists.
    pub(super) fn listed(&self, key: &StreamKey, epoch: u64) -> Listed {
        let name = name_of(key);
        let slot = self.keys.slot(&name);
        Listed { hash: self.leases.hash(&name), epoch, slot, part: self.keys.part(slot) }
    }

    /// Renews leases in a part of the indexes, and asks how many streams stand under each.
    pub(super) fn renew_leases_request(&self, beat: &Beat, part: u16, leases: &[Expected]) -> Request {
        let names = [&*self.keys.active(part), &*self.keys.leases(part)];
        let renew = Request::script(self.keys.part_slot(part), &script::VOUCH, &names);
        let renew = renew.arg(millis(beat.stale)).arg(millis(beat.lifetime) + millis(beat.stale));
        leases.iter().fold(renew, |renew, expected| renew.arg(expected.lease))
    }

    /// Compares how many streams stand under each lease with how many should. If some are missing, finds out which.
    pub(super) async fn compare(
        &self,
        node: &NodeId,
        part: u16,
        leases: &[Expected],
        counts: Value,
    ) -> Result<(), RedisStoreError> {
        let counts = value::array(counts, "vouch")?;
        for (expected, count) in leases.iter().zip(counts) {
            let count = value::number(&count).ok_or_else(|| value::unexpected("vouch"))?;
            let lease = expected.lease;
            // Some may have ended meanwhile, or another page of this round may have moved them to a newer lease.
            let least = expected.streams.min(self.leases.count(node, part, lease)) as u64;
            if count < least {
                let found = self.found(part, lease, count).await?;
                self.leases.retain(node, part, lease, &found);
            }
        }
        Ok(())
    }

    /// The hashes of the `count` streams that stand under a lease. They are read by rank, since a server needs long to skip a
    /// thousand members by score.
    async fn found(&self, part: u16, lease: u64, count: u64) -> Result<HashSet<u64>, RedisStoreError> {
        let (slot, active) = (self.keys.part_slot(part), self.keys.active(part));
        let mut below = cmd("ZCOUNT");
        below.arg(&active).arg("-inf").arg(format!("({lease}"));
        let mut rank = value::number(&self.fleet.ask_bulk(Request::new(slot, below)).await?).unwrap_or(0);
        let end = rank + count;
        let mut found = HashSet::new();
        while rank < end {
            let mut members = cmd("ZRANGE");
            members.arg(&active).arg(rank).arg((rank + MEMBERS_READ).min(end) - 1);
            let members = value::array(self.fleet.ask_bulk(Request::new(slot, members)).await?, "ZRANGE")?;
            found.extend(members.into_iter().filter_map(value::text).map(|name| self.leases.hash(&name)));
            rank += MEMBERS_READ;
        }
        Ok(found)
    }
}
