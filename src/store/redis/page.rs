//! Pages of logs: of an entry only what a reader is given is fetched, and of a page all in at most two round trips.
//!
//! How much an entry holds is not known before it was fetched, so the first page of a log begins with one entry, and the id of
//! the newest, which tells whether that is all; later ones, whoever reads them, ask for as many as fit by what entries held
//! before.

use std::{collections::HashMap, sync::Mutex};

use redis::{Value, cmd};

use super::{
    Shared,
    error::RedisStoreError,
    fleet::{Reply, Request},
    keys::StreamKeys,
    script,
    stored::{self, Entry, Held, Holds, Standing},
    value,
};
use crate::{
    model::{
        id::EventId,
        stream::{Ended, Record, RecordKind, StreamState},
    },
    runtime::sync::lock,
    store::{From, Page, Read},
};

/// Entries in one request, and about how many bytes of events. A page that has room for more is read on until it is full.
const MOST: usize = 1024;
const MOST_BYTES: usize = 1 << 20;
/// A terminal event of so few bytes is fetched with the last entries, before it is known that these are the last.
const SMALL: u64 = 4096;
/// Logs of which it is remembered how much their entries hold.
const REMEMBERED: usize = 4096;

/// What some entries of a log held.
#[derive(Clone, Copy, Debug, Default)]
struct Density {
    entries: usize,
    events: usize,
    bytes: usize,
}

impl Density {
    fn of(entries: &[Entry]) -> Self {
        entries.iter().fold(Self::default(), |sum, entry| {
            let Holds::Events(frame) = &entry.holds else { return sum };
            let events = usize::try_from(frame.count).unwrap_or(usize::MAX);
            let (events, bytes) = (sum.events.saturating_add(events), sum.bytes + frame.bytes.len());
            Self { entries: sum.entries + 1, events, bytes }
        })
    }

    /// How many entries hold so many events and bytes.
    fn entries(self, events: usize, bytes: usize) -> usize {
        let by = |room: usize, held: usize| (room as u128 * self.entries as u128).div_ceil(held.max(1) as u128);
        usize::try_from(by(events, self.events).min(by(bytes, self.bytes))).unwrap_or(usize::MAX).max(1)
    }
}

/// What entries held that were read last, by the names of their streams.
#[derive(Default)]
pub(super) struct Densities(Mutex<HashMap<String, Density>>);

impl Densities {
    fn get(&self, name: &str) -> Option<Density> {
        lock(&self.0).get(name).copied()
    }

    fn note(&self, name: &str, density: Density) {
        let mut held = lock(&self.0);
        if held.len() >= REMEMBERED && !held.contains_key(name) {
            held.clear();
        }
        held.insert(name.to_owned(), density);
    }
}

impl Shared {
    pub(super) async fn read(&self, read: Read) -> Result<Option<Page>, RedisStoreError> {
        let keys = self.keys.of(&read.key);
        let (mut held, mut size) = (cmd("HMGET"), cmd("HSTRLEN"));
        held.arg(&keys.stream).arg(&FIELDS);
        size.arg(&keys.completion).arg("event");
        let mut requests = vec![Request::new(keys.slot, held), Request::new(keys.slot, size)];
        // Where the newest run begins only the state says: that is read first.
        let after = match read.from {
            From::After(cursor) => Some(cursor),
            From::Start => Some(EventId::default()),
            From::Newest => None,
        };
        let mut log = Pager::new(&read, self.densities.get(&keys.name));
        if let Some(after) = after {
            log.after = after;
            // Where one entry is a page, whether it is the last one is not worth a look.
            let is_blind = log.density.entries == 0 && read.max_events > 1;
            requests.extend(log.next(&keys));
            if is_blind && log.asked > 0 {
                requests.push(peek(&keys, "XREVRANGE", "+"));
            }
        }
        let mut replies = Replies(self.fleet.look(requests).await?.into_iter());
        let held = Held::new(stored::fields(&FIELDS, replies.next()?));
        let Standing::Is(state) = held.standing() else { return Ok(None) };
        let is_small = value::number(&replies.next()?).is_none_or(|size| size <= SMALL);
        let epoch = held.epoch();
        if log.asked > 0 {
            log.take(replies.next()?, epoch)?;
            let newest = replies.0.next().transpose()?.map(stored::entries).transpose()?;
            log.ends_at(newest.as_deref().and_then(<[Entry]>::first).map(|entry| entry.id));
        } else {
            log.after = EventId::new(epoch, 0);
        }
        // The end, once that is to be given.
        let end = Some(EventId::terminal(epoch)).filter(|end| state.is_terminal() && *end > log.after);
        let mut ended: Option<Option<Ended>> = None;
        let mut known = match read.from {
            From::After(cursor) if cursor.epoch != epoch => (state.is_terminal() && cursor == EventId::terminal(epoch))
                .then_some(true)
                .or(knows_by_state(&held, cursor)),
            _ => Some(true),
        };
        loop {
            let mut requests: Vec<Request> = log.next(&keys).into_iter().collect();
            let fetches = !requests.is_empty();
            let wants_end = end.is_some() && ended.is_none() && (log.at_end || (fetches && is_small));
            if wants_end {
                requests.push(completion(&keys));
            }
            let asks = known.is_none();
            if let (true, From::After(cursor)) = (asks, read.from) {
                requests.extend(runs(&keys, cursor));
            }
            if requests.is_empty() {
                break;
            }
            let mut replies = Replies(self.fleet.look(requests).await?.into_iter());
            if fetches {
                log.take(replies.next()?, epoch)?;
            }
            if wants_end {
                ended = Some(stored::ended(stored::fields(&stored::ENDED, replies.next()?)));
            }
            if let (true, From::After(cursor)) = (asks, read.from) {
                known = Some(knows(cursor, replies.next()?, replies.next()?)?);
            }
            if !log.goes_on() {
                break;
            }
        }
        if log.density.entries > 0 {
            self.densities.note(&keys.name, log.density);
        }
        Ok(Some(log.into_page(&held, state, end, ended, known.unwrap_or(true))))
    }
}

