//! Looking after streams whose node gives no sign of life, and after ends whose hook waits.

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
/// Streams that are marked in one script.
const MARKS: usize = 50;
/// A sweep's page that took so long is handed out as it is.
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
        // What is leased is never dropped: only where nothing could be asked at all is there an error, and nothing more is
        // leased where there may not be the time to look at it.
        while all.len() < limit && !asked.is_empty() && (all.is_empty() || begun.elapsed() < ENOUGH) {
            let room = limit - all.len();
            let mut later = asked.split_off(room.min(asked.len()));
            // All at the same time. One that has more is asked again.
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
            // A name, and one that belongs where it stands.
            let key = str::from_utf8(&leased.name).ok().and_then(keys::key_of);
            let keys = key.map(|key| (self.keys.of(&key), key));
            match keys.filter(|(keys, _)| self.keys.part(keys.slot) == leased.part) {
                Some((keys, key)) => named.push((leased, now, keys, key)),
                // Should this fail, it is found again when the lease is over.
                None => drop(self.drop_unreadable(&leased).await),
            }
        }
        let of: Vec<_> = named.iter().map(|(_, _, keys, _)| keys).collect();
        if of.is_empty() {
            return Ok(());
        }
        let (mut mends, mut marks) = (Vec::new(), Vec::new());
        for ((leased, now, keys, key), known) in named.iter().zip(self.known_of_leased(&of).await?) {
            // One that cannot be looked at stays leased, and is looked at again.
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
        // All in one go. What of this fails is found again when the leases are over.
        self.send_best_effort(mends).await;
        Ok(())
    }

    /// A member that is no stream's name.
    async fn drop_unreadable(&self, leased: &Leased) -> Result<(), RedisStoreError> {
        let index = if leased.active { self.keys.active(leased.part) } else { self.keys.due(leased.part) };
        let mut remove = cmd("ZREM");
        remove.arg(index).arg(&*leased.name);
        self.fleet.ask(Request::new(self.keys.part_slot(leased.part), remove)).await.map(drop)
    }

    /// Why somebody must look at a leased stream; `None`: nobody must, and the index is mended. `now` is as far as the
    /// asker vouches for the store's clock, `clock` what that says itself.
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
            // Whoever ended it may not have come so far as to say that somebody must look after that.
            mends.extend(self.looking_after(keys, &known, now));
            mends.push(self.keys.unwatching(&active, keys, leased.deadline, None));
            return None;
        }
        let heard = known.held.last_heartbeat(leased.was);
        let lives = heard.max(known.written).saturating_add(known.held.number("life"));
        // What the index holds is when it is overdue, unless its lifetime is even shorter.
        let by_index = known.held.number("stale") <= known.held.number("life");
        let stale = known.held.number("stale");
        let overdue = heard.saturating_add(stale);
        // Whoever has just written is alive, also if the index did not take its beats. A clock that was set back says nothing.
        let writes = (clock.saturating_sub(stale)..=clock + SKEW).contains(&known.written);
        let reason = if lives <= now {
            DueReason::Lifetime
        } else if known.held.node().is_some() && !writes && (by_index || overdue <= now) {
            DueReason::Stale
        } else {
            // Something was written since: its time has not come.
            let overdue = if writes { known.written.saturating_add(stale) } else { overdue };
            let deadline = if known.held.node().is_some() { lives.min(overdue) } else { lives };
            mends.push(self.keys.unwatching(&active, keys, leased.deadline, Some(deadline)));
            return None;
        };
        let known = Known { active: Some(leased.deadline), ..known };
        let info = known.info(key).map(|info| crate::StreamInfo { last_heartbeat: heard, ..info });
        info.map(|info| Due { info, reason })
    }

    /// What must stand in the index of those that somebody must look after, of a stream that does not run.
    fn looking_after(&self, keys: &StreamKeys, known: &Known, now: u64) -> Option<Request> {
        let overdue = match known.held.standing() {
            Standing::Is(state) if state.is_terminal() && known.hook => 0,
            Standing::Is(StreamState::Interrupted) if !known.held.flag("reruns") => {
                let heard = known.held.last_heartbeat(0).max(known.written);
                heard.saturating_add(known.held.number("life")).saturating_sub(now)
            }
            _ => return None,
        };
        known.due.is_none().then(|| self.keys.watching_due(keys, overdue))
    }
}

/// Keeps when producers of streams that were leased were last heard of: a stream's keys, its epoch, that time, and the
/// deadline that the lease wrote.
fn mark_request(marks: &[(&StreamKeys, u64, u64, u64)]) -> Request {
    let names: Vec<&str> = marks.iter().flat_map(|(keys, ..)| [&*keys.stream, &*keys.log]).collect();
    let request = Request::script(marks[0].0.slot, &script::LEASED_EACH, &names).arg(marks.len());
    marks
        .iter()
        .fold(request, |request, (_, epoch, heard, deadline)| request.arg(3).arg(epoch).arg(heard).arg(deadline))
}

/// A stream that was leased; or whatever else stood in the index.
struct Leased {
    name: Vec<u8>,
    /// The part of the indexes that it stood in.
    part: u16,
    /// The deadline that it had, and the one that the lease wrote.
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
