//! Looking: pages of logs, what is known of streams, lists of them.

use std::borrow::Borrow;

use redis::{Value, cmd};

use super::{
    Shared,
    error::RedisStoreError,
    fleet::{Reply, Request},
    keys::{self, StreamKeys},
    stored::{self, Entry, Held, Holds, Standing},
    value,
};
use crate::{
    id::{EventId, StreamId, StreamKey},
    store::{From, List, Listed, Page, Read},
    stream::{Ended, Record, RecordKind, StreamInfo, StreamState},
};

/// Entries that are asked for first: how many events an entry holds is not known before.
const FIRST_ENTRIES: usize = 16;
/// Streams in one request of a list.
const LIST_PAGE: usize = 100;

/// All that is stored of a stream but its log, and the log's newest entry.
pub(super) struct Known {
    pub(super) held: Held,
    pub(super) ended: Option<Ended>,
    /// Whether its hook waits.
    pub(super) hook: bool,
    /// The log's newest entry that is no seal.
    pub(super) log: Option<EventId>,
    /// When the newest entry was written.
    pub(super) written: u64,
    /// What stands in the indexes.
    pub(super) active: Option<u64>,
    pub(super) due: Option<u64>,
}

impl Known {
    /// As a reader sees it: a deleted stream is a missing one.
    pub(super) fn info(self, key: &StreamKey) -> Option<StreamInfo> {
        let Standing::Is(state) = self.held.standing() else { return None };
        let deadline = match state {
            StreamState::Active => self.active,
            _ => self.due,
        };
        Some(self.held.info(key, state, deadline.unwrap_or(0), self.log, self.ended))
    }
}

impl Shared {
    fn known_requests(&self, keys: &StreamKeys) -> [Request; 5] {
        let part = self.keys.part(keys.slot);
        let command = |name: &str, key: &str| {
            let mut command = cmd(name);
            command.arg(key);
            command
        };
        let mut top = command("XREVRANGE", &keys.log);
        top.arg("+").arg("-").arg("COUNT").arg(3);
        let index = |index: &str| {
            let mut score = command("ZSCORE", index);
            score.arg(&keys.name);
            Request::new(self.keys.part_slot(part), score)
        };
        [
            Request::new(keys.slot, command("HGETALL", &keys.stream)),
            Request::new(keys.slot, command("HGETALL", &keys.completion)),
            Request::new(keys.slot, top),
            index(&self.keys.active(part)),
            index(&self.keys.due(part)),
        ]
    }

    /// What is known of streams; `None` where nothing is, and where the server would not say.
    pub(super) async fn know_all(
        &self,
        of: &[impl Borrow<StreamKeys>],
    ) -> Result<Vec<Result<Known, RedisStoreError>>, RedisStoreError> {
        let mut requests = Vec::with_capacity(5 * of.len());
        for keys in of {
            requests.extend(self.known_requests(keys.borrow()));
        }
        let mut replies = self.fleet.look(requests).await?.into_iter();
        Ok(of.iter().map(|_| known(&mut replies)).collect())
    }

    pub(super) async fn info(&self, key: StreamKey) -> Result<Option<StreamInfo>, RedisStoreError> {
        let known = self.know_all(&[self.keys.of(&key)]).await?.pop();
        Ok(known.transpose()?.and_then(|known| known.info(&key)))
    }

    pub(super) async fn list(&self, list: List) -> Result<Listed, RedisStoreError> {
        let (slot, index) = self.keys.owner(&list.owner);
        let first = match &list.after {
            None => 0,
            Some(after) => {
                let mut rank = cmd("ZREVRANK");
                rank.arg(&index).arg(after.as_str());
                match value::number(&self.fleet.look_for(Request::new(slot, rank)).await?) {
                    Some(rank) => rank + 1,
                    None => return Ok(Listed::default()),
                }
            }
        };
        // One more than asked for tells whether there is a next page.
        let last = first.saturating_add(list.limit as u64).min(1 << 52);
        let mut members = cmd("ZRANGE");
        members.arg(&index).arg(first).arg(last).arg("REV").arg("WITHSCORES");
        let mut members = value::scored(self.fleet.look_for(Request::new(slot, members)).await?, "ZRANGE")?;
        // What has expired stands behind everything else.
        let now = self.clock.now();
        members.retain(|(_, expires)| *expires > now);
        let more = members.len() > list.limit;
        members.truncate(list.limit);
        let ids = members.into_iter().filter_map(|(id, _)| StreamId::new(value::text(id)?).ok());
        let all: Vec<StreamKey> = ids.map(|id| StreamKey::new(list.owner.clone(), id)).collect();
        let next = all.last().filter(|_| more).map(|key| key.id.clone());
        let mut streams = Vec::new();
        for page in all.chunks(LIST_PAGE) {
            let of: Vec<StreamKeys> = page.iter().map(|key| self.keys.of(key)).collect();
            for (key, known) in page.iter().zip(self.know_all(&of).await?) {
                // One that is gone, or about to be opened, goes out of the index by itself; one whose own server is away is
                // left out.
                streams.extend(known.ok().and_then(|known| known.info(key)));
            }
        }
        Ok(Listed { streams, next })
    }

