//! Signs of life, and looking after whoever gives none.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    time::Duration,
};

use redis::{Value, cmd};
use tokio::time::Instant;

use super::{
    Shared,
    clock::millis,
    error::RedisStoreError,
    fleet::Request,
    keys::{self, StreamKeys},
    look::Known,
    script,
    stored::Standing,
    value,
};
use crate::{
    id::{NodeId, StreamKey},
    store::{Beat, Beaten, Due, DueReason},
    stream::StreamState,
};

/// Members of one command: as many cost the server hardly more than one, and it is not held up for long.
const BEAT_MEMBERS: usize = 100;
/// A node's own key outlives its beats by this factor of the stale threshold.
const NODE_KEPT: u32 = 3;
/// At most every so manieth beat of a stream looks at the stream itself.
const LOOK_EVERY: u64 = 32;

const DAY: Duration = Duration::from_secs(86_400);

/// What a node's beats have found out.
pub(super) struct Pulse {
    /// The number of the last beat that was sent, and of the last one that was acknowledged: its own keys say one of
    /// these, or one in between.
    sent: u64,
    acknowledged: u64,
    /// How often the store turned out to have lost what it had acknowledged.
    losses: u64,
    /// When the last beat was acknowledged.
    last: Option<Instant>,
    /// Until when each stream is looked at: somebody may have taken it over unnoticed.
    suspicious: Instant,
}

pub(super) type Pulses = HashMap<NodeId, Pulse>;

impl Pulse {
    fn new() -> Self {
        Self { sent: 0, acknowledged: 0, losses: 0, last: None, suspicious: Instant::now() }
    }
}

