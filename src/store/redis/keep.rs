//! Signs of life: a node's own, and those of its streams.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
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
    indexes::{Watching, of_a_beat},
    keys::StreamKeys,
    script, value,
};
use crate::{
    id::NodeId,
    store::{Beat, Beaten},
};

/// Members of one command: as many cost the server hardly more than one, and it is not held up for long.
const BEAT_MEMBERS: usize = 100;
/// A node's own key outlives its beats by this factor of the stale threshold.
const NODE_KEPT: u32 = 3;
/// A stream itself is looked at once in so many rounds of beats, or more often.
const LOOK_EVERY: u64 = 64;

/// Not the name of a stream: no name has a space.
const NO_STREAM: &str = "no stream";

const DAY: Duration = Duration::from_secs(86_400);

/// What a node's beats have found out.
pub(super) struct Pulse {
    /// The number of the last beat that was sent.
    sent: u64,
    /// What each part of the indexes has said.
    parts: Vec<PartPulse>,
    /// How often the store turned out to have lost what it had acknowledged.
    losses: u64,
    /// When a beat was last sent.
    last: Option<Instant>,
    stale: Duration,
    /// Until when each stream is looked at: somebody may have taken it over unnoticed.
    suspicious: Instant,
}

#[derive(Clone, Copy, Default)]
struct PartPulse {
    /// The number of the last beat that it acknowledged, and when: the node's own key says this one, a later one, or one in
    /// between.
    acknowledged: Option<(u64, Instant)>,
    /// When it last refused a beat, or did not answer: for a whole stale threshold it says nothing of who is dead.
    failed: Option<Instant>,
}

pub(super) type Pulses = HashMap<NodeId, Pulse>;

impl Pulse {
    fn new(parts: usize) -> Self {
        Self {
            sent: 0,
            parts: vec![PartPulse::default(); parts],
            losses: 0,
            last: None,
            stale: Duration::ZERO,
            suspicious: Instant::now(),
        }
    }
}

/// What became of a node's sign of life.
struct Said {
    /// What the server of each part of the indexes said.
    parts: Vec<Heard>,
    /// Why one did not take it.
    error: Option<RedisStoreError>,
}

/// What the server of a part of the indexes said to a node's sign of life.
#[derive(Clone, Copy)]
enum Heard {
    /// It took it; its clock.
    Taken(u64),
    /// It answered, and did not take it.
    Refused,
    /// It did not answer.
    Nothing,
}

impl Heard {
    fn taken(self) -> Option<u64> {
        if let Self::Taken(now) = self { Some(now) } else { None }
    }
}

/// How a beat's streams fared.
#[derive(Default)]
struct Pushed {
    lost: Vec<usize>,
    missed: Vec<usize>,
    /// The parts of the indexes that did not take all of it, and why one did not.
    refused: Vec<u16>,
    error: Option<RedisStoreError>,
}

