//! Checking that streams still belong to their node, and renewing their keys.

use std::collections::HashSet;

use redis::Value;

use super::super::{
    clock::millis, error::RedisStoreError, indexes::Watching, keys::StreamKeys, request::Request, script,
    shared::Shared, value,
};
use super::outcome::{BeatRound, StreamsBeat};

/// How many streams one script looks at: a script blocks its server.
const RENEWALS: usize = 50;
/// Each stream is looked at once in this many rounds of beats, or more often: at least three times in its lifetime.
const LOOK_EVERY: u64 = 120;

impl Shared {
    /// Checks that streams still belong to the node, and renews the keys of those that do. It looks at the streams in `look`,
    /// and at a share of the others, so that the keys of each are renewed well within its lifetime. The share is chosen by the
    /// clock, not by a count of beats, so that all pages of a round choose alike.
    pub(super) async fn renew_own(&self, round: BeatRound<'_>, look: &[bool], pushed: &mut StreamsBeat) {
        let BeatRound { beat, listed, .. } = round;
        let turn = self.clock.now() / (millis(beat.stale) / 3).max(1);
        let share = (millis(beat.lifetime) / millis(beat.stale).max(1)).clamp(1, LOOK_EVERY);
        let silent = self.keys.parts().filter(|part| round.is_silent(*part));
        let silent: HashSet<u64> = silent.map(|part| self.fleet.part(self.keys.part_slot(part))).collect();
        let missed: HashSet<usize> = pushed.missed.iter().copied().collect();
        let is_looked_at = |index: &usize| {
            let stream = &listed[*index];
            let has_turn = look[*index] || stream.epoch % share == turn % share;
            let answers = || silent.is_empty() || !silent.contains(&self.fleet.part(stream.slot));
            has_turn && !missed.contains(index) && answers()
        };
        let looked_at: Vec<usize> = (0..listed.len()).filter(is_looked_at).collect();
        let of: Vec<StreamKeys> = looked_at.iter().map(|index| self.keys.of(&beat.streams[*index].0)).collect();
        let renewed = match self.renew_each(round, &looked_at, &of).await {
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
                // Its deadline was moved, but its keys were not renewed: list it again.
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
        // If this fails, a later beat repeats it.
        let _ = self.fleet.send(indexes).await;
        pushed.lost.sort_unstable();
    }

    /// Renews streams: in a cluster one to a script, on one server many, which costs it half.
    async fn renew_each(
        &self,
        round: BeatRound<'_>,
        looked_at: &[usize],
        of: &[StreamKeys],
    ) -> Result<Vec<Result<Renewed, RedisStoreError>>, RedisStoreError> {
        let beat = round.beat;
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
            let now = self.now_in(round, round.part(indexes[0]));
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

/// The outcome of renewing a stream.
enum Renewed {
    /// The stream's keys live for this many milliseconds.
    For(u64),
    /// The stream no longer belongs to the node.
    Lost,
    /// A key of another type is in the place of its owner's index. The stream still belongs to the node.
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