    pub(super) async fn active_count(&self) -> Result<u64, RedisStoreError> {
        let count = |part| {
            let mut count = cmd("ZCARD");
            count.arg(self.keys.active(part));
            Request::new(self.keys.part_slot(part), count)
        };
        let replies = self.fleet.send(self.keys.parts().map(count).collect()).await?;
        replies.into_iter().map(|reply| Ok(value::number(&reply?).unwrap_or(0))).sum()
    }

    pub(super) async fn stale(
        &self,
        threshold: std::time::Duration,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, RedisStoreError> {
        let before = self.time().await?.saturating_sub(super::clock::millis(threshold));
        let mut stale = Vec::new();
        for part in self.keys.parts() {
            let mut at = 0;
            // In the order of their deadlines, which is nearly that of their silence.
            while stale.len() < limit {
                let mut members = cmd("ZRANGE");
                members.arg(self.keys.active(part)).arg(at).arg(at + LIST_PAGE - 1);
                let members = self.fleet.look_for(Request::new(self.keys.part_slot(part), members)).await?;
                let members = value::array(members, "ZRANGE")?;
                let count = members.len();
                at += count;
                let keys = members.into_iter().filter_map(|name| keys::key_of(&value::text(name)?));
                let page: Vec<StreamKey> = keys.collect();
                let of: Vec<StreamKeys> = page.iter().map(|key| self.keys.of(key)).collect();
                let found = stale.len();
                for (key, known) in page.iter().zip(self.know_all(&of).await?) {
                    let info = known?.info(key).filter(|info| info.state == StreamState::Active);
                    stale.extend(info.filter(|info| info.last_heartbeat <= before));
                }
                // Behind a page of streams that were all heard of, none is that was not.
                if count < LIST_PAGE || stale.len() == found {
                    break;
                }
            }
        }
        stale.truncate(limit);
        Ok(stale)
    }

    pub(super) async fn read(&self, read: Read) -> Result<Option<Page>, RedisStoreError> {
        let keys = self.keys.of(&read.key);
        let (mut held, mut completion) = (cmd("HGETALL"), cmd("HGETALL"));
        held.arg(&keys.stream);
        completion.arg(&keys.completion);
        let mut top = cmd("XREVRANGE");
        top.arg(&keys.log).arg("+").arg("-").arg("COUNT").arg(3);
        let mut requests =
            vec![Request::new(keys.slot, held), Request::new(keys.slot, completion), Request::new(keys.slot, top)];
        // Where the newest run begins only the state says: that is read first.
        let after = match read.from {
            From::After(cursor) => Some(cursor),
            From::Start => Some(EventId::default()),
            From::Newest => None,
        };
        let first = read.max_events.saturating_add(1).min(FIRST_ENTRIES);
        if let Some(after) = after {
            requests.push(range(&keys, after, first));
        }
        let mut replies = self.fleet.look(requests).await?.into_iter();
        let mut next = || value::own(replies.next().unwrap_or_else(|| Err(value::unexpected("a page"))));
        let held = Held::new(value::fields(next()?, "HGETALL")?);
        let ended = stored::ended(value::fields(next()?, "HGETALL")?);
        let tops = stored::entries(next()?)?;
        let Standing::Is(state) = held.standing() else { return Ok(None) };
        let ended = ended.filter(|_| state.is_terminal());
        let epoch = held.epoch();
        let log_top = stored::top(&tops).map(|entry| entry.id);
        let top = held.top(log_top);
        let (after, entries) = match after {
            Some(after) => (after, stored::entries(next()?)?),
            None => {
                let after = EventId::new(epoch, 0);
                (after, stored::entries(value::own(self.fleet.look_for(range(&keys, after, first)).await)?)?)
            }
        };
        let mut page = Page {
            state,
            epoch,
            started: held.has_started(log_top),
            top: ended.as_ref().map_or(top, |ended| ended.id),
            known: true,
            records: Vec::new(),
            more: false,
        };
        self.fill(&mut page, &keys, after, entries, first, &read).await?;
        if !page.more
            && let Some(ended) = ended.clone().filter(|ended| ended.id > after)
        {
            page.records.push(Record { id: ended.id, at: ended.at, kind: RecordKind::End(Box::new(ended)) });
        }
        if let From::After(cursor) = read.from {
            let ends = ended.is_some_and(|ended| ended.id == cursor);
            page.known = ends || cursor.epoch == epoch || self.knows(&keys, &held, cursor).await?;
        }
        Ok(Some(page))
    }

    /// Takes records until the page is full, or the log is at its end.
    async fn fill(
        &self,
        page: &mut Page,
        keys: &StreamKeys,
        after: EventId,
        mut entries: Vec<Entry>,
        mut asked: usize,
        read: &Read,
    ) -> Result<(), RedisStoreError> {
        let (mut bytes, mut taken) = (0, 0);
        loop {
            let last = entries.last().map(|entry| entry.id);
            let count = entries.len();
            taken += count;
            for record in stored::records(entries, after) {
                let length = if let RecordKind::Event(block) = &record.kind { block.len() } else { 0 };
                bytes += length;
                let full = page.records.len() >= read.max_events || bytes > read.max_bytes;
                if full && !page.records.is_empty() {
                    page.more = true;
                    return Ok(());
                }
                page.records.push(record);
            }
            let Some(last) = last.filter(|_| count == asked) else { return Ok(()) };
            // As many more as may fit, by what an entry has held so far.
            let room = read.max_events.saturating_sub(page.records.len());
            let events = page.records.len().div_ceil(taken).max(1);
            let size = (bytes / taken).max(1);
            let by_size = (read.max_bytes.saturating_sub(bytes) / size).saturating_add(1);
            asked = (room / events).saturating_add(1).min(by_size).clamp(1, 1024);
            entries = stored::entries(self.fleet.look_for(range(keys, last, asked)).await?)?;
        }
    }

    /// Whether a stream had a run of another epoch than its newest, as far as can be known.
    async fn knows(&self, keys: &StreamKeys, held: &Held, cursor: EventId) -> Result<bool, RedisStoreError> {
        if held.lost().is_some_and(|lost| cursor.epoch <= lost.epoch) {
            return Ok(true);
        }
        if cursor.epoch > held.epoch() {
            return Ok(false);
        }
        let marker = EventId::new(cursor.epoch, 0);
        let (mut first, mut run) = (cmd("XRANGE"), cmd("XRANGE"));
        first.arg(&keys.log).arg("-").arg("+").arg("COUNT").arg(1);
        run.arg(&keys.log).arg(marker.to_pair()).arg("+").arg("COUNT").arg(1);
        let asked = vec![Request::new(keys.slot, first), Request::new(keys.slot, run)];
        let mut replies = self.fleet.look(asked).await?.into_iter();
        let mut next = || value::own(replies.next().unwrap_or_else(|| Err(value::unexpected("a run"))));
        let (first, run) = (stored::entries(next()?)?, stored::entries(next()?)?);
        // The next marker may be its own, or stand for it too.
        let own = |entry: &Entry| match entry.holds {
            Holds::Run { since, .. } => since.unwrap_or(entry.id) <= marker,
            Holds::Events(_) | Holds::Seal => false,
        };
        if run.iter().any(own) {
            return Ok(true);
        }
        // What was before the first entry that is held was held once.
        Ok(first.first().is_some_and(|first| match &first.holds {
            Holds::Run { previous, .. } => previous.is_some_and(|previous| cursor.epoch <= previous.epoch),
            Holds::Events(_) | Holds::Seal => cursor.epoch <= first.id.epoch,
        }))
    }
}

/// So many entries after an id.
fn range(keys: &StreamKeys, after: EventId, count: usize) -> Request {
    let mut range = cmd("XRANGE");
    // Nothing is after the highest id that there is, and a server takes no offence if it is not asked for that.
    let open = if after == EventId::new(u64::MAX, u64::MAX) { "" } else { "(" };
    range.arg(&keys.log).arg(format!("{open}{}", after.to_pair())).arg("+").arg("COUNT").arg(count);
    Request::new(keys.slot, range)
}

/// Five replies, in the order in which they were asked for.
fn known(replies: &mut impl Iterator<Item = Reply>) -> Result<Known, RedisStoreError> {
    let all: Vec<Reply> = replies.take(5).collect();
    let mut all = all.into_iter();
    let mut next = || -> Result<Value, RedisStoreError> {
        value::own(all.next().unwrap_or_else(|| Err(value::unexpected("what is known of a stream"))))
    };
    let held = Held::new(value::fields(next()?, "HGETALL")?);
    let completion = value::fields(next()?, "HGETALL")?;
    let tops = stored::entries(next()?)?;
    // In a cluster these lie elsewhere: what the stream's own keys say is known without them.
    let mut score = || value::number(&next().unwrap_or_default());
    let (active, due) = (score(), score());
    let top = stored::top(&tops);
    Ok(Known {
        hook: completion.get("onEnd").is_some_and(|mark| mark == b"due"),
        ended: stored::ended(completion)
            .filter(|_| matches!(held.standing(), Standing::Is(state) if state.is_terminal())),
        log: top.map(|entry| entry.id),
        written: top.map_or(0, Entry::at),
        held,
        active,
        due,
    })
}