/// What a page needs of a stream's hash.
const FIELDS: [&str; 7] = ["state", "epoch", "lost", "origin", "voice", "retry", "headers"];

/// Takes entries until the page is full, or the log is at its end.
struct Pager<'a> {
    read: &'a Read,
    /// The reader's cursor, and the last entry that was looked at.
    after: EventId,
    at: EventId,
    density: Density,
    /// How many entries were asked for last, and how often.
    asked: usize,
    rounds: usize,
    records: Vec<Record>,
    /// How many events and markers these are, and how many bytes of events.
    events: usize,
    bytes: usize,
    top: EventId,
    at_end: bool,
    is_full: bool,
    /// Whether more would fit than one request may fetch.
    is_vast: bool,
}

impl<'a> Pager<'a> {
    fn new(read: &'a Read, density: Option<Density>) -> Self {
        Self {
            read,
            after: EventId::default(),
            at: EventId::default(),
            density: density.unwrap_or_default(),
            asked: 0,
            rounds: 0,
            records: Vec::new(),
            events: 0,
            bytes: 0,
            top: EventId::default(),
            at_end: false,
            is_full: false,
            is_vast: false,
        }
    }

    /// A request for the next entries; `None` where no more are wanted.
    fn next(&mut self, keys: &StreamKeys) -> Option<Request> {
        if self.at_end || self.is_full {
            return None;
        }
        let events = self.read.max_events.saturating_sub(self.events);
        let bytes = self.read.max_bytes.saturating_sub(self.bytes);
        // The log's first entry is a marker.
        let first = if self.at == EventId::default() && self.after == self.at { 2 } else { 1 };
        let fits = |bytes| if self.density.entries > 0 { self.density.entries(events, bytes) } else { first };
        self.asked = fits(bytes.min(MOST_BYTES)).min(MOST);
        self.is_vast = self.read.max_events > MOST && (fits(bytes) > self.asked || self.density.entries == 0);
        self.rounds += 1;
        Some(range(keys, self.at.max(self.after), self.asked))
    }

    fn goes_on(&self) -> bool {
        self.rounds < 2 || self.is_vast || self.records.is_empty()
    }

    /// Takes entries whole. What was fetched is given, unless the page would be more than twice what it may be.
    fn take(&mut self, reply: Value, epoch: u64) -> Result<(), RedisStoreError> {
        let entries = stored::entries(value::own(Ok(reply))?)?;
        self.at_end = entries.len() < self.asked;
        let density = Density::of(&entries);
        if density.entries > 0 {
            self.density = density;
        }
        for entry in entries {
            let (id, is_seal) = (entry.id, matches!(entry.holds, Holds::Seal));
            let record = entry.into_record();
            let (more_events, more_bytes) = record.as_ref().map_or((0, 0), size);
            let (events, bytes) = (self.events.saturating_add(more_events), self.bytes + more_bytes);
            let most = |asked: usize| asked.saturating_mul(2);
            let is_too_much = bytes > most(self.read.max_bytes) || events > most(self.read.max_events);
            if is_too_much && self.bytes > 0 {
                (self.at_end, self.is_full) = (false, true);
                return Ok(());
            }
            (self.events, self.bytes, self.at) = (events, bytes, id);
            self.records.extend(record);
            if is_seal {
                // Behind the newest run's seal is nothing.
                self.at_end |= id >= EventId::new(epoch, u64::MAX);
            } else {
                self.top = id;
            }
        }
        // Nothing comes after the highest id that there is.
        self.at_end |= self.at.max(self.after) == EventId::new(u64::MAX, u64::MAX);
        self.is_full = self.events >= self.read.max_events || self.bytes >= self.read.max_bytes;
        Ok(())
    }