impl Shared {
    pub(super) async fn beat(&self, beat: Beat) -> Result<Beaten, RedisStoreError> {
        // One at a time: the node's own keys are compared with what the last beat wrote.
        let mut pulses = self.pulses.lock().await;
        let fresh = pulses.get(&beat.node).and_then(|pulse| pulse.last);
        pulses.retain(|_, pulse| pulse.last.is_none_or(|last| last.elapsed() < DAY));
        let pulse = pulses.entry(beat.node.clone()).or_insert_with(|| Pulse::new(self.keys.parts().len()));
        // So that the run of each server is known. One that is not reached does not take the beat either.
        let _ = self.fleet.reach().await;
        let said = self.say_that_it_lives(&beat, pulse).await;
        if fresh.is_none_or(|last| last.elapsed() >= beat.stale / 2) {
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        let everything = Instant::now() < pulse.suspicious;
        let mut hasher = DefaultHasher::new();
        (self.fleet.run(), pulse.losses).hash(&mut hasher);
        drop(pulses);
        // Also where a server did not take the node's key: the streams must not pay for that.
        let pushed = self.push_deadlines(&beat, &said.parts, everything).await;
        let mut refused = pushed.refused;
        refused.extend(self.keys.parts().filter(|part| said.parts[usize::from(*part)].taken().is_none()));
        refused.sort_unstable();
        refused.dedup();
        self.note_failures(&beat.node, &refused).await;
        let taken_by = self.taken_by(&refused);
        let now = said.parts.iter().find_map(|heard| heard.taken()).filter(|_| refused.len() < said.parts.len());
        match (now, said.error) {
            (Some(now), _) => {
                let refused_by = refused.into_iter().map(|part| self.fleet.part(self.keys.part_slot(part)));
                Ok(Beaten {
                    now,
                    run: u128::from(hasher.finish()),
                    lost: pushed.lost,
                    missed: pushed.missed,
                    refused_by: refused_by.collect(),
                    taken_by,
                })
            }
            (None, error) => Err(error.or(pushed.error).unwrap_or_else(|| value::unexpected("a beat"))),
        }
    }

    /// The servers that have parts of the indexes, none of which refused a beat.
    fn taken_by(&self, refused: &[u16]) -> Vec<u64> {
        let of = |part: u16| self.fleet.part(self.keys.part_slot(part));
        let refused_by: Vec<u64> = refused.iter().map(|part| of(*part)).collect();
        let mut taken_by: Vec<u64> = self.keys.parts().map(of).filter(|server| !refused_by.contains(server)).collect();
        taken_by.sort_unstable();
        taken_by.dedup();
        taken_by
    }

    /// Notes which parts of the indexes have failed: see [`Self::vouches`].
    async fn note_failures(&self, node: &NodeId, refused: &[u16]) {
        let mut pulses = self.pulses.lock().await;
        let Some(pulse) = pulses.get_mut(node) else { return };
        for part in refused {
            pulse.parts[usize::from(*part)].failed = Some(Instant::now());
        }
    }

    /// Which parts of the indexes have taken every beat of this process for a whole stale threshold, as far as it has sent
    /// any: only there may an overdue stream be taken for an orphan (guarantee G5).
    pub(super) async fn vouches(&self) -> Vec<bool> {
        let pulses = self.pulses.lock().await;
        let vouches = |part: u16| {
            let sound =
                |pulse: &Pulse| pulse.parts[usize::from(part)].failed.is_none_or(|at| at.elapsed() >= pulse.stale);
            pulses.values().all(sound)
        };
        self.keys.parts().map(vouches).collect()
    }

    /// Writes the node's own key, one in each part of the indexes, and says of a stream that is none that it lives: so a beat
    /// is acknowledged only by a server that takes what other nodes' beats need it to take. What the key said before tells
    /// whether the store kept it. The key is this process's own: another one that was given the same name has another.
    async fn say_that_it_lives(&self, beat: &Beat, pulse: &mut Pulse) -> Said {
        pulse.sent += 1;
        pulse.stale = beat.stale;
        pulse.last = Some(Instant::now());
        let kept = beat.stale.saturating_mul(NODE_KEPT);
        let mut requests = Vec::new();
        for part in self.keys.parts() {
            let slot = self.keys.part_slot(part);
            let mut set = cmd("SET");
            set.arg(self.keys.node(&beat.node, self.tails.process(), part)).arg(pulse.sent).arg("PX");
            set.arg(millis(kept).max(1)).arg("GET");
            let mut push = cmd("ZADD");
            push.arg(self.keys.active(part)).arg("XX").arg("CH").arg(0).arg(NO_STREAM);
            requests.extend([cmd("TIME"), set, push].map(|command| Request::new(slot, command)));
        }
        let mut said = Said { parts: vec![Heard::Nothing; self.keys.parts().len()], error: None };
        let mut replies = match self.fleet.send(requests).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => {
                said.error = Some(error);
                return said;
            }
        };
        let mut lost = false;
        for (heard, part) in said.parts.iter_mut().zip(&mut pulse.parts) {
            let mut next = || replies.next().unwrap_or_else(|| Err(value::unexpected("a beat")));
            let (clock, before, pushed) = (next().and_then(time_of), next(), next());
            let (clock, before) = match (clock, before, pushed) {
                (Ok(clock), Ok(before), Ok(_)) => (clock, before),
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                    *heard = if error.code().is_some() { Heard::Refused } else { Heard::Nothing };
                    said.error = Some(error);
                    continue;
                }
            };
            // One that has lain for so long may have expired.
            let fresh = part.acknowledged.filter(|(_, at)| at.elapsed() < beat.stale.saturating_mul(NODE_KEPT - 1));
            lost |= fresh.is_some_and(|(number, _)| value::number(&before).is_none_or(|says| says < number));
            part.acknowledged = Some((pulse.sent, Instant::now()));
            *heard = Heard::Taken(clock);
        }
        if lost {
            pulse.losses += 1;
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        if let Some(now) = said.parts.iter().find_map(|heard| heard.taken()) {
            self.clock.heard(now);
        }
        said
    }

