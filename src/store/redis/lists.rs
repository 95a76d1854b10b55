//! Lists of streams.

use std::time::Duration;

use redis::cmd;

use super::{
    clock::millis,
    error::RedisStoreError,
    keys::{self, StreamKeys},
    leases,
    request::Request,
    shared::Shared,
    value,
};
use crate::{
    model::{
        id::{StreamId, StreamKey},
        stream::{StreamInfo, StreamState},
    },
    store::{List, Listed},
};

/// How many streams of a list are fetched in one request.
const LIST_PAGE: usize = 100;

/// How many ranges of the index are read in one request for stale streams.
const RANGES: usize = 16;
/// How many leases are searched for stale streams, in each part of the indexes.
const LEASES_READ: usize = 1000;

impl Shared {
    pub(super) async fn list(&self, list: List) -> Result<Listed, RedisStoreError> {
        let (slot, index) = self.keys.owner(&list.owner);
        let first = match &list.after {
            None => 0,
            Some(after) => {
                let mut rank = cmd("ZREVRANK");
                rank.arg(&index).arg(after.as_str());
                match value::number(&self.fleet.ask_bulk(Request::new(slot, rank)).await?) {
                    Some(rank) => rank + 1,
                    None => return Ok(Listed::default()),
                }
            }
        };
        // One member more than the limit shows if there is a next page.
        let last = first.saturating_add(list.limit as u64).min(1 << 52);
        let mut members = cmd("ZRANGE");
        members.arg(&index).arg(first).arg(last).arg("REV").arg("WITHSCORES");
        let mut members = value::scored(self.fleet.ask_bulk(Request::new(slot, members)).await?, "ZRANGE")?;
        // Expired members come last in the index.
        let now = self.clock.now();
        members.retain(|(_, expires)| *expires > now);
        let more = members.len() > list.limit;
        members.truncate(list.limit);
        let ids = members.into_iter().filter_map(|(id, _)| StreamId::new(value::text(id)?).ok());
        let all: Vec<StreamKey> = ids.map(|id| StreamKey::new(list.owner.clone(), id)).collect();
        let next = all.last().filter(|_| more).map(|key| key.id.clone());
        let mut streams = Vec::new();
        for page in all.chunks(LIST_PAGE) {
            let of: Vec<StreamKeys> = page.iter().map(|key| self.keys.of(key)).collect();
            for (key, known) in page.iter().zip(self.known_of(&of).await?) {
                // The index may name a stream that is gone or not opened yet. A stream whose server does not answer is left out
                // as well.
                streams.extend(known.ok().and_then(|known| known.info(key)));
            }
        }
        Ok(Listed { streams, next })
    }

    pub(super) async fn active_count(&self) -> Result<u64, RedisStoreError> {
        let count = |part| {
            let mut count = cmd("ZCARD");
            count.arg(self.keys.active(part));
            Request::new(self.keys.part_slot(part), count).reading()
        };
        let replies = self.fleet.send(self.keys.parts().map(count).collect()).await?;
        replies.into_iter().map(|reply| Ok(value::number(&reply?).unwrap_or(0))).sum()
    }

    pub(super) async fn stale(&self, threshold: Duration, limit: usize) -> Result<Vec<StreamInfo>, RedisStoreError> {
        let before = self.time().await?.saturating_sub(millis(threshold));
        let mut stale = Vec::new();
        let mut ranges = self.ranges(before).await?;
        while !ranges.is_empty() && stale.len() < limit {
            let asked: Vec<Range> = ranges.drain(..ranges.len().min(RANGES)).collect();
            let members = |range: &Range| {
                let mut members = cmd("ZRANGEBYSCORE");
                members.arg(self.keys.active(range.part)).arg(&range.from).arg(&range.to);
                members.arg("LIMIT").arg(range.at).arg(LIST_PAGE);
                Request::new(self.keys.part_slot(range.part), members)
            };
            let replies = self.fleet.send_bulk(asked.iter().map(members).collect()).await?;
            let mut pages = Vec::with_capacity(asked.len());
            for members in replies {
                let members = value::array(members?, "ZRANGEBYSCORE")?;
                let is_full = members.len() == LIST_PAGE;
                let keys = members.into_iter().filter_map(|name| keys::key_of(&value::text(name)?));
                pages.push((is_full, keys.collect::<Vec<StreamKey>>()));
            }
            let of: Vec<StreamKeys> = pages.iter().flat_map(|(_, page)| page).map(|key| self.keys.of(key)).collect();
            let mut known = self.known_of(&of).await?.into_iter();
            let mut more = Vec::new();
            for (range, (is_full, page)) in asked.into_iter().zip(pages) {
                let found = stale.len();
                for (key, known) in page.iter().zip(&mut known) {
                    let info = known?.info(key).filter(|info| info.state == StreamState::Active);
                    stale.extend(info.filter(|info| info.last_heartbeat <= before));
                }
                // If no stream of a page is stale, none behind it is.
                if is_full && stale.len() > found {
                    more.push(Range { at: range.at + LIST_PAGE, ..range });
                }
            }
            more.append(&mut ranges);
            ranges = more;
        }
        stale.truncate(limit);
        Ok(stale)
    }

    /// Returns the ranges of the indexes that may hold streams whose last heartbeat is older than `before`: first the streams with
    /// deadlines of their own, then those under leases that may not have been renewed since, the oldest first.
    async fn ranges(&self, before: u64) -> Result<Vec<Range>, RedisStoreError> {
        let leases = |part| {
            let mut leases = cmd("ZRANGE");
            leases.arg(self.keys.leases(part)).arg(0).arg(LEASES_READ - 1).arg("WITHSCORES");
            Request::new(self.keys.part_slot(part), leases)
        };
        let replies = self.fleet.send_bulk(self.keys.parts().map(leases).collect()).await?;
        let own = |part| Range { part, from: "-inf".to_owned(), to: format!("({}", leases::LOWEST), at: 0 };
        let mut ranges: Vec<Range> = self.keys.parts().map(own).collect();
        let mut overdue = Vec::new();
        for (part, reply) in self.keys.parts().zip(replies) {
            for (lease, deadline) in value::scored(value::or_missing(reply)?, "ZRANGE")? {
                let lease = value::number(&lease).filter(|lease| leases::is_one(*lease));
                let lease = lease.filter(|lease| deadline.saturating_sub(leases::renewed_for(*lease)) <= before);
                overdue.extend(lease.map(|lease| (deadline, part, lease)));
            }
        }
        overdue.sort_unstable();
        ranges.extend(overdue.into_iter().map(|(_, part, lease)| {
            let [from, to] = leases::scores(lease).map(|score| score.to_string());
            Range { part, from, to, at: 0 }
        }));
        Ok(ranges)
    }
}

/// A range of a part of the index of active streams.
struct Range {
    part: u16,
    /// The lowest and the highest score.
    from: String,
    to: String,
    /// How many members have been read.
    at: usize,
}
