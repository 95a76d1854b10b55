//! The hot path: appending batches of many streams. Mostly that is one `XADD` for each, which also cuts the log, and no script.

use redis::{Value, cmd};

use super::{
    error::RedisStoreError,
    keys::{self, StreamKeys},
    logs::{Amount, Cut, Mark, Position},
    request::{Reply, Request},
    script,
    shared::Shared,
    stored::fence,
    value::{self, ScriptReply, Stored},
};
use crate::{
    model::id::EventId,
    runtime::sync::lock,
    store::{Append, Appended, Fence},
};

/// The server's error for an id that is not above the newest of the log.
const NOT_ABOVE: &str = "equal or smaller";

/// In how many steps one append cuts a log whose older part was written elsewhere. The next append continues.
const STEPS: usize = 8;

/// How one append of a flight was sent.
struct Sent {
    /// The index of its reply.
    reply: usize,
    /// What a plain command wrote. `None`: it was a script.
    plain: Option<Plain>,
}

/// An entry that a plain command wrote.
struct Plain {
    begins: Mark,
    last: u64,
    taken: Amount,
    cut: Option<Mark>,
}

impl Shared {
    pub(super) async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>, RedisStoreError> {
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = appends.iter().map(|append| keys::name_of(&append.key)).collect();
        let (requests, sent) = self.flight(&appends, &names);
        let mut replies: Vec<Option<Reply>> = self.fleet.send(requests).await?.into_iter().map(Some).collect();
        let mut outcomes: Vec<Option<Appended>> = appends.iter().map(|_| None).collect();
        let mut refused: Option<RedisStoreError> = None;
        // The appends that a plain command could not decide go to the script in a second round.
        let mut compared = Vec::new();
        for (index, sent) in sent.into_iter().enumerate() {
            let reply = replies[sent.reply].take().unwrap_or_else(|| Err(value::unexpected("append")));
            match self.first_outcome(&appends[index], &names[index], sent.plain, reply) {
                FirstOutcome::Is(outcome) => outcomes[index] = Some(outcome),
                FirstOutcome::Compare => compared.push(index),
                FirstOutcome::Failed(error) => refused = Some(error),
            }
        }
        if !compared.is_empty() {
            let requests = compared.iter().map(|index| self.append_script(&appends[*index])).collect();
            for (index, reply) in compared.into_iter().zip(self.fleet.send(requests).await?) {
                match reply.and_then(|reply| self.script_outcome(&appends[index], &names[index], reply)) {
                    Ok(outcome) => outcomes[index] = Some(outcome),
                    Err(error) => refused = Some(error),
                }
            }
        }
        let stored = (0..appends.len()).filter(|index| outcomes[*index] == Some(Appended::Stored));
        self.cut(stored.map(|index| (&*names[index], appends[index].events.count)).collect()).await;
        self.tails.wake_each(names.iter().zip(&outcomes).filter(|(_, out)| out.is_some()).map(|(name, _)| &**name));
        match refused {
            // The server takes nothing or cannot be reached: that concerns all streams of its part.
            Some(error) if !error.is_of_one_key() && outcomes.iter().all(Option::is_none) => Err(error),
            _ => Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Appended::Refused)).collect()),
        }
    }

    /// The commands of a flight, and for each append how it is sent.
    fn flight(&self, appends: &[Append], names: &[String]) -> (Vec<Request>, Vec<Sent>) {
        let now = self.clock.now();
        let mut requests = Vec::with_capacity(appends.len());
        let mut sent = Vec::with_capacity(appends.len());
        let mut positions = lock(&self.positions);
        for (append, name) in appends.iter().zip(names) {
            let position = positions.get_mut(name).filter(|position| is_plain(append, position));
            let reply = requests.len();
            let plain = position.map(|position| {
                let at = position.at(now);
                let (begins, taken) = written(append, position);
                // In the same command, so that a refused entry cuts nothing.
                let cut = match position.cut(begins, taken) {
                    Some(Cut::At(mark)) => Some(mark),
                    Some(Cut::Search(_)) | None => None,
                };
                let plain = Plain { begins, last: append.last(), taken, cut };
                requests.push(Request::new(self.keys.slot(name), add(&self.keys.log(name), append, &plain, at)));
                plain
            });
            if plain.is_none() {
                requests.push(self.append_script(append));
            }
            if !append.events.is_empty() && self.tails.is_followed(name) {
                let mut publish = cmd("PUBLISH");
                publish.arg(self.keys.tail_channel(name)).arg(event_id(append.epoch, append.last()));
                requests.push(Request::new(self.keys.slot(name), publish));
            }
            sent.push(Sent { reply, plain });
        }
        (requests, sent)
    }

    /// The outcome of an append in the first round.
    fn first_outcome(&self, append: &Append, name: &str, plain: Option<Plain>, reply: Reply) -> FirstOutcome {
        let Some(plain) = plain else {
            return match reply.and_then(|reply| self.script_outcome(append, name, reply)) {
                Ok(outcome) => FirstOutcome::Is(outcome),
                Err(error) => FirstOutcome::Failed(error),
            };
        };
        match reply {
            Ok(Value::Nil) => return FirstOutcome::Compare,
            Ok(_) => {}
            Err(error) if must_compare(&error) => return FirstOutcome::Compare,
            Err(error) => return FirstOutcome::Failed(error),
        }
        if let Some(held) = lock(&self.positions).get_mut(name).filter(|held| held.epoch == append.epoch) {
            held.wrote(plain.begins, plain.last, plain.taken);
            if let Some(mark) = plain.cut {
                held.dropped(mark.before);
            }
        }
        FirstOutcome::Is(Appended::Stored)
    }

    /// Cuts the logs that are still too large after their batches were written.
    async fn cut(&self, mut written: Vec<(&str, u64)>) {
        for _ in 0..STEPS {
            let (mut requests, mut cuts) = (Vec::new(), Vec::new());
            {
                let positions = lock(&self.positions);
                for (name, batch) in written {
                    let Some(position) = positions.get(name) else { continue };
                    let Some(cut) = position.overdue_cut(batch) else { continue };
                    let (slot, log) = (self.keys.slot(name), self.keys.log(name));
                    requests.push(match cut {
                        Cut::At(mark) => {
                            let mut trim = cmd("XTRIM");
                            trim.arg(log).arg("MINID").arg(event_id(position.epoch, mark.seq));
                            Request::new(slot, trim)
                        }
                        Cut::Search(goal) => Request::script(slot, &script::TRIM, &[&log])
                            .arg(goal.events)
                            .arg(goal.bytes)
                            .arg(position.taken.events)
                            .arg(position.taken.bytes),
                    });
                    cuts.push((name, batch, position.epoch, cut));
                }
            }
            // If this fails, the next append tries again.
            let Ok(replies) = self.fleet.send(requests).await else { return };
            written = Vec::new();
            for ((name, batch, epoch, cut), reply) in cuts.into_iter().zip(replies) {
                let dropped = match (cut, reply) {
                    (Cut::At(mark), Ok(_)) => Some(mark.before),
                    (Cut::Search(_), Ok(reply)) => amount(reply),
                    (_, Err(_)) => None,
                };
                let mut positions = lock(&self.positions);
                let held = positions.get_mut(name).filter(|held| held.epoch == epoch);
                if let (Some(dropped), Some(held)) = (dropped, held)
                    && held.dropped(dropped)
                {
                    written.push((name, batch));
                }
            }
            if written.is_empty() {
                return;
            }
        }
    }

    /// Returns the call of the script that compares a batch with the stored log.
    fn append_script(&self, append: &Append) -> Request {
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
        if append.events.is_empty() {
            return request;
        }
        request.arg(append.events.count).arg(Stored::frame(&append.events.bytes))
    }

    /// The outcome that the script returned.
    fn script_outcome(&self, append: &Append, name: &str, reply: Value) -> Result<Appended, RedisStoreError> {
        let mut reply = ScriptReply::read(reply, "append")?;
        let outcome = match &*reply.word {
            "stored" => {
                let taken = Amount::new(reply.number()?, reply.number()?);
                let max = Amount::new(reply.number()?, reply.number()?);
                let before = amount(reply.next()?);
                self.note_written(append, name, taken, max, before);
                return Ok(Appended::Stored);
            }
            "refused" => return Ok(Appended::Refused),
            "newer" => Appended::Fenced(Fence::Newer),
            "ended" => Appended::Fenced(fence(&mut reply)?),
            "gone" => Appended::Gone,
            _ => return Err(reply.unknown()),
        };
        self.forget_position(name);
        Ok(outcome)
    }

    /// Notes what the script wrote. `before`: what the log had taken in before the batch, unless the batch was a repeat.
    fn note_written(&self, append: &Append, name: &str, taken: Amount, max: Amount, before: Option<Amount>) {
        let known = before.map_or(append.last(), |_| append.first.saturating_sub(1));
        self.note_position(name, EventId::new(append.epoch, known), before.unwrap_or(taken), max);
        let Some(before) = before else { return };
        let mut positions = lock(&self.positions);
        if let Some(position) = positions.get_mut(name).filter(|position| position.epoch == append.epoch) {
            position.wrote(Mark { seq: append.first, before }, append.last(), taken);
        }
    }

    /// Notes how far a log is. If that is known already, the marks of its entries stay.
    pub(super) fn note_position(&self, name: &str, at: EventId, taken: Amount, max: Amount) {
        let now = self.clock.now();
        let mut positions = lock(&self.positions);
        match positions.get_mut(name).filter(|position| position.epoch == at.epoch) {
            Some(position) => {
                position.last = position.last.max(at.seq);
                position.taken = taken;
                position.at(now);
            }
            None => {
                positions.tidy();
                positions.insert(name.to_owned(), Position::new(at.epoch, at.seq, taken, max, now));
            }
        }
    }

    /// What a log has taken in, if this process has written all of the run and it was acknowledged.
    pub(super) fn all_taken(&self, name: &str, epoch: Option<u64>, last: Option<u64>) -> Option<Amount> {
        let positions = lock(&self.positions);
        let position = positions.get(name)?;
        (Some(position.epoch) == epoch && Some(position.last) == last).then_some(position.taken)
    }

    /// Forgets how far a log is: this process writes nothing more to it.
    pub(super) fn forget_position(&self, name: &str) {
        lock(&self.positions).remove(name);
    }
}

