//! The indexes of a cluster. They lie in other slots than the streams, and so perhaps on servers that do not answer.
//!
//! The stream's own keys decide. The indexes are written in parallel with the stream or after it, by a task that goes on when
//! its caller stops waiting, and whose errors are dropped. So an index may name a stream that it should not; a guardian
//! removes that. Or it may lack a stream for a while; the next beat of the producer adds it.
//!
//! On one server the scripts write the indexes themselves, and all of this does nothing.

use std::{sync::Arc, time::Duration};

use redis::cmd;
use tokio::{sync::oneshot, time::timeout};

use super::{
    error::RedisStoreError,
    indexes::{Indexed, Watching, standing},
    keys::StreamKeys,
    request::Request,
    reservation::Reservation,
    settle::Indexes,
    shared::Shared,
    value,
};
use crate::{
    model::{
        id::{Owner, StreamId, StreamKey},
        stream::StreamState,
    },
    store::{Open, Opened},
};

/// How long the owner's index may take to say if one more stream is allowed.
const ADMISSION: Duration = Duration::from_millis(500);
/// How long a stream that is being opened counts as one of its owner's active ones, in milliseconds.
const RESERVED: u64 = 10_000;
/// The most active streams of an owner that are checked for an end that the index has missed.
const RECOUNTED: usize = 100;
/// Added to the expiry of an active stream in its owner's index. The scripts use the same number.
const ACTIVE: u64 = 1 << 50;

impl Shared {
    fn indexes(&self) -> Option<Indexes> {
        self.cluster.then(|| Indexes { keys: self.keys.clone(), fleet: Arc::clone(&self.fleet) })
    }

    /// Reserves a place in the indexes while the request for the stream itself is under way. `counted` says whether the owner's
    /// index counts the stream as active already.
    pub(super) fn reserve(&self, key: &StreamKey, watching: Watching, counted: bool) -> Reservation {
        let Some(indexes) = self.indexes() else { return Reservation(None) };
        let (report, outcome) = oneshot::channel();
        let key = key.clone();
        Reservation(Some((
            report,
            self.background.begin(async move { indexes.reserve(key, watching, counted, outcome).await }),
        )))
    }

    /// Corrects the indexes after a change of a stream. `known` is what they must contain, if the change determines it.
    pub(super) async fn settle(&self, key: &StreamKey, known: Option<Indexed>) {
        let Some(indexes) = self.indexes() else { return };
        let key = key.clone();
        self.background.begin(async move { indexes.settle(&key, known).await }).wait().await;
    }

    /// Takes a stream out of the index of those that a guardian must look after.
    pub(super) async fn settle_hook(&self, keys: StreamKeys) {
        let Some(Indexes { keys: names, fleet }) = self.indexes() else { return };
        let work = async move {
            let due = names.due(names.part(keys.slot));
            let _ = fleet.ask(names.removing(&due, &keys)).await;
        };
        self.background.begin(work).wait().await;
    }

    /// Checks by the owner's index if it may have one more active stream, and counts this one for as long as opening it may
    /// take. `Some`: the outcome of the request if it may not. If the index cannot be asked, the stream is admitted.
    pub(super) async fn admit(&self, open: &Open) -> Result<Option<Opened>, RedisStoreError> {
        let Some(limit) = open.limit.filter(|_| self.cluster) else { return Ok(None) };
        let ask = async || {
            let asked = timeout(ADMISSION, self.fleet.ask(self.keys.admitting(&open.key, RESERVED, limit))).await;
            asked.ok()?.ok().map(|admitted| value::number(&admitted) == Some(1))
        };
        if ask().await != Some(false) {
            return Ok(None);
        }
        // Some of the counted streams may have ended without the index knowing.
        let freed = timeout(ADMISSION, self.recount(&open.key.owner)).await;
        if matches!(freed, Ok(Ok(true))) && ask().await == Some(true) {
            return Ok(None);
        }
        self.over_limit(open).await
    }

    /// Checks the streams that count as the owner's active ones, and corrects the index for those that are not active. Returns
    /// whether there were any.
    async fn recount(&self, owner: &Owner) -> Result<bool, RedisStoreError> {
        let (slot, index) = self.keys.owner(owner);
        let mut members = cmd("ZRANGEBYSCORE");
        members.arg(&index).arg(ACTIVE).arg("+inf").arg("LIMIT").arg(0).arg(RECOUNTED);
        let members = value::array(self.fleet.ask(Request::new(slot, members).reading()).await?, "ZRANGEBYSCORE")?;
        let ids = members.into_iter().filter_map(|id| StreamId::new(value::text(id)?).ok());
        let counted: Vec<StreamKey> = ids.map(|id| StreamKey::new(owner.clone(), id)).collect();
        let asked = counted.iter().map(|key| self.keys.standing(&self.keys.of(key))).collect();
        let replies = self.fleet.send(asked).await?;
        let stands = counted.iter().zip(replies).filter_map(|(key, reply)| Some((key, standing(reply.ok()?).ok()?)));
        // A stream that is not held may be about to be opened, so it stays counted.
        let ended = stands.filter(|(_, stands)| stands.ttl > 0 && !stands.active);
        let written: Vec<Request> = ended.map(|(key, stands)| self.keys.owning(key, stands.ttl, false)).collect();
        let found = !written.is_empty();
        self.fleet.send(written).await?;
        Ok(found)
    }

    /// The outcome for an owner at its limit. It may still join a stream that is active or has ended (`None`).
    async fn over_limit(&self, open: &Open) -> Result<Option<Opened>, RedisStoreError> {
        let Some(info) = self.info(open.key.clone()).await? else {
            return Ok(Some(if open.create { Opened::OverLimit } else { Opened::Missing }));
        };
        if info.state != StreamState::Interrupted {
            return Ok(None);
        }
        let refused = open.refused_by(info.origin, &info.kind, info.fingerprint.as_deref());
        Ok(Some(refused.unwrap_or(Opened::OverLimit)))
    }

    /// Whether the deadline of a stream is no longer the one that a lease wrote. In a cluster a beat may come between this check
    /// and the request that follows it. But then the node had been silent for too long before (the exception of guarantee G5).
    pub(super) async fn has_moved(&self, keys: &StreamKeys, leased: Option<u64>) -> Result<bool, RedisStoreError> {
        let Some(leased) = leased.filter(|_| self.cluster) else { return Ok(false) };
        let part = self.keys.part(keys.slot);
        let mut due = cmd("ZSCORE");
        due.arg(self.keys.due(part)).arg(&keys.name);
        let held = vec![self.keys.deadline(keys).reading(), Request::new(self.keys.part_slot(part), due).reading()];
        let held = self.fleet.send(held).await?.into_iter();
        let held: Vec<_> = held.map(|reply| reply.map(|score| value::number(&score))).collect::<Result<_, _>>()?;
        Ok(!held.contains(&Some(leased)))
    }
}
