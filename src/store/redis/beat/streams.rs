//! What a beat does about the streams that it lists: some of them it names, some it looks at.

use std::collections::BTreeMap;

use redis::cmd;

use super::super::{
    clock::millis, indexes::of_a_beat, keys::name_of, leases::Listed, request::Request, shared::Shared, value,
};
use super::outcome::{Pushed, Spoken};

/// Members of one command: as many cost the server hardly more than one, and it is not held up for long.
const BEAT_MEMBERS: usize = 100;

impl Shared {
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
    pub(super) fn now_in(&self, spoken: Spoken<'_>, part: u16) -> u64 {
        spoken.said.parts[usize::from(part)].taken().unwrap_or_else(|| self.clock.now())
    }
}