    /// The log's newest entry, as it was when the page was read.
    fn ends_at(&mut self, newest: Option<EventId>) {
        self.at_end |= !self.is_full && newest.is_some_and(|newest| newest <= self.at.max(self.after));
    }

    /// `end`: the id of an end that is still to be given; `ended`: that, if it was asked for.
    fn into_page(
        mut self,
        held: &Held,
        state: StreamState,
        end: Option<EventId>,
        ended: Option<Option<Ended>>,
        known: bool,
    ) -> Page {
        let epoch = held.epoch();
        let lost = held.lost().filter(|lost| lost.epoch == epoch).unwrap_or_default();
        let mut top = self.top.max(self.after).max(EventId::new(epoch, 0)).max(lost);
        let mut more = !self.at_end;
        if let Some(end) = end {
            top = end;
            match ended {
                Some(ended) if self.at_end => self.records.extend(ended.map(record)),
                Some(_) => {}
                None => more = true,
            }
        }
        Page {
            state,
            epoch,
            top,
            known,
            records: self.records,
            more,
            origin: held.origin(),
            voice: held.voice(),
            inner_retry: held.inner_retry(),
            headers: held.headers(),
        }
    }
}

fn record(ended: Ended) -> Record {
    Record { id: ended.id, at: ended.at, kind: RecordKind::End(Box::new(ended)) }
}

/// How many events or markers an entry stands for, and how many bytes of events.
fn size(record: &Record) -> (usize, usize) {
    match &record.kind {
        RecordKind::Events(frame) => (usize::try_from(frame.count).unwrap_or(usize::MAX), frame.bytes.len()),
        RecordKind::Run { .. } | RecordKind::End(_) => (1, 0),
    }
}

/// Whether a stream had a run of another epoch than its newest, where its state says so.
fn knows_by_state(held: &Held, cursor: EventId) -> Option<bool> {
    if held.lost().is_some_and(|lost| cursor.epoch <= lost.epoch) {
        return Some(true);
    }
    (cursor.epoch > held.epoch()).then_some(false)
}

/// Asks for the log's first entry, and for the first one from a run's marker on.
fn runs(keys: &StreamKeys, cursor: EventId) -> [Request; 2] {
    let marker = EventId::new(cursor.epoch, 0);
    [peek(keys, "XRANGE", "-"), peek(keys, "XRANGE", &marker.to_pair())]
}

/// Whether a stream had a run of another epoch than its newest, as far as its log can tell.
fn knows(cursor: EventId, first: Value, run: Value) -> Result<bool, RedisStoreError> {
    let marker = EventId::new(cursor.epoch, 0);
    let (first, run) = (stored::entries(first)?, stored::entries(run)?);
    // The next marker may be its own, or stand for it too.
    let own = |entry: &Entry| match entry.holds {
        Holds::Run { since, .. } => since.unwrap_or(entry.id) <= marker,
        Holds::Events(_) | Holds::Seal | Holds::Unreadable => false,
    };
    if run.iter().any(own) {
        return Ok(true);
    }
    // What was before the first entry that is held was held once.
    Ok(first.first().is_some_and(|first| match &first.holds {
        Holds::Run { previous, .. } => previous.is_some_and(|previous| cursor.epoch <= previous.epoch),
        Holds::Events(_) | Holds::Seal | Holds::Unreadable => cursor.epoch <= first.id.epoch,
    }))
}

/// The first entry in a direction, without its events.
pub(super) fn peek(keys: &StreamKeys, command: &str, from: &str) -> Request {
    let to = if command == "XRANGE" { "+" } else { "-" };
    Request::script(keys.slot, &script::PEEK, &[&keys.log]).arg(command).arg(from).arg(to)
}

/// So many entries after an id.
fn range(keys: &StreamKeys, after: EventId, count: usize) -> Request {
    let mut range = cmd("XRANGE");
    // Nothing is after the highest id that there is, and a server takes no offence if it is not asked for that.
    let open = if after == EventId::new(u64::MAX, u64::MAX) { "" } else { "(" };
    range.arg(&keys.log).arg(format!("{open}{}", after.to_pair())).arg("+").arg("COUNT").arg(count);
    Request::new(keys.slot, range)
}

/// What an end is read from: its event, and not once more what that holds.
fn completion(keys: &StreamKeys) -> Request {
    let mut fields = cmd("HMGET");
    fields.arg(&keys.completion).arg(&stored::ENDED);
    Request::new(keys.slot, fields)
}

/// Replies, in the order in which they were asked for. That of a key of another type is that of none.
struct Replies(std::vec::IntoIter<Reply>);

impl Replies {
    fn next(&mut self) -> Result<Value, RedisStoreError> {
        value::own(self.0.next().unwrap_or_else(|| Err(value::unexpected("a page"))))
    }
}