impl Shared {
    pub(super) async fn beat(&self, beat: Beat) -> Result<Beaten, RedisStoreError> {
        // One at a time: the node's own keys are compared with what the last beat wrote.
        let mut pulses = self.pulses.lock().await;
        let fresh = pulses.get(&beat.node).and_then(|pulse| pulse.last);
        pulses.retain(|_, pulse| pulse.last.is_none_or(|last| last.elapsed() < DAY));
        let pulse = pulses.entry(beat.node.clone()).or_insert_with(Pulse::new);
        let reached = self.fleet.reach().await;
        let said = self.say_that_it_lives(&beat, pulse).await.and_then(|now| reached.map(|()| now));
        if fresh.is_none_or(|last| last.elapsed() >= beat.stale / 2) {
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        let everything = Instant::now() < pulse.suspicious;
        let mut hasher = DefaultHasher::new();
        (self.fleet.run(), pulse.losses).hash(&mut hasher);
        drop(pulses);
        // Also where one server of many did not take it: the others' streams must not pay for that.
        let now = said.as_ref().map_or_else(|_| self.clock.now(), |now| *now);
        let lost = self.push_deadlines(&beat, now, everything).await;
        Ok(Beaten { now: said?, run: u128::from(hasher.finish()), lost: lost? })
    }

    /// Writes the node's own key, one in each part of the indexes, so that a beat is acknowledged only if each server takes
    /// what other nodes' beats need it to take. What the key said before tells whether the store kept it.
    async fn say_that_it_lives(&self, beat: &Beat, pulse: &mut Pulse) -> Result<u64, RedisStoreError> {
        let may_say = pulse.acknowledged..=pulse.sent;
        pulse.sent += 1;
        let mut requests = vec![Request::new(self.keys.part_slot(0), cmd("TIME"))];
        for part in self.keys.parts() {
            let mut set = cmd("SET");
            set.arg(self.keys.node(&beat.node, part)).arg(pulse.sent).arg("PX");
            set.arg(millis(beat.stale.saturating_mul(NODE_KEPT)).max(1)).arg("GET");
            requests.push(Request::new(self.keys.part_slot(part), set));
        }
        let before = pulse.last.filter(|last| last.elapsed() < beat.stale.saturating_mul(NODE_KEPT - 1));
        let mut replies = self.fleet.send(requests).await?.into_iter();
        let now = time_of(replies.next().unwrap_or_else(|| Err(value::unexpected("TIME")))?)?;
        let mut kept = true;
        for reply in replies {
            kept &= value::number(&reply?).is_some_and(|says| may_say.contains(&says));
        }
        pulse.acknowledged = pulse.sent;
        if before.is_some() && !kept {
            pulse.losses += 1;
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        pulse.last = Some(Instant::now());
        self.clock.heard(now);
        Ok(now)
    }

    /// Returns which of the streams, by index, are not the node's any more.
    async fn push_deadlines(&self, beat: &Beat, now: u64, everything: bool) -> Result<Vec<usize>, RedisStoreError> {
        if beat.streams.is_empty() {
            return Ok(Vec::new());
        }
        let of: Vec<StreamKeys> = beat.streams.iter().map(|(key, _)| self.keys.of(key)).collect();
        let deadline = now + millis(beat.stale);
        let ttl = millis(beat.lifetime) + millis(beat.stale);
        let mut parts: HashMap<u16, Vec<usize>> = HashMap::new();
        for (index, keys) in of.iter().enumerate() {
            parts.entry(self.keys.part(keys.slot)).or_default().push(index);
        }
        let mut requests = Vec::new();
        let mut pages = Vec::new();
        for (part, members) in &parts {
            let (slot, active) = (self.keys.part_slot(*part), self.keys.active(*part));
            for page in members.chunks(BEAT_MEMBERS) {
                let mut push = cmd("ZADD");
                push.arg(&active).arg("XX").arg("CH");
                for index in page {
                    push.arg(deadline).arg(&of[*index].name);
                }
                requests.push(Request::new(slot, push));
                pages.push(page);
            }
            let mut renew = cmd("PEXPIRE");
            renew.arg(&active).arg(ttl).arg("GT");
            requests.push(Request::new(slot, renew));
            pages.push(&[]);
        }
        let mut looked_at = Vec::new();
        // A share of the streams each time, so that each one's keys are renewed well within its lifetime.
        // By the time, not by a count of beats: the pages of one round must not drift apart.
        let round = now / (millis(beat.stale) / 3).max(1);
        let share = (millis(beat.lifetime) / millis(beat.stale).max(1) / 4).clamp(1, LOOK_EVERY);
        for (reply, page) in self.fleet.send(requests).await?.into_iter().zip(pages) {
            let pushed = value::number(&reply?).unwrap_or(0);
            // Some are missing, or are where they were: on a shortfall each is looked at.
            let short = !page.is_empty() && pushed < page.len() as u64;
            let turn = |index: &&usize| beat.streams[**index].1 % share == round % share;
            looked_at.extend(page.iter().filter(|index| short || everything || turn(index)).copied());
        }
        self.look_at_own(beat, &of, deadline, &looked_at).await
    }

    /// Looks whether streams are still the node's, and renews what is kept of those that are.
    async fn look_at_own(
        &self,
        beat: &Beat,
        of: &[StreamKeys],
        deadline: u64,
        looked_at: &[usize],
    ) -> Result<Vec<usize>, RedisStoreError> {
        let ttl = millis(beat.lifetime) + millis(beat.stale);
        let now = deadline.saturating_sub(millis(beat.stale));
        let renewal = |index: &usize| {
            let (keys, (key, epoch)) = (&of[*index], &beat.streams[*index]);
            let (active, (_, owner)) = (self.keys.active(0), self.keys.owner(&key.owner));
            let mut names = vec![&*keys.stream, &*keys.log];
            if !self.cluster {
                names.extend([&*active, &*owner]);
            }
            let renewal = Request::script(keys.slot, &script::RENEW, &names).arg(&keys.name).arg(key.id.as_str());
            renewal.arg(*epoch).arg(deadline).arg(ttl).arg(now)
        };
        let mut lost = Vec::new();
        let mut indexes = Vec::new();
        let replies = self.fleet.send(looked_at.iter().map(renewal).collect()).await?;
        for (index, reply) in looked_at.iter().zip(replies) {
            let ttl = match reply {
                // What stands in the place of its owner's index is no reason to take it for another's.
                Err(error) if error.is_of_one_key() => continue,
                reply => value::number(&reply?).unwrap_or(0),
            };
            if ttl == 0 {
                lost.push(*index);
            } else if self.cluster {
                indexes.extend(self.index_renewals(&of[*index], &beat.streams[*index].0, deadline, now, ttl));
            }
        }
        for reply in self.fleet.send(indexes).await? {
            reply?;
        }
        lost.sort_unstable();
        Ok(lost)
    }

    /// The same for the indexes of a cluster.
    fn index_renewals(&self, keys: &StreamKeys, key: &StreamKey, deadline: u64, now: u64, ttl: u64) -> [Request; 2] {
        let part = self.keys.part(keys.slot);
        let watch = Request::script(self.keys.part_slot(part), &script::WATCH, &[&self.keys.active(part)]);
        let (slot, owner) = self.keys.owner(&key.owner);
        let own = Request::script(slot, &script::OWN, &[&owner]).arg(key.id.as_str());
        [watch.arg(&keys.name).arg(deadline).arg(ttl).arg("NX"), own.arg(now + ttl).arg(1).arg("").arg("")]
    }

    pub(super) async fn due(
        &self,
        limit: usize,
        lease: Duration,
        claim: Option<u64>,
    ) -> Result<Vec<Due>, RedisStoreError> {
        let mut all = Vec::new();
        if limit == 0 {
            return Ok(all);
        }
        // One clock for all parts of a cluster; a single server asks its own.
        let time = if self.cluster { self.time().await?.to_string() } else { String::new() };
        let (vouched, claim) =
            (claim.unwrap_or(0), claim.map(|claim| claim.min(1 << 52).to_string()).unwrap_or_default());
        let lease = millis(lease);
        for part in self.keys.parts() {
            let (slot, active, due) = (self.keys.part_slot(part), self.keys.active(part), self.keys.due(part));
            loop {
                let room = limit - all.len();
                let claims = Request::script(slot, &script::CLAIM, &[&active, &due]).arg(&claim).arg(room);
                let (now, leased) = leased(self.fleet.ask(claims.arg(lease).arg(&time)).await?, part)?;
                let full = leased.len() == room;
                self.look_at_leased(leased, now, now.min(vouched), &mut all).await?;
                if all.len() >= limit {
                    return Ok(all);
                }
                if !full {
                    break;
                }
            }
        }
        Ok(all)
    }

    async fn look_at_leased(
        &self,
        leased: Vec<Leased>,
        now: u64,
        vouched: u64,
        all: &mut Vec<Due>,
    ) -> Result<(), RedisStoreError> {
        let mut named = Vec::with_capacity(leased.len());
        for leased in leased {
            // A name, and one that belongs where it stands.
            let key = str::from_utf8(&leased.name).ok().and_then(keys::key_of);
            let keys = key.map(|key| (self.keys.of(&key), key));
            match keys.filter(|(keys, _)| self.keys.part(keys.slot) == leased.part) {
                Some((keys, key)) => named.push((leased, keys, key)),
                None => self.drop_unreadable(&leased).await?,
            }
        }
        let of: Vec<_> = named.iter().map(|(_, keys, _)| keys).collect();
        if of.is_empty() {
            return Ok(());
        }
        let mut mends = Vec::new();
        for ((leased, keys, key), known) in named.iter().zip(self.know_all(&of).await?) {
            // One that cannot be looked at stays leased, and is looked at again.
            if let Ok(known) = known {
                let at = if leased.active { vouched } else { now };
                all.extend(self.judge(leased, keys, key, known, at, &mut mends));
            }
        }
        // All in one go. What of this fails is found again when the leases are over.
        self.tell(mends).await;
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
    /// asker vouches for the store's clock.
    fn judge(
        &self,
        leased: &Leased,
        keys: &StreamKeys,
        key: &StreamKey,
        known: Known,
        now: u64,
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
                mends.push(self.unwatching(&index, keys, leased.deadline, None));
            }
            return due;
        }
        let active = self.keys.active(leased.part);
        if standing != Standing::Is(StreamState::Active) {
            // Whoever ended it may not have come so far as to say that somebody must look after that.
            mends.extend(self.looking_after(keys, &known, now));
            mends.push(self.unwatching(&active, keys, leased.deadline, None));
            return None;
        }
        let heard = known.held.last_heard(leased.was);
        let lives = heard.max(known.written).saturating_add(known.held.number("life"));
        // What the index holds is when it is overdue, unless its lifetime is even shorter.
        let by_index = known.held.number("stale") <= known.held.number("life");
        let overdue = heard.saturating_add(known.held.number("stale"));
        let reason = if lives <= now {
            DueReason::Lifetime
        } else if known.held.node().is_some() && (by_index || overdue <= now) {
            DueReason::Stale
        } else {
            // Something was written since: its time has not come.
            let deadline = if known.held.node().is_some() { lives.min(overdue) } else { lives };
            mends.push(self.unwatching(&active, keys, leased.deadline, Some(deadline)));
            return None;
        };
        let mark = Request::script(keys.slot, &script::LEASED, &[&keys.stream]);
        mends.push(mark.arg(known.held.epoch()).arg(heard).arg(leased.deadline));
        let known = Known { active: Some(leased.deadline), ..known };
        let info = known.info(key).map(|info| crate::StreamInfo { last_heartbeat: heard, ..info });
        info.map(|info| Due { info, reason })
    }

    /// What must stand in the index of those that somebody must look after, of a stream that does not run.
    fn looking_after(&self, keys: &StreamKeys, known: &Known, now: u64) -> Option<Request> {
        let deadline = match known.held.standing() {
            Standing::Is(state) if state.is_terminal() && known.hook => now,
            Standing::Is(StreamState::Interrupted) if !known.held.flag("reruns") => {
                known.held.last_heard(0).max(known.written).saturating_add(known.held.number("life"))
            }
            _ => return None,
        };
        known.due.is_none().then(|| self.watching_due(keys, deadline))
    }

    /// The store's clock.
    pub(super) async fn time(&self) -> Result<u64, RedisStoreError> {
        let now = time_of(self.fleet.ask(Request::new(self.keys.part_slot(0), cmd("TIME"))).await?)?;
        self.clock.heard(now);
        Ok(now)
    }
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

fn time_of(reply: Value) -> Result<u64, RedisStoreError> {
    let mut parts = value::array(reply, "TIME")?.into_iter();
    let mut part = || parts.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected("TIME"));
    Ok(part()? * 1000 + part()? / 1000)
}
