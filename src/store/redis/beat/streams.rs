//! Beating the listed streams: some are named in the index, some are looked at.

use std::collections::BTreeMap;

use redis::cmd;

use super::super::{
    clock::millis, indexes::of_a_beat, keys::name_of, leases::Listed, request::Request, shared::Shared, value,
};
use super::outcome::{BeatRound, StreamsBeat};

/// How many members one command writes: as many cost the server hardly more than one, and do not block it for long.
const BEAT_MEMBERS: usize = 100;

impl Shared {
    /// Names the streams that have their turn or stand under no lease, and looks at some. A server that did not answer a moment
    /// ago is not asked again, so that the streams of the others do not wait for it.
    pub(super) async fn beat_streams(&self, round: BeatRound<'_>) -> StreamsBeat {
        let all = 0..round.listed.len();
        let (asked, missed): (Vec<usize>, _) = all.partition(|index| !round.is_silent(round.part(*index)));
        let mut pushed = StreamsBeat { missed, ..StreamsBeat::default() };
        let mut look = vec![round.everything; round.listed.len()];
        let listed: Vec<Listed> = asked.iter().map(|index| round.listed[*index]).collect();
        let must = |stream: &Listed| round.everything || !round.is_renewed(stream.part);
        let mut naming = self.leases.name(&round.beat.node, round.lease, &listed, must);
        for index in &naming.suspects {
            look[asked[*index]] = true;
        }
        let mut parts: BTreeMap<u16, Vec<usize>> = listed.iter().map(|stream| (stream.part, Vec::new())).collect();
        for index in &naming.named {
            parts.entry(listed[*index].part).or_default().push(asked[*index]);
        }
        let (requests, pages) = self.name_requests(round, parts);
        let replies = match self.fleet.send(requests).await {
            Ok(replies) => replies,
            Err(error) => {
                pushed.missed = (0..round.listed.len()).collect();
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
                // Some are missing from the index, or had this score already: look at each of them.
                Ok(count) if value::number(&count).unwrap_or(0) < page.len() as u64 => {
                    page.into_iter().for_each(|index| look[index] = true);
                }
                Ok(_) if round.is_renewed(part) => {
                    naming.put(page.into_iter().map(|index| round.listed[index]));
                }
                Ok(_) => {}
            }
        }
        if is_answered {
            naming.answered();
        }
        drop(naming);
        self.renew_own(round, &look, &mut pushed).await;
        pushed
    }

    /// The commands that name streams in each part of the indexes, and one that renews the index; and the streams of each.
    fn name_requests(
        &self,
        round: BeatRound<'_>,
        parts: BTreeMap<u16, Vec<usize>>,
    ) -> (Vec<Request>, Vec<(u16, Vec<usize>)>) {
        let (mut requests, mut pages) = (Vec::new(), Vec::new());
        for (part, named) in parts {
            // In the order of the index: writing neighbours costs half of writing members all over it.
            let names = named.into_iter().map(|index| (name_of(&round.beat.streams[index].0), index));
            let mut named: Vec<(String, usize)> = names.collect();
            named.sort_unstable();
            let (slot, active) = (self.keys.part_slot(part), self.keys.active(part));
            let deadline = self.now_in(round, part) + millis(round.beat.stale);
            let score = match round.is_renewed(part) {
                true => round.lease,
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
            renew.arg(&active).arg(millis(round.beat.lifetime) + millis(round.beat.stale)).arg("GT");
            requests.push(Request::new(slot, renew));
            pages.push((part, Vec::new()));
        }
        (requests, pages)
    }

    /// The time of the server that has a part of the indexes.
    pub(super) fn now_in(&self, round: BeatRound<'_>, part: u16) -> u64 {
        round.node_beat.parts[usize::from(part)].taken().unwrap_or_else(|| self.clock.now())
    }
}
