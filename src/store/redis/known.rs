//! Fetches the stored state of streams.

use std::borrow::Borrow;

use redis::{Value, cmd};

use super::{
    error::RedisStoreError,
    keys::StreamKeys,
    page::peek,
    request::{Reply, Request},
    shared::Shared,
    stored::{self, Entry, Held, Holds, Standing},
    value,
};
use crate::model::{
    id::{EventId, StreamKey},
    stream::{Ended, StreamInfo, StreamState},
};

/// The stored state of a stream, without its log except the newest entry.
pub(super) struct Known {
    pub(super) held: Held,
    pub(super) ended: Option<Ended>,
    /// Whether its `on_end` hook has not been acknowledged.
    pub(super) hook: bool,
    /// The newest entry of the log, seals aside.
    pub(super) log: Option<EventId>,
    /// Whether the newest entry is a seal.
    pub(super) is_sealed: bool,
    /// When the newest entry was written.
    pub(super) written: u64,
    /// Its deadline in the index of active streams.
    pub(super) active: Option<u64>,
    /// Its deadline in the index of streams that a guardian must look after.
    pub(super) due: Option<u64>,
}

impl Known {
    /// The stream as a reader sees it. A deleted one is missing.
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
    fn known_requests(&self, keys: &StreamKeys, deadline: bool) -> impl Iterator<Item = Request> {
        let part = self.keys.part(keys.slot);
        let command = |name: &str, key: &str| {
            let mut command = cmd(name);
            command.arg(key);
            command
        };
        let mut top = command("XREVRANGE", &keys.log);
        top.arg("+").arg("-").arg("COUNT").arg(1);
        let mut due = command("ZSCORE", &self.keys.due(part));
        due.arg(&keys.name);
        let all = [
            Request::new(keys.slot, command("HGETALL", &keys.stream)),
            Request::new(keys.slot, command("HGETALL", &keys.completion)),
            Request::new(keys.slot, top),
            Request::new(self.keys.part_slot(part), due),
        ];
        all.into_iter().chain(deadline.then(|| self.keys.deadline(keys)))
    }

    /// Fetches the stored state of streams. Returns one result for each, in order.
    pub(super) async fn known_of(
        &self,
        of: &[impl Borrow<StreamKeys>],
    ) -> Result<Vec<Result<Known, RedisStoreError>>, RedisStoreError> {
        self.fetch_known(of, true).await
    }

    /// Fetches the stored state of streams that were just leased, without their deadlines, which the caller knows.
    pub(super) async fn known_of_leased(
        &self,
        of: &[impl Borrow<StreamKeys>],
    ) -> Result<Vec<Result<Known, RedisStoreError>>, RedisStoreError> {
        self.fetch_known(of, false).await
    }

    async fn fetch_known(
        &self,
        of: &[impl Borrow<StreamKeys>],
        deadline: bool,
    ) -> Result<Vec<Result<Known, RedisStoreError>>, RedisStoreError> {
        let mut requests = Vec::with_capacity(5 * of.len());
        for keys in of {
            requests.extend(self.known_requests(keys.borrow(), deadline));
        }
        let mut replies = self.fleet.send_bulk(requests).await?.into_iter();
        let mut all: Vec<_> = of.iter().map(|_| known(&mut replies, deadline)).collect();
        self.fetch_tops_behind_seals(of, &mut all).await?;
        Ok(all)
    }

    /// Fetches the newest entry before the seal of each sealed log, unless the end tells enough.
    async fn fetch_tops_behind_seals(
        &self,
        of: &[impl Borrow<StreamKeys>],
        all: &mut [Result<Known, RedisStoreError>],
    ) -> Result<(), RedisStoreError> {
        let is_hidden = |known: &Known| known.is_sealed && !(known.ended.is_some() && known.held.flag("started"));
        let pairs = all.iter_mut().zip(of);
        let hidden: Vec<_> = pairs.filter(|(known, _)| known.as_ref().is_ok_and(is_hidden)).collect();
        let peeks = hidden.iter().map(|(_, keys)| peek((*keys).borrow(), "XREVRANGE", "+")).collect();
        for ((entry, _), reply) in hidden.into_iter().zip(self.fleet.send_bulk(peeks).await?) {
            // An error concerns this stream only.
            match (value::or_missing(reply).and_then(stored::entries), &mut *entry) {
                (Ok(newest), Ok(known)) => known.log = newest.first().map(|entry| entry.id),
                (Err(error), _) => *entry = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn info(&self, key: StreamKey) -> Result<Option<StreamInfo>, RedisStoreError> {
        let known = self.known_of(&[self.keys.of(&key)]).await?.pop();
        Ok(known.transpose()?.and_then(|known| known.info(&key)))
    }
}

/// Reads the replies about one stream, in the order of the requests.
fn known(replies: &mut impl Iterator<Item = Reply>, deadline: bool) -> Result<Known, RedisStoreError> {
    let all: Vec<Reply> = replies.take(if deadline { 5 } else { 4 }).collect();
    let mut all = all.into_iter();
    let mut next = || -> Result<Value, RedisStoreError> {
        value::or_missing(all.next().unwrap_or_else(|| Err(value::unexpected("what is known of a stream"))))
    };
    let held = Held::new(value::fields(next()?, "HGETALL")?);
    let completion = value::fields(next()?, "HGETALL")?;
    let tops = stored::entries(next()?)?;
    // In a cluster the indexes lie elsewhere. If they do not answer, the stream's own keys are known all the same.
    let mut score = || value::number(&next().unwrap_or_default());
    let due = score();
    let active = deadline.then(score).flatten();
    let top = tops.first();
    let is_sealed = top.is_some_and(|entry| matches!(entry.holds, Holds::Seal));
    Ok(Known {
        hook: completion.get("onEnd").is_some_and(|mark| mark == b"due"),
        ended: stored::ended(completion)
            .filter(|_| matches!(held.standing(), Standing::Is(state) if state.is_terminal())),
        log: top.filter(|_| !is_sealed).map(|entry| entry.id),
        is_sealed,
        written: top.map_or(0, Entry::at),
        held,
        active,
        due,
    })
}
