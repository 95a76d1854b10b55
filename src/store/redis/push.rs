//! What a beat does about the streams that it lists: some of them it names, some it looks at.

use std::collections::{BTreeMap, HashSet};

use redis::{Value, cmd};

use super::{
    Shared,
    clock::millis,
    error::RedisStoreError,
    fleet::Request,
    indexes::{Watching, of_a_beat},
    keep::{Heard, Said},
    keys::{StreamKeys, name_of},
    leases::{Expected, Listed},
    script, value,
};
use crate::{
    model::id::{NodeId, StreamKey},
    store::Beat,
};

/// Members of one command: as many cost the server hardly more than one, and it is not held up for long.
const BEAT_MEMBERS: usize = 100;
/// Members that are read in one command, in search of those that are missing.
const MEMBERS_READ: u64 = 1000;
/// Streams that are looked at in one script: a script holds the server up for all it does.
const RENEWALS: usize = 50;
/// A stream itself is looked at once in so many rounds of beats, or more often: three times in its lifetime at least.
const LOOK_EVERY: u64 = 120;

/// A beat whose node has said that it lives.
#[derive(Clone, Copy)]
pub(super) struct Spoken<'a> {
    pub(super) beat: &'a Beat,
    pub(super) listed: &'a [Listed],
    pub(super) said: &'a Said,
    /// The node's newest lease.
    pub(super) lease: u64,
    /// Whether all streams are named and looked at.
    pub(super) everything: bool,
}

impl Spoken<'_> {
    fn part(&self, index: usize) -> u16 {
        self.listed[index].part
    }

    fn is_silent(&self, part: u16) -> bool {
        matches!(self.said.parts[usize::from(part)], Heard::Nothing)
    }

    fn is_renewed(&self, part: u16) -> bool {
        self.said.renewed.contains(&part)
    }
}

/// How a beat's streams fared.
#[derive(Default)]
pub(super) struct Pushed {
    pub(super) lost: Vec<usize>,
    pub(super) missed: Vec<usize>,
    /// The parts of the indexes that did not take all of it, and why one did not.
    pub(super) refused: Vec<u16>,
    pub(super) error: Option<RedisStoreError>,
}

impl Shared {
    pub(super) fn listed(&self, key: &StreamKey, epoch: u64) -> Listed {
        let name = name_of(key);
        let slot = self.keys.slot(&name);
        Listed { hash: self.leases.hash(&name), epoch, slot, part: self.keys.part(slot) }
    }

    /// Renews leases in a part of the indexes, and asks how many streams stand under each.
    pub(super) fn renewing(&self, beat: &Beat, part: u16, leases: &[Expected]) -> Request {
        let names = [&*self.keys.active(part), &*self.keys.leases(part)];
        let renew = Request::script(self.keys.part_slot(part), &script::VOUCH, &names);
        let renew = renew.arg(millis(beat.stale)).arg(millis(beat.lifetime) + millis(beat.stale));
        leases.iter().fold(renew, |renew, expected| renew.arg(expected.lease))
    }

