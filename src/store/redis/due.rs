//! Sweeps: leasing streams whose node sends no beats, and ended ones whose hook waits.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::Instant;

use super::{
    clock::millis,
    error::RedisStoreError,
    keys::{self, StreamKeys},
    known::Known,
    leases,
    request::Request,
    script,
    shared::Shared,
    stored::Standing,
    value,
};
use crate::{
    model::{id::StreamKey, stream::StreamState},
    store::{Due, DueReason},
};

/// How far apart the clocks of a cluster's servers may be, in milliseconds.
const SKEW: u64 = 1000;
/// How many streams one script marks.
const MARKS: usize = 50;
/// A sweep that has taken this long leases nothing more.
const ENOUGH: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) async fn due(
        &self,
        limit: usize,
        lease: Duration,
        claim: Option<u64>,
    ) -> Result<Vec<Due>, RedisStoreError> {
        let mut all = Vec::new();
        let vouches = self.parts_vouched_for().await;
        let vouched = claim.unwrap_or(0);
        let claim = claim.map(|claim| claim.min(1 << 52).to_string()).unwrap_or_default();
        let lease = millis(lease);
        let begun = Instant::now();
        let mut asked: Vec<u16> = self.keys.parts().collect();
        // Leased streams are always returned: an error is returned only if nothing was leased, and nothing more is leased when
        // there may be no time to look at it.
        while all.len() < limit && !asked.is_empty() && (all.is_empty() || begun.elapsed() < ENOUGH) {
            let room = limit - all.len();
            let mut later = asked.split_off(room.min(asked.len()));
            // All parts at once. A part that has more is asked again.
            let each = room / asked.len();
            let claims = asked.iter().map(|part| {
                let names = [&*self.keys.active(*part), &*self.keys.due(*part), &*self.keys.leases(*part)];
                let claim = if vouches[usize::from(*part)] { &*claim } else { "" };
                let claims = Request::script(self.keys.part_slot(*part), &script::CLAIM, &names);
                claims.arg(claim).arg(each).arg(lease).arg(leases::anywhere())
            });
            let replies = self.fleet.send(claims.collect()).await?;
            let mut failed = None;
            let mut more = Vec::new();
            let mut streams = Vec::new();
            let answered = replies.iter().filter(|reply| reply.is_ok()).count();
            for (part, reply) in asked.into_iter().zip(replies) {
                match reply.and_then(|reply| leased(reply, part)) {
                    Ok((now, leased)) => {
                        if leased.len() == each {
                            more.push(part);
                        }
                        streams.extend(leased.into_iter().map(|leased| (leased, now)));
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed.filter(|_| answered == 0 && all.is_empty()) {
                return Err(error);
            }
            if let Err(error) = self.inspect_leased(streams, vouched, &mut all).await {
                return if all.is_empty() { Err(error) } else { Ok(all) };
            }
            later.extend(more);
            asked = later;
        }
        Ok(all)
    }

    async fn inspect_leased(
        &self,
        leased: Vec<(Leased, u64)>,
        vouched: u64,
        all: &mut Vec<Due>,
    ) -> Result<(), RedisStoreError> {
        let mut named = Vec::with_capacity(leased.len());
        for (leased, now) in leased {
            // The member must be the name of a stream, and of one that belongs to this part.
            let key = str::from_utf8(&leased.name).ok().and_then(keys::key_of);
            let keys = key.map(|key| (self.keys.of(&key), key));
            match keys.filter(|(keys, _)| self.keys.part(keys.slot) == leased.part) {
                Some((keys, key)) => named.push((leased, now, keys, key)),
                // If this fails, it is found again when the lease is over.
                None => drop(self.drop_unreadable(&leased).await),
            }
        }
        let of: Vec<_> = named.iter().map(|(_, _, keys, _)| keys).collect();
        if of.is_empty() {
            return Ok(());
        }
        let (mut mends, mut marks) = (Vec::new(), Vec::new());
        for ((leased, now, keys, key), known) in named.iter().zip(self.known_of_leased(&of).await?) {
            // A stream that cannot be read stays leased, and is found again after that.
            if let Ok(known) = known {
                let at = if leased.active { vouched.min(*now) } else { *now };
                let due = self.due_of(leased, keys, key, known, (at, *now), &mut mends);
                if let Some(due) = due {
                    if leased.active {
                        marks.push((keys, due.info.epoch, due.info.last_heartbeat, leased.deadline));
                    }
                    all.push(due);
                }
            }
        }
        let page = if self.cluster { 1 } else { MARKS };
        mends.extend(marks.chunks(page).map(mark_request));
        // If any of this fails, it is found again when the leases are over.
        self.send_best_effort(mends).await;
        Ok(())
    }

    /// Removes a member that is not the name of a stream.
    async fn drop_unreadable(&self, leased: &Leased) -> Result<(), RedisStoreError> {
        let index = if leased.active { self.keys.active(leased.part) } else { self.keys.due(leased.part) };
        let mut remove = cmd("ZREM");
        remove.arg(index).arg(&*leased.name);
        self.fleet.ask(Request::new(self.keys.part_slot(leased.part), remove)).await.map(drop)
    }

    /// Why a guardian must look at a leased stream. `None`: it need not, and the index is mended. `now` is the time that the caller
    /// vouches for, `clock` the server's own.
    fn due_of(
        &self,
        leased: &Leased,
        keys: &StreamKeys,
        key: &StreamKey,
        known: Known,
        (now, clock): (u64, u64),
        mends: &mut Vec<Request>,
    ) -> Option<Due> {
        let standing = known.held.standing();
        if !leased.active {
            let reason = match standing {
                Standing::Is(state) if state.is_terminal() && known.hook => Some(DueReason::Hook),
                Standing::Is(StreamState::Interrupted) => Some(DueReason::Lifetime),
                _ => None,
            };
            let due = reason.and_then(|reason| Some(Due { info: known.info(key)?, reason }));
            if due.is_none() {
                let index = self.keys.due(leased.part);
                mends.push(self.keys.unwatching(&index, keys, leased.deadline, None));
            }
            return due;
        }
        let active = self.keys.active(leased.part);
        if standing != Standing::Is(StreamState::Active) {
            // The node that ended it may have died before it wrote this index.
            mends.extend(self.looking_after(keys, &known, now));
            mends.push(self.keys.unwatching(&active, keys, leased.deadline, None));
            return None;
        }
        let last_heartbeat = known.held.last_heartbeat(leased.was);
        let lives = last_heartbeat.max(known.written).saturating_add(known.held.number("life"));
        // The deadline in the index is when the stream is overdue, or the end of its lifetime if that is sooner.
        let by_index = known.held.number("stale") <= known.held.number("life");
        let stale = known.held.number("stale");
        let overdue = last_heartbeat.saturating_add(stale);
        // A producer that has just written is alive, even if the index did not take its beats. A time in the future (the clock was
        // set back) is no evidence.
        let writes = (clock.saturating_sub(stale)..=clock + SKEW).contains(&known.written);
        let reason = if lives <= now {
            DueReason::Lifetime
        } else if known.held.node().is_some() && !writes && (by_index || overdue <= now) {
            DueReason::Stale
        } else {
            // Events were recorded since the deadline was written, by a publisher or by a producer whose beats were lost, so it
            // has moved.
            let overdue = if writes { known.written.saturating_add(stale) } else { overdue };
            let deadline = if known.held.node().is_some() { lives.min(overdue) } else { lives };
            mends.push(self.keys.unwatching(&active, keys, leased.deadline, Some(deadline)));
            return None;
        };
        let known = Known { active: Some(leased.deadline), ..known };
        let info = known.info(key).map(|info| crate::StreamInfo { last_heartbeat, ..info });
        info.map(|info| Due { info, reason })
    }

    /// Returns the request that adds a stream that does not run to the index of streams that a guardian must look after, if it
    /// belongs there and is missing.
    fn looking_after(&self, keys: &StreamKeys, known: &Known, now: u64) -> Option<Request> {
        let overdue = match known.held.standing() {
            Standing::Is(state) if state.is_terminal() && known.hook => 0,
            Standing::Is(StreamState::Interrupted) if !known.held.flag("reruns") => {
                let last_heartbeat = known.held.last_heartbeat(0).max(known.written);
                last_heartbeat.saturating_add(known.held.number("life")).saturating_sub(now)
            }
            _ => return None,
        };
        known.due.is_none().then(|| self.keys.watching_due(keys, overdue))
    }
}

/// Stores the last heartbeats of leased streams, since the lease has overwritten the deadlines from which they were known. Each
/// stream is given by its keys, its epoch, its last heartbeat, and the deadline that the lease wrote.
fn mark_request(marks: &[(&StreamKeys, u64, u64, u64)]) -> Request {
    let names: Vec<&str> = marks.iter().flat_map(|(keys, ..)| [&*keys.stream, &*keys.log]).collect();
    let request = Request::script(marks[0].0.slot, &script::LEASED_EACH, &names).arg(marks.len());
    marks.iter().fold(request, |request, (_, epoch, last_heartbeat, deadline)| {
        request.arg(3).arg(epoch).arg(last_heartbeat).arg(deadline)
    })
}

/// A leased member of an index: mostly a stream.
struct Leased {
    name: Vec<u8>,
    /// The part of the indexes.
    part: u16,
    /// The deadline before the lease, and the one that the lease wrote.
    was: u64,
    deadline: u64,
    active: bool,
}

fn leased(reply: Value, part: u16) -> Result<(u64, Vec<Leased>), RedisStoreError> {
    const WHAT: &str = "claim";
    let mut parts = value::array(reply, WHAT)?.into_iter();
    let now = parts.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected(WHAT))?;
    let mut all = Vec::new();
    for (active, list) in [false, true].into_iter().zip(parts) {
        let mut words = value::array(list, WHAT)?.into_iter();
        while let (Some(name), Some(was), Some(deadline)) = (words.next(), words.next(), words.next()) {
            let name = value::bytes(name).ok_or_else(|| value::unexpected(WHAT))?;
            let deadline = value::number(&deadline).ok_or_else(|| value::unexpected(WHAT))?;
            all.push(Leased { name, part, was: value::number(&was).unwrap_or(0), deadline, active });
        }
    }
    Ok((now, all))
}