    /// Pushes the streams' deadlines, by the clock of the server that holds each. One that has just not answered is not
    /// asked again: the others' streams must not wait for it.
    async fn push_deadlines(&self, beat: &Beat, heard: &[Heard], everything: bool) -> Pushed {
        let mut pushed = Pushed::default();
        if beat.streams.is_empty() {
            return pushed;
        }
        let of: Vec<StreamKeys> = beat.streams.iter().map(|(key, _)| self.keys.of(key)).collect();
        let ttl = millis(beat.lifetime) + millis(beat.stale);
        let now = |part: u16| heard[usize::from(part)].taken().unwrap_or_else(|| self.clock.now());
        let mut parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, keys) in of.iter().enumerate() {
            let part = self.keys.part(keys.slot);
            match heard[usize::from(part)] {
                Heard::Nothing => pushed.missed.push(index),
                Heard::Taken(_) | Heard::Refused => parts.entry(part).or_default().push(index),
            }
        }
        let mut requests = Vec::new();
        let mut pages: Vec<(u16, &[usize])> = Vec::new();
        // In the index's own order: neighbours cost half of what members all over it do.
        for members in parts.values_mut() {
            members.sort_unstable_by(|a, b| of[*a].name.cmp(&of[*b].name));
        }
        for (part, members) in &parts {
            let (slot, active) = (self.keys.part_slot(*part), self.keys.active(*part));
            let deadline = now(*part) + millis(beat.stale);
            let deadline = if self.cluster { of_a_beat(deadline) } else { deadline };
            for page in members.chunks(BEAT_MEMBERS) {
                let mut push = cmd("ZADD");
                push.arg(&active).arg("XX").arg("CH");
                for index in page {
                    push.arg(deadline).arg(&of[*index].name);
                }
                requests.push(Request::new(slot, push));
                pages.push((*part, page));
            }
            let mut renew = cmd("PEXPIRE");
            renew.arg(&active).arg(ttl).arg("GT");
            requests.push(Request::new(slot, renew));
            pages.push((*part, &[]));
        }
        // A share of the streams each time, so that each one's keys are renewed well within its lifetime.
        // By the time, not by a count of beats: the pages of one round must not drift apart.
        let round = self.clock.now() / (millis(beat.stale) / 3).max(1);
        let share = (millis(beat.lifetime) / millis(beat.stale).max(1) / 2).clamp(1, LOOK_EVERY);
        let replies = match self.fleet.send(requests).await {
            Ok(replies) => replies,
            Err(error) => {
                pushed.missed = (0..of.len()).collect();
                pushed.refused.extend(parts.keys());
                pushed.error = Some(error);
                return pushed;
            }
        };
        let silent = self.keys.parts().filter(|part| matches!(heard[usize::from(*part)], Heard::Nothing));
        let silent: Vec<u64> = silent.map(|part| self.fleet.part(self.keys.part_slot(part))).collect();
        let mut looked_at = Vec::new();
        for (reply, (part, page)) in replies.into_iter().zip(pages) {
            let count = match reply {
                Ok(count) => value::number(&count).unwrap_or(0),
                Err(error) => {
                    pushed.missed.extend(page);
                    pushed.refused.push(part);
                    pushed.error = Some(error);
                    continue;
                }
            };
            // Some are missing, or are where they were: on a shortfall each is looked at.
            let short = !page.is_empty() && count < page.len() as u64;
            let turn = |index: &&usize| beat.streams[**index].1 % share == round % share;
            let answers = |index: &&usize| !silent.contains(&self.fleet.part(of[**index].slot));
            let page = page.iter().filter(|index| short || everything || turn(index)).filter(answers);
            looked_at.extend(page.map(|index| (*index, now(part))));
        }
        self.look_at_own(beat, &of, &looked_at, &mut pushed).await;
        pushed
    }

    /// Looks whether streams are still the node's, and renews what is kept of those that are. Each comes with the time by
    /// which its deadline was set.
    async fn look_at_own(&self, beat: &Beat, of: &[StreamKeys], looked_at: &[(usize, u64)], pushed: &mut Pushed) {
        let ttl = millis(beat.lifetime) + millis(beat.stale);
        let renewal = |(index, now): &(usize, u64)| {
            let (keys, (key, epoch)) = (&of[*index], &beat.streams[*index]);
            let (active, (_, owner)) = (self.keys.active(0), self.keys.owner(&key.owner));
            let mut names = vec![&*keys.stream, &*keys.log];
            if !self.cluster {
                names.extend([&*active, &*owner]);
            }
            let renewal = Request::script(keys.slot, &script::RENEW, &names).arg(&keys.name).arg(key.id.as_str());
            renewal.arg(*epoch).arg(now + millis(beat.stale)).arg(ttl).arg(*now)
        };
        let replies = match self.fleet.send(looked_at.iter().map(renewal).collect()).await {
            Ok(replies) => replies,
            Err(error) => {
                pushed.missed.extend(looked_at.iter().map(|(index, _)| *index));
                pushed.error = Some(error);
                return;
            }
        };
        let mut indexes = Vec::new();
        for ((index, _), reply) in looked_at.iter().zip(replies) {
            let ttl = match reply {
                // What stands in the place of its owner's index is no reason to take it for another's.
                Err(error) if error.is_of_one_key() => continue,
                Err(error) => {
                    // Its deadline is pushed; that it is renewed has to be said again.
                    pushed.missed.push(*index);
                    pushed.error = Some(error);
                    continue;
                }
                Ok(ttl) => value::number(&ttl).unwrap_or(0),
            };
            if ttl == 0 {
                pushed.lost.push(*index);
            } else if self.cluster {
                let (keys, watching) = (&of[*index], Watching { overdue: millis(beat.stale), ttl });
                indexes.push(self.keys.registering(keys, watching, true));
                indexes.push(self.keys.owning(&beat.streams[*index].0, ttl, true));
            }
        }
        // What of this fails, a later beat does again.
        let _ = self.fleet.send(indexes).await;
        pushed.lost.sort_unstable();
    }

    /// The store's clock.
    pub(super) async fn time(&self) -> Result<u64, RedisStoreError> {
        let now = time_of(self.fleet.ask(Request::new(self.keys.part_slot(0), cmd("TIME"))).await?)?;
        self.clock.heard(now);
        Ok(now)
    }
}

fn time_of(reply: Value) -> Result<u64, RedisStoreError> {
    let mut parts = value::array(reply, "TIME")?.into_iter();
    let mut part = || parts.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected("TIME"));
    Ok(part()? * 1000 + part()? / 1000)
}
