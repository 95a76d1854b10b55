//! The hot path: batches of many streams, one `XADD` an entry, no script where none is needed.

use redis::{Value, cmd};

use super::{
    Shared,
    error::RedisStoreError,
    fleet::{Reply, Request},
    keys::{self, StreamKeys},
    logs::Position,
    script, stored,
    value::{self, Stored, Told},
};
use crate::{
    id::EventId,
    store::{Append, Appended, Fence},
    sync::lock,
};

/// What the server says to an id that is not above the log's newest.
const NOT_ABOVE: &str = "equal or smaller";

/// How one append of a flight was sent.
struct Sent {
    /// Which replies are its entries'; none where it has to be sent as a script.
    entries: std::ops::Range<usize>,
    /// The reply to its cut, and to what it published.
    cut: Option<usize>,
    position: Option<Position>,
}

impl Shared {
    pub(super) async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>, RedisStoreError> {
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = appends.iter().map(|append| keys::name_of(&append.key)).collect();
        let (requests, sent) = self.plain(&appends, &names);
        let mut replies: Vec<Option<Reply>> = self.fleet.send(requests).await?.into_iter().map(Some).collect();
        let mut outcomes: Vec<Option<Appended>> = appends.iter().map(|_| None).collect();
        let mut refused: Option<RedisStoreError> = None;
        // In the second round goes whatever a plain command could not say, or was not believed.
        let mut compared = Vec::new();
        for (index, sent) in sent.iter().enumerate() {
            match self.landed(&names[index], sent, &mut replies) {
                Landed::Stored => outcomes[index] = Some(Appended::Stored),
                Landed::Compare => compared.push(index),
                Landed::Failed(error) => refused = Some(error),
            }
        }
        if !compared.is_empty() {
            let requests = compared.iter().map(|index| self.compared(&appends[*index])).collect();
            for (index, reply) in compared.into_iter().zip(self.fleet.send(requests).await?) {
                match reply.and_then(|reply| self.settled(&appends[index], &names[index], reply)) {
                    Ok(outcome) => outcomes[index] = Some(outcome),
                    Err(error) => refused = Some(error),
                }
            }
        }
        self.tails.wake_each(names.iter().zip(&outcomes).filter(|(_, out)| out.is_some()).map(|(name, _)| &**name));
        match refused {
            // Of a server that takes nothing, or of one that cannot be reached, the other streams' parts say as much.
            Some(error) if !error.is_of_one_key() && outcomes.iter().all(Option::is_none) => Err(error),
            _ => Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Appended::Refused)).collect()),
        }
    }

    /// The commands of a flight, and which are whose.
    fn plain(&self, appends: &[Append], names: &[String]) -> (Vec<Request>, Vec<Sent>) {
        let now = self.clock.now();
        let mut requests = Vec::with_capacity(appends.len());
        let mut sent = Vec::with_capacity(appends.len());
        let mut positions = lock(&self.positions);
        for (append, name) in appends.iter().zip(names) {
            let position = positions.get_mut(name).filter(|position| position.epoch == append.epoch);
            let has_news = append.inner_id.is_some() || append.inner_retry.is_some() || !append.metadata.is_empty();
            let plain = !append.events.is_empty() && !has_news;
            let Some(position) = position.filter(|position| plain && append.first > position.last) else {
                sent.push(Sent { entries: 0..0, cut: None, position: None });
                continue;
            };
            let first = requests.len();
            let at = position.at(now);
            let mut after = *position;
            let (slot, log) = (self.keys.slot(name), self.keys.log(name));
            let mut seq = append.first;
            for events in position.entries(&append.events) {
                seq += events.len() as u64;
                after.events += events.len() as u64;
                after.bytes += events.iter().map(|event| event.len() as u64).sum::<u64>();
                let size = events.iter().map(|event| event.len() + 2).sum::<usize>() + log.len() + 96;
                let mut add = redis::Cmd::with_capacity(10 + 2 * events.len(), size);
                add.arg("XADD").arg(&log).arg("NOMKSTREAM").arg(event_id(append.epoch, seq - 1));
                let since = (at as i64).wrapping_sub(append.epoch as i64);
                add.arg("t").arg(since).arg("n").arg(after.events).arg("b").arg(after.bytes);
                for event in events {
                    add.arg("e").arg(Stored(event));
                }
                requests.push(Request::new(slot, add));
            }
            after.last = seq - 1;
            let entries = first..requests.len();
            let (more_events, more_bytes) = (after.events - position.events, after.bytes - position.bytes);
            let cut = position.cut(more_events, more_bytes).map(|(events, bytes)| {
                requests.push(Request::script(slot, &script::TRIM, &[&log]).arg(events).arg(bytes));
                requests.len() - 1
            });
            if self.tails.is_followed(name) {
                let mut publish = cmd("PUBLISH");
                publish.arg(self.keys.tail_channel(name)).arg(event_id(append.epoch, seq - 1));
                requests.push(Request::new(slot, publish));
            }
            sent.push(Sent { entries, cut, position: Some(after) });
        }
        (requests, sent)
    }

    /// What became of plain commands.
    fn landed(&self, name: &str, sent: &Sent, replies: &mut [Option<Reply>]) -> Landed {
        let Some(mut position) = sent.position else { return Landed::Compare };
        for index in sent.entries.clone() {
            match replies[index].take() {
                Some(Ok(Value::Nil)) | None => return Landed::Compare,
                Some(Ok(_)) => {}
                Some(Err(error)) if must_compare(&error) => return Landed::Compare,
                Some(Err(error)) => return Landed::Failed(error),
            }
        }
        if let Some(Ok(dropped)) = sent.cut.and_then(|index| replies[index].take())
            && let Some((events, bytes)) = pair(dropped)
        {
            (position.dropped_events, position.dropped_bytes) = (events, bytes);
        }
        if let Some(held) = lock(&self.positions).get_mut(name).filter(|held| held.epoch == position.epoch) {
            *held = position;
        }
        Landed::Stored
    }

    /// The batch as a script, which looks at what is stored.
    fn compared(&self, append: &Append) -> Request {
        let StreamKeys { slot, stream, log, completion, .. } = self.keys.of(&append.key);
        let mut request = Request::script(slot, &script::APPEND, &[&stream, &log, &completion])
            .arg(append.epoch)
            .arg(append.first)
            .arg(self.clock.now())
            .arg(u8::from(append.starts))
            .arg(u8::from(append.inner_id.is_some()))
            .arg(append.inner_id.as_deref().unwrap_or_default())
            .arg(append.inner_retry.map_or_else(String::new, |delay| delay.to_string()))
            .arg(append.metadata.len());
        for (key, kept) in &append.metadata {
            request = request.arg(key).arg(kept);
        }
        append.events.iter().fold(request, |request, event| request.arg(Stored(event)))
    }

    /// What that script said.
    fn settled(&self, append: &Append, name: &str, reply: Value) -> Result<Appended, RedisStoreError> {
        let mut told = Told::read(reply, "append")?;
        let outcome = match &*told.word {
            "stored" => {
                let taken = (told.number()?, told.number()?);
                let max = (told.number()?, told.number()?);
                let last = (append.first + append.events.len() as u64).saturating_sub(1);
                self.know(name, EventId::new(append.epoch, last), taken, max);
                return Ok(Appended::Stored);
            }
            "newer" => Appended::Fenced(Fence::Newer),
            "ended" => Appended::Fenced(fence(&mut told)?),
            "gone" => Appended::Gone,
            _ => return Err(told.unknown()),
        };
        self.forget(name);
        Ok(outcome)
    }

    /// Keeps how far a log is; one that is known already keeps what was dropped of it.
    pub(super) fn know(&self, name: &str, at: EventId, taken: (u64, u64), max: (u64, u64)) {
        let now = self.clock.now();
        let mut positions = lock(&self.positions);
        match positions.get_mut(name).filter(|position| position.epoch == at.epoch) {
            Some(position) => {
                position.last = position.last.max(at.seq);
                (position.events, position.bytes) = taken;
                position.at(now);
            }
            None => {
                positions.tidy();
                positions.insert(name.to_owned(), Position::new(at.epoch, at.seq, taken, max, now));
            }
        }
    }

    /// Nothing more is written to a log from here.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.positions).remove(name);
    }
}

enum Landed {
    Stored,
    /// It is to be compared with what is stored.
    Compare,
    Failed(RedisStoreError),
}

fn event_id(epoch: u64, seq: u64) -> String {
    EventId::new(epoch, seq).to_pair()
}

fn pair(reply: Value) -> Option<(u64, u64)> {
    let mut numbers = value::array(reply, "trim").ok()?.into_iter();
    Some((value::number(&numbers.next()?)?, value::number(&numbers.next()?)?))
}

/// Whether an error says something of the stream, which the script can make out.
fn must_compare(error: &RedisStoreError) -> bool {
    let not_above = error.as_redis().and_then(redis::RedisError::detail).is_some_and(|text| text.contains(NOT_ABOVE));
    not_above || error.is_of_one_key()
}

/// The end that fences. One that cannot be read, another version's perhaps, fences as a newer run does.
pub(super) fn fence(told: &mut Told) -> Result<Fence, RedisStoreError> {
    Ok(stored::ended(told.fields()?).map_or(Fence::Newer, Fence::Ended))
}