enum FirstOutcome {
    Is(Appended),
    /// The script must compare the batch with the stored log.
    Compare,
    Failed(RedisStoreError),
}

/// Whether a plain `XADD` suffices for a batch.
fn is_plain(append: &Append, position: &Position) -> bool {
    let has_news = append.inner_id.is_some() || append.inner_retry.is_some() || !append.metadata.is_empty();
    position.epoch == append.epoch && append.first > position.last && !append.events.is_empty() && !has_news
}

/// Where the entry of a batch begins, and what the log has taken in with it.
fn written(append: &Append, position: &Position) -> (Mark, Amount) {
    (Mark { seq: append.first, before: position.taken }, position.taken.plus(&append.events))
}

fn add(log: &str, append: &Append, plain: &Plain, at: u64) -> redis::Cmd {
    let mut add = redis::Cmd::with_capacity(15, append.events.bytes.len() + log.len() + 170);
    add.arg("XADD").arg(log).arg("NOMKSTREAM");
    if let Some(mark) = plain.cut {
        add.arg("MINID").arg(event_id(append.epoch, mark.seq));
    }
    let since = (at as i64).wrapping_sub(append.epoch as i64);
    add.arg(event_id(append.epoch, plain.last)).arg("t").arg(since);
    add.arg("n").arg(plain.taken.events).arg("b").arg(plain.taken.bytes);
    if append.events.count > 1 {
        add.arg("k").arg(append.events.count);
    }
    add.arg("e").arg(Stored::frame(&append.events.bytes));
    add
}

fn event_id(epoch: u64, seq: u64) -> String {
    EventId::new(epoch, seq).to_pair()
}

fn amount(reply: Value) -> Option<Amount> {
    let mut numbers = value::array(reply, "amount").ok()?.into_iter();
    Some(Amount::new(value::number(&numbers.next()?)?, value::number(&numbers.next()?)?))
}

/// Whether an error may be about this stream, so that the script must compare.
fn must_compare(error: &RedisStoreError) -> bool {
    let not_above = error.as_redis().and_then(redis::RedisError::detail).is_some_and(|text| text.contains(NOT_ABOVE));
    not_above || error.is_of_one_key()
}