    /// Compares how many streams stand under leases with how many should, and looks for those that are missing.
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
            // Some may have ended meanwhile, or been named by another page of this round.
            let least = expected.streams.min(self.leases.count(node, part, lease)) as u64;
            if count < least {
                let found = self.found(part, lease, count).await?;
                self.leases.retain(node, part, lease, &found);
            }
        }
        Ok(())
    }

    /// The streams that stand under a lease, of which there are so many. By rank: to skip a thousand members by score takes
    /// a server long.
    async fn found(&self, part: u16, lease: u64, count: u64) -> Result<HashSet<u64>, RedisStoreError> {
        let (slot, active) = (self.keys.part_slot(part), self.keys.active(part));
        let mut below = cmd("ZCOUNT");
        below.arg(&active).arg("-inf").arg(format!("({lease}"));
        let mut rank = value::number(&self.fleet.look_for(Request::new(slot, below)).await?).unwrap_or(0);
        let end = rank + count;
        let mut found = HashSet::new();
        while rank < end {
            let mut members = cmd("ZRANGE");
            members.arg(&active).arg(rank).arg((rank + MEMBERS_READ).min(end) - 1);
            let members = value::array(self.fleet.look_for(Request::new(slot, members)).await?, "ZRANGE")?;
            found.extend(members.into_iter().filter_map(value::text).map(|name| self.leases.hash(&name)));
            rank += MEMBERS_READ;
        }
        Ok(found)
    }

    /// Names the streams whose turn it is, or that stand under no lease, and looks at some. A server that has just not
    /// answered is not asked again: the others' streams must not wait for it.
    pub(super) async fn push(&self, spoken: Spoken<'_>) -> Pushed {
        let all = 0..spoken.listed.len();
        let (asked, missed): (Vec<usize>, _) = all.partition(|index| !spoken.is_silent(spoken.part(*index)));
        let mut pushed = Pushed { missed, ..Pushed::default() };
        let mut look = vec![spoken.everything; spoken.listed.len()];
        let listed: Vec<Listed> = asked.iter().map(|index| spoken.listed[*index]).collect();
        let must = |stream: &Listed| spoken.everything || !spoken.is_renewed(stream.part);
        let mut naming = self.leases.name(&spoken.beat.node, spoken.lease, &listed, must);
        for index in &naming.suspects {
            look[asked[*index]] = true;
        }
        let mut parts: BTreeMap<u16, Vec<usize>> = listed.iter().map(|stream| (stream.part, Vec::new())).collect();
        for index in &naming.named {
            parts.entry(listed[*index].part).or_default().push(asked[*index]);
        }
        let (requests, pages) = self.naming(spoken, parts);
        let replies = match self.fleet.send(requests).await {
            Ok(replies) => replies,
            Err(error) => {
                pushed.missed = (0..spoken.listed.len()).collect();
                pushed.refused.extend(pages.into_iter().map(|(part, _)| part));
                pushed.error = Some(error);
                return pushed;
            }
        };
        let mut is_answered = true;
        for (reply, (part, page)) in replies.into_iter().zip(pages) {
            match reply {
                Err(error) => {
                    is_answered &= error.code().is_some();
                    pushed.missed.extend(page);
                    pushed.refused.push(part);
                    pushed.error = Some(error);
                }
                // Some are missing, or are where they were: on a shortfall each is looked at.
                Ok(count) if value::number(&count).unwrap_or(0) < page.len() as u64 => {
                    page.into_iter().for_each(|index| look[index] = true);
                }
                Ok(_) if spoken.is_renewed(part) => {
                    naming.put(page.into_iter().map(|index| spoken.listed[index]));
                }
                Ok(_) => {}
            }
        }
        if is_answered {
            naming.answered();
        }
        drop(naming);
        self.look_at_own(spoken, &look, &mut pushed).await;
        pushed
    }

    /// The commands that name streams in each part of the indexes, and one that renews the index; and the streams of each.
    fn naming(&self, spoken: Spoken<'_>, parts: BTreeMap<u16, Vec<usize>>) -> (Vec<Request>, Vec<(u16, Vec<usize>)>) {
        let (mut requests, mut pages) = (Vec::new(), Vec::new());
        for (part, named) in parts {
            // In the index's own order: neighbours cost half of what members all over it do.
            let names = named.into_iter().map(|index| (name_of(&spoken.beat.streams[index].0), index));
            let mut named: Vec<(String, usize)> = names.collect();
            named.sort_unstable();
            let (slot, active) = (self.keys.part_slot(part), self.keys.active(part));
            let deadline = self.now_in(spoken, part) + millis(spoken.beat.stale);
            let score = match spoken.is_renewed(part) {
                true => spoken.lease,
                false if self.cluster => of_a_beat(deadline),
                false => deadline,
            };
            for page in named.chunks(BEAT_MEMBERS) {
                let mut push = cmd("ZADD");
                push.arg(&active).arg("XX").arg("CH");
                for (name, _) in page {
                    push.arg(score).arg(name);
                }
                requests.push(Request::new(slot, push));
                pages.push((part, page.iter().map(|(_, index)| *index).collect()));
            }
            let mut renew = cmd("PEXPIRE");
            renew.arg(&active).arg(millis(spoken.beat.lifetime) + millis(spoken.beat.stale)).arg("GT");
            requests.push(Request::new(slot, renew));
            pages.push((part, Vec::new()));
        }
        (requests, pages)
    }

    /// The clock of the server that has a part of the indexes.
    fn now_in(&self, spoken: Spoken<'_>, part: u16) -> u64 {
        spoken.said.parts[usize::from(part)].taken().unwrap_or_else(|| self.clock.now())
    }

    /// Looks whether streams are still the node's, and renews what is kept of those that are: besides those to be looked at
    /// a share each time, so that each one's keys are renewed well within its lifetime. The share goes by the time, not by a
    /// count of beats: the pages of one round must not drift apart.
    async fn look_at_own(&self, spoken: Spoken<'_>, look: &[bool], pushed: &mut Pushed) {
        let Spoken { beat, listed, .. } = spoken;
        let round = self.clock.now() / (millis(beat.stale) / 3).max(1);
        let share = (millis(beat.lifetime) / millis(beat.stale).max(1)).clamp(1, LOOK_EVERY);
        let silent = self.keys.parts().filter(|part| spoken.is_silent(*part));
        let silent: HashSet<u64> = silent.map(|part| self.fleet.part(self.keys.part_slot(part))).collect();
        let missed: HashSet<usize> = pushed.missed.iter().copied().collect();
        let is_looked_at = |index: &usize| {
            let stream = &listed[*index];
            let has_turn = look[*index] || stream.epoch % share == round % share;
            let answers = || silent.is_empty() || !silent.contains(&self.fleet.part(stream.slot));
            has_turn && !missed.contains(index) && answers()
        };
        let looked_at: Vec<usize> = (0..listed.len()).filter(is_looked_at).collect();
        let of: Vec<StreamKeys> = looked_at.iter().map(|index| self.keys.of(&beat.streams[*index].0)).collect();
        let renewed = match self.renew_each(spoken, &looked_at, &of).await {
            Ok(renewed) => renewed,
            Err(error) => {
                pushed.missed.extend(looked_at);
                pushed.error = Some(error);
                return;
            }
        };
        let mut indexes = Vec::new();
        for ((index, keys), renewed) in looked_at.iter().zip(&of).zip(renewed) {
            match renewed {
                // Its deadline is pushed; that it is renewed has to be said again.
                Err(error) => {
                    pushed.missed.push(*index);
                    pushed.error = Some(error);
                }
                Ok(Renewed::Lost) => {
                    self.leases.forget(&keys.name);
                    pushed.lost.push(*index);
                }
                Ok(Renewed::For(ttl)) if self.cluster => {
                    let watching = Watching { overdue: millis(beat.stale), ttl };
                    indexes.push(self.keys.registering(keys, watching, true));
                    indexes.push(self.keys.owning(&beat.streams[*index].0, ttl, true));
                }
                Ok(Renewed::For(_) | Renewed::Damaged) => {}
            }
        }
        // What of this fails, a later beat does again.
        let _ = self.fleet.send(indexes).await;
        pushed.lost.sort_unstable();
    }
    /// Renews streams, in a cluster each by itself. One server looks at many in one script, which costs it half.
    async fn renew_each(
        &self,
        spoken: Spoken<'_>,
        looked_at: &[usize],
        of: &[StreamKeys],
    ) -> Result<Vec<Result<Renewed, RedisStoreError>>, RedisStoreError> {
        let beat = spoken.beat;
        let size = if self.cluster { 1 } else { RENEWALS };
        let pages = || looked_at.chunks(size).zip(of.chunks(size));
        let active = self.keys.active(0);
        let renewal = |(indexes, of): (&[usize], &[StreamKeys])| {
            let owners: Vec<String> =
                indexes.iter().map(|index| self.keys.owner(&beat.streams[*index].0.owner).1).collect();
            let mut names = Vec::with_capacity(3 * of.len() + 1);
            for (keys, owner) in of.iter().zip(&owners) {
                names.extend([&*keys.stream, &*keys.log]);
                names.extend((!self.cluster).then_some(&**owner));
            }
            names.extend((!self.cluster).then_some(&*active));
            let now = self.now_in(spoken, spoken.part(indexes[0]));
            let renewal = Request::script(of[0].slot, &script::RENEW, &names)
                .arg(now + millis(beat.stale))
                .arg(millis(beat.lifetime) + millis(beat.stale))
                .arg(now);
            indexes.iter().zip(of).fold(renewal, |renewal, (index, keys)| {
                let (key, epoch) = &beat.streams[*index];
                renewal.arg(&keys.name).arg(key.id.as_str()).arg(*epoch)
            })
        };
        let replies = self.fleet.send(pages().map(renewal).collect()).await?;
        let mut all = Vec::with_capacity(of.len());
        for ((page, _), reply) in pages().zip(replies) {
            match reply.and_then(|reply| value::array(reply, "renew")) {
                Ok(renewed) => all.extend(page.iter().zip(renewed).map(|(_, ttl)| Ok(Renewed::of(&ttl)))),
                Err(error) => all.extend(page.iter().map(|_| Err(error.clone()))),
            }
        }
        Ok(all)
    }
}

/// What became of a stream that was to be renewed.
enum Renewed {
    /// It is kept for so many milliseconds.
    For(u64),
    /// It is not the node's any more.
    Lost,
    /// What stands in the place of its owner's index is no reason to take it for another's.
    Damaged,
}

impl Renewed {
    fn of(ttl: &Value) -> Self {
        match ttl {
            Value::Int(..0) => Self::Damaged,
            ttl => value::number(ttl).filter(|ttl| *ttl > 0).map_or(Self::Lost, Self::For),
        }
    }
}
