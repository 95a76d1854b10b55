//! Reading a page of a log.

use redis::{Value, cmd};

use super::super::{
    error::RedisStoreError,
    request::{Reply, Request},
    shared::Shared,
    stored::{self, Entry, Held, Standing},
    value,
};
use super::{
    pager::Pager,
    requests::{completion, peek},
    runs::{knows, knows_by_state, runs},
};
use crate::{
    model::{id::EventId, stream::Ended},
    store::{Page, Read, ReadFrom},
};

/// A terminal event of at most this many bytes is fetched with entries that may be the last, before that is known.
const SMALL: u64 = 4096;

/// The fields of a stream's hash that a page needs.
const FIELDS: [&str; 7] = ["state", "epoch", "lost", "origin", "voice", "retry", "headers"];

impl Shared {
    pub(in super::super) async fn read(&self, read: Read) -> Result<Option<Page>, RedisStoreError> {
        let keys = self.keys.of(&read.key);
        let (mut held, mut size) = (cmd("HMGET"), cmd("HSTRLEN"));
        held.arg(&keys.stream).arg(&FIELDS);
        size.arg(&keys.completion).arg("event");
        let mut requests = vec![Request::new(keys.slot, held), Request::new(keys.slot, size)];
        // Only the hash tells where the newest run begins, so it is read first.
        let after = match read.from {
            ReadFrom::After(cursor) => Some(cursor),
            ReadFrom::Start => Some(EventId::default()),
            ReadFrom::Newest => None,
        };
        let mut log = Pager::new(&read, self.densities.get(&keys.name));
        if let Some(after) = after {
            log.after = after;
            // For a page of one entry it is not worth asking if that is the last.
            let is_blind = log.density.entries == 0 && read.max_events > 1;
            requests.extend(log.next(&keys));
            if is_blind && log.asked > 0 {
                requests.push(peek(&keys, "XREVRANGE", "+"));
            }
        }
        let mut replies = Replies(self.fleet.send_bulk(requests).await?.into_iter());
        let held = Held::new(stored::fields(&FIELDS, replies.next()?));
        let Standing::Is(state) = held.standing() else { return Ok(None) };
        let is_small = value::number(&replies.next()?).is_none_or(|size| size <= SMALL);
        let epoch = held.epoch();
        if log.asked > 0 {
            log.take(replies.next()?, epoch)?;
            let newest = replies.0.next().transpose()?.map(stored::entries).transpose()?;
            log.note_newest(newest.as_deref().and_then(<[Entry]>::first).map(|entry| entry.id));
        } else {
            log.after = EventId::new(epoch, 0);
        }
        // The id of the end, if the reader must get it.
        let end = Some(EventId::terminal(epoch)).filter(|end| state.is_terminal() && *end > log.after);
        let mut ended: Option<Option<Ended>> = None;
        let mut known = match read.from {
            ReadFrom::After(cursor) if cursor.epoch != epoch => (state.is_terminal()
                && cursor == EventId::terminal(epoch))
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
            if let (true, ReadFrom::After(cursor)) = (asks, read.from) {
                requests.extend(runs(&keys, cursor));
            }
            if requests.is_empty() {
                break;
            }
            let mut replies = Replies(self.fleet.send_bulk(requests).await?.into_iter());
            if fetches {
                log.take(replies.next()?, epoch)?;
            }
            if wants_end {
                ended = Some(stored::ended(stored::fields(&stored::ENDED, replies.next()?)));
            }
            if let (true, ReadFrom::After(cursor)) = (asks, read.from) {
                known = Some(knows(cursor, replies.next()?, replies.next()?)?);
            }
            if !log.needs_another_round() {
                break;
            }
        }
        if log.density.entries > 0 {
            self.densities.note(&keys.name, log.density);
        }
        Ok(Some(log.into_page(&held, state, end, ended, known.unwrap_or(true))))
    }
}

/// Replies in the order of the requests. A key of another type counts as missing.
struct Replies(std::vec::IntoIter<Reply>);

impl Replies {
    fn next(&mut self) -> Result<Value, RedisStoreError> {
        value::or_missing(self.0.next().unwrap_or_else(|| Err(value::unexpected("a page"))))
    }
}
