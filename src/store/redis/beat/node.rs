//! A node's own sign of life.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use redis::{Value, cmd};
use tokio::time::Instant;

use super::super::{clock::millis, error::RedisStoreError, leases::Renewal, request::Request, shared::Shared, value};
use super::{
    outcome::{BeatRound, NodeBeat, PartAnswer},
    pulse::{DAY, Pulse},
};
use crate::{
    model::id::NodeId,
    store::{Beat, Beaten},
};

/// How many stale thresholds a node's own key outlives its last beat.
const NODE_KEPT: u32 = 3;
/// A member that is no stream: no name has a space.
const NO_STREAM: &str = "no stream";

impl Shared {
    pub(in super::super) async fn beat(&self, beat: Beat) -> Result<Beaten, RedisStoreError> {
        let listed = self.leases.listed(&beat.streams, |key, epoch| self.listed(key, epoch));
        // One beat at a time, since each compares the node's own keys with what the last one wrote.
        let mut pulses = self.pulses.lock().await;
        let fresh = pulses.get(&beat.node).and_then(|pulse| pulse.last);
        pulses.retain(|_, pulse| pulse.last.is_none_or(|last| last.elapsed() < DAY));
        let pulse = pulses.entry(beat.node.clone()).or_insert_with(|| Pulse::new(self.keys.parts().len()));
        // So that the run id of each server is known. A server that cannot be reached does not take the beat either.
        let _ = self.fleet.reach().await;
        let run = self.fleet.run();
        if pulse.run != run {
            self.leases.forget_all(&beat.node);
            pulse.run = run;
        }
        let renewal = self.leases.renew(&beat.node, beat.stale, &listed);
        let node_beat = self.beat_node(&beat, pulse, &renewal).await;
        if fresh.is_none_or(|last| last.elapsed() >= beat.stale / 2) {
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        let everything = Instant::now() < pulse.suspicious;
        let mut hasher = DefaultHasher::new();
        (self.fleet.run(), pulse.losses).hash(&mut hasher);
        drop(pulses);
        // Even if a server did not take the node's key: its streams must not be given up for that.
        let round =
            BeatRound { beat: &beat, listed: &listed, node_beat: &node_beat, lease: renewal.newest, everything };
        let pushed = self.beat_streams(round).await;
        let mut refused = pushed.refused;
        refused.extend(self.keys.parts().filter(|part| node_beat.parts[usize::from(*part)].taken().is_none()));
        refused.sort_unstable();
        refused.dedup();
        self.note_failures(&beat.node, &refused).await;
        let taken_by = self.taken_by(&refused);
        let now =
            node_beat.parts.iter().find_map(|heard| heard.taken()).filter(|_| refused.len() < node_beat.parts.len());
        match (now, node_beat.error) {
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

    /// Notes which parts of the indexes have failed: see [`Self::parts_vouched_for`].
    async fn note_failures(&self, node: &NodeId, refused: &[u16]) {
        let mut pulses = self.pulses.lock().await;
        let Some(pulse) = pulses.get_mut(node) else { return };
        for part in refused {
            pulse.parts[usize::from(*part)].failed = Some(Instant::now());
        }
    }

    /// For each part of the indexes, whether it has taken every beat of this process for a whole stale threshold. Only there may
    /// an overdue stream be taken for an orphan (guarantee G5).
    pub(in super::super) async fn parts_vouched_for(&self) -> Vec<bool> {
        let pulses = self.pulses.lock().await;
        let is_vouched_for = |part: u16| {
            let sound =
                |pulse: &Pulse| pulse.parts[usize::from(part)].failed.is_none_or(|at| at.elapsed() >= pulse.stale);
            pulses.values().all(sound)
        };
        self.keys.parts().map(is_vouched_for).collect()
    }

    /// Writes the node's own key in each part of the indexes, and beats a stream that does not exist. So a part acknowledges a
    /// beat only if it takes the commands that the beats of other nodes need. The previous value of the key shows whether the
    /// store kept it. The key belongs to this process: another process with the same node name has another key.
    ///
    /// In the same step it renews the leases of the listed streams, and finds out which of these do not stand under them.
    async fn beat_node(&self, beat: &Beat, pulse: &mut Pulse, renewal: &Renewal) -> NodeBeat {
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
            requests.extend(renewal.parts.get(&part).map(|leases| self.renew_leases_request(beat, part, leases)));
        }
        let parts = vec![PartAnswer::Nothing; self.keys.parts().len()];
        let mut node_beat = NodeBeat { parts, renewed: HashSet::new(), error: None };
        let mut replies = match self.fleet.send(requests).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => {
                node_beat.error = Some(error);
                return node_beat;
            }
        };
        let mut lost = false;
        let mut stand = Vec::new();
        for (number, (heard, part)) in (0_u16..).zip(node_beat.parts.iter_mut().zip(&mut pulse.parts)) {
            let mut next = || replies.next().unwrap_or_else(|| Err(value::unexpected("a beat")));
            let (clock, before, pushed) = (next().and_then(time_of), next(), next());
            if let Some(leases) = renewal.parts.get(&number) {
                // If this fails, the deadline of each stream is written instead.
                stand.extend(next().ok().map(|counts| (number, leases, counts)));
            }
            let (clock, before) = match (clock, before, pushed) {
                (Ok(clock), Ok(before), Ok(_)) => (clock, before),
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                    *heard = if error.code().is_some() { PartAnswer::Refused } else { PartAnswer::Nothing };
                    node_beat.error = Some(error);
                    continue;
                }
            };
            // An older key may have expired.
            let fresh = part.acknowledged.filter(|(_, at)| at.elapsed() < beat.stale.saturating_mul(NODE_KEPT - 1));
            lost |= fresh.is_some_and(|(number, _)| value::number(&before).is_none_or(|says| says < number));
            part.acknowledged = Some((pulse.sent, Instant::now()));
            *heard = PartAnswer::Taken(clock);
        }
        if lost {
            pulse.losses += 1;
            pulse.suspicious = Instant::now() + beat.stale.min(DAY) / 2;
        }
        if let Some(now) = node_beat.parts.iter().find_map(|heard| heard.taken()) {
            self.clock.set(now);
        }
        for (part, leases, counts) in stand {
            // If the streams cannot be counted, they are named as if no lease were renewed.
            if self.compare(&beat.node, part, leases, counts).await.is_ok() {
                node_beat.renewed.insert(part);
            }
        }
        node_beat
    }

    /// Asks the server for the time.
    pub(in super::super) async fn time(&self) -> Result<u64, RedisStoreError> {
        let now = time_of(self.fleet.ask(Request::new(self.keys.part_slot(0), cmd("TIME")).reading()).await?)?;
        self.clock.set(now);
        Ok(now)
    }
}

fn time_of(reply: Value) -> Result<u64, RedisStoreError> {
    let mut parts = value::array(reply, "TIME")?.into_iter();
    let mut part = || parts.next().as_ref().and_then(value::number).ok_or_else(|| value::unexpected("TIME"));
    Ok(part()? * 1000 + part()? / 1000)
}
