//! The indexes in a cluster, where they lie in other slots than the streams: index first and stream second, stream first
//! and index last. So an index may name too many streams, which a guardian's look mends, and never too few.
//!
//! Where one server holds everything the scripts keep the indexes themselves, and all of this does nothing.

use std::time::Duration;

use redis::{Value, cmd};

use super::{
    Shared, clock::millis, error::RedisStoreError, fleet::Request, keys::StreamKeys, life::kept, script, value,
};
use crate::{
    id::{Owner, StreamId, StreamKey},
    store::{Open, Opened, Publish, Published},
    stream::StreamState,
};

/// What became of a request's place in the indexes, before its stream was asked for.
pub(super) enum Reserved {
    /// It has one: `Some` the deadline that was written for it, if it was not there before.
    Made(Option<u64>),
    Refused(Opened),
}

impl Shared {
    /// Puts a stream that may be opened into the indexes.
    pub(super) async fn reserve(&self, keys: &StreamKeys, open: &Open) -> Result<Reserved, RedisStoreError> {
        if !self.cluster {
            return Ok(Reserved::Made(None));
        }
        if open.limit.is_some() && !self.admit(open).await? {
            // Perhaps some of them ended without a word.
            self.recount(&open.key.owner).await?;
            if !self.admit(open).await? {
                return self.over_limit(open).await;
            }
        }
        let retention = &open.retention;
        let deadline = self.clock.now() + millis(retention.stale).min(millis(retention.lifetime));
        let added = self.fleet.ask(self.watching(keys, deadline, kept(retention), true)).await?;
        Ok(Reserved::Made((value::number(&added) == Some(1)).then_some(deadline)))
    }

    /// Looks at those that count as an owner's active streams; what is held of one that is not active says so from now on.
    async fn recount(&self, owner: &Owner) -> Result<(), RedisStoreError> {
        let (slot, index) = self.keys.owner(owner);
        let mut members = cmd("ZRANGE");
        members.arg(&index).arg(0).arg(-1).arg("WITHSCORES");
        let mut members = scored(self.fleet.ask(Request::new(slot, members)).await?)?;
        members.retain(|(_, score)| score % 2 == 1);
        let ids = members.into_iter().filter_map(|(id, _)| StreamId::new(id).ok());
        let counted: Vec<StreamKey> = ids.map(|id| StreamKey::new(owner.clone(), id)).collect();
        let of: Vec<StreamKeys> = counted.iter().map(|key| self.keys.of(key)).collect();
        for ((key, keys), known) in counted.iter().zip(&of).zip(self.know_all(&of).await?) {
            let state = known?.info(key).map(|info| info.state);
            // One that is not held yet may be about to be opened.
            if state.is_some_and(|state| state != StreamState::Active) {
                self.relist(keys, key).await?;
            }
        }
        Ok(())
    }

    /// Whether the owner may have one more active stream; this one is then counted, for as long as opening it may take.
    async fn admit(&self, open: &Open) -> Result<bool, RedisStoreError> {
        let (slot, owner) = self.keys.owner(&open.key.owner);
        let limit = open.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let expires = self.clock.now() + RESERVED;
        let admit = Request::script(slot, &script::OWN, &[&owner]).arg(open.key.id.as_str()).arg(expires);
        Ok(value::number(&self.fleet.ask(admit.arg(1).arg(limit).arg("")).await?) == Some(1))
    }

    /// An owner at the limit may still go back to a stream that is there.
    async fn over_limit(&self, open: &Open) -> Result<Reserved, RedisStoreError> {
        let Some(info) = self.info(open.key.clone()).await? else {
            let missing = if open.create { Opened::OverLimit } else { Opened::Missing };
            return Ok(Reserved::Refused(missing));
        };
        if info.state != StreamState::Interrupted {
            return Ok(Reserved::Made(None));
        }
        let refused = open.refused_by(info.origin, &info.kind, info.fingerprint.as_deref());
        Ok(Reserved::Refused(refused.unwrap_or(Opened::OverLimit)))
    }

    /// Sets the indexes right once it is known what became of the request.
    pub(super) async fn settle_reservation(
        &self,
        keys: &StreamKeys,
        open: &Open,
        reserved: Option<u64>,
        opened: &Opened,
    ) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        match (opened, reserved) {
            (Opened::New { .. }, Some(_)) => {}
            // Whoever put it in before may take it out again.
            (Opened::New { .. }, None) => self.watch_again(keys, open).await?,
            (_, Some(deadline)) => self.unwatch(keys, deadline).await?,
            (_, None) => {}
        }
        if matches!(opened, Opened::New { .. }) || open.limit.is_some() {
            self.relist(keys, &open.key).await?;
        }
        Ok(())
    }

    fn watching(&self, keys: &StreamKeys, deadline: u64, ttl: u64, only_new: bool) -> Request {
        let part = self.keys.part(keys.slot);
        Request::script(self.keys.part_slot(part), &script::WATCH, &[&self.keys.active(part)])
            .arg(&keys.name)
            .arg(deadline)
            .arg(ttl)
            .arg(if only_new { "NX" } else { "" })
    }

    pub(super) async fn watch_again(&self, keys: &StreamKeys, open: &Open) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        let retention = &open.retention;
        let deadline = self.clock.now() + millis(retention.stale).min(millis(retention.lifetime));
        self.fleet.ask(self.watching(keys, deadline, kept(retention), false)).await.map(drop)
    }

    /// Puts a stream that may be published into the index; one that is there already keeps its deadline until it is known
    /// that something was published.
    pub(super) async fn watch_published(
        &self,
        keys: &StreamKeys,
        publish: &Publish,
    ) -> Result<Option<u64>, RedisStoreError> {
        if !self.cluster {
            return Ok(None);
        }
        let deadline = self.clock.now() + millis(publish.retention.lifetime);
        let added = self.fleet.ask(self.watching(keys, deadline, kept(&publish.retention), true)).await?;
        Ok((value::number(&added) == Some(1)).then_some(deadline))
    }

    /// Sets the index right once it is known what became of it.
    pub(super) async fn settle_published(
        &self,
        keys: &StreamKeys,
        publish: &Publish,
        added: Option<u64>,
        published: &Published,
    ) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        match (published, added) {
            (Published::Stored(_), _) => {
                let deadline = self.clock.now() + millis(publish.retention.lifetime);
                self.fleet.ask(self.watching(keys, deadline, kept(&publish.retention), false)).await?;
                self.relist(keys, &publish.key).await
            }
            (Published::Ended(ended), _) => self.settle_end(keys, &publish.key, publish.hook, ended.at).await,
            (Published::Conflict | Published::EndedBefore(_), Some(added)) => self.unwatch(keys, added).await,
            (Published::Conflict | Published::EndedBefore(_), None) => Ok(()),
        }
    }

    /// Takes a stream out of an index of deadlines, or sets its deadline, if that is still the one that was seen.
    pub(super) fn unwatching(&self, index: &str, keys: &StreamKeys, seen: u64, deadline: Option<u64>) -> Request {
        let part = self.keys.part(keys.slot);
        let deadline = deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        let unwatch = Request::script(self.keys.part_slot(part), &script::UNWATCH, &[index]);
        unwatch.arg(&keys.name).arg(seen).arg(deadline)
    }

    async fn unwatch(&self, keys: &StreamKeys, seen: u64) -> Result<(), RedisStoreError> {
        let active = self.keys.active(self.keys.part(keys.slot));
        self.fleet.ask(self.unwatching(&active, keys, seen, None)).await.map(drop)
    }

    /// Writes into the owner's index what the stream itself says.
    pub(super) async fn relist(&self, keys: &StreamKeys, key: &StreamKey) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        let (mut state, mut left) = (cmd("HGET"), cmd("PTTL"));
        state.arg(&keys.stream).arg("state");
        left.arg(&keys.stream);
        let asked = vec![Request::new(keys.slot, state), Request::new(keys.slot, left)];
        let mut replies = self.fleet.send(asked).await?.into_iter();
        let (state, left) = (replies.next().transpose()?, replies.next().transpose()?);
        let state = state.and_then(value::text).filter(|state| state != "gone" && state != "deleted");
        let left = left.as_ref().and_then(value::number);
        let (Some(state), Some(left)) = (state, left) else { return self.unlist_owned(key).await };
        let (slot, owner) = self.keys.owner(&key.owner);
        let own = Request::script(slot, &script::OWN, &[&owner]).arg(key.id.as_str()).arg(self.clock.now() + left);
        self.fleet.ask(own.arg(u8::from(state == "active")).arg("").arg("")).await.map(drop)
    }

    async fn unlist_owned(&self, key: &StreamKey) -> Result<(), RedisStoreError> {
        let (slot, owner) = self.keys.owner(&key.owner);
        let own = Request::script(slot, &script::OWN, &[&owner]).arg(key.id.as_str());
        self.fleet.ask(own.arg("").arg(0).arg("").arg("")).await.map(drop)
    }

    /// A stream is active no more, or is gone; `seen` is the deadline that it had before.
    pub(super) async fn unlist(
        &self,
        keys: &StreamKeys,
        key: &StreamKey,
        seen: Option<u64>,
    ) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        if let Some(seen) = seen {
            // Only if nobody has opened it again since.
            self.unwatch(keys, seen).await?;
        }
        self.relist(keys, key).await
    }

    async fn take_out(&self, index: &str, keys: &StreamKeys) -> Result<(), RedisStoreError> {
        let mut remove = cmd("ZREM");
        remove.arg(index).arg(&keys.name);
        let slot = self.keys.part_slot(self.keys.part(keys.slot));
        self.fleet.ask(Request::new(slot, remove)).await.map(drop)
    }

    /// Nobody must look after it any more.
    pub(super) async fn unwatch_due(&self, keys: &StreamKeys) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        self.take_out(&self.keys.due(self.keys.part(keys.slot)), keys).await
    }

    /// A stream has ended at a time of the store's clock.
    pub(super) async fn settle_end(
        &self,
        keys: &StreamKeys,
        key: &StreamKey,
        hook: Option<Duration>,
        at: u64,
    ) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        // Its hook first: once it is out of the one index it must be in the other.
        if let Some(hook) = hook {
            self.watch_due(keys, at + millis(hook)).await?;
        } else {
            self.unwatch_due(keys).await?;
        }
        self.take_out(&self.keys.active(self.keys.part(keys.slot)), keys).await?;
        self.relist(keys, key).await
    }

    async fn watch_due(&self, keys: &StreamKeys, deadline: u64) -> Result<(), RedisStoreError> {
        self.fleet.ask(self.watching_due(keys, deadline)).await.map(drop)
    }

    /// Somebody must look after the stream then.
    pub(super) fn watching_due(&self, keys: &StreamKeys, deadline: u64) -> Request {
        let part = self.keys.part(keys.slot);
        let ttl = deadline.saturating_sub(self.clock.now()) + LOOKED_AFTER;
        let watch = Request::script(self.keys.part_slot(part), &script::WATCH, &[&self.keys.due(part)]);
        watch.arg(&keys.name).arg(deadline).arg(ttl).arg("")
    }

    /// A stream stands still; `expires`: when somebody must close it.
    pub(super) async fn settle_interruption(
        &self,
        keys: &StreamKeys,
        key: &StreamKey,
        seen: Option<u64>,
        expires: Option<u64>,
    ) -> Result<(), RedisStoreError> {
        if !self.cluster {
            return Ok(());
        }
        if let Some(expires) = expires {
            self.watch_due(keys, expires).await?;
        }
        if let Some(seen) = seen {
            // Only if nobody has begun a new run since.
            self.unwatch(keys, seen).await?;
        }
        self.relist(keys, key).await
    }

    async fn score(&self, index: &str, keys: &StreamKeys) -> Result<Option<u64>, RedisStoreError> {
        let mut score = cmd("ZSCORE");
        score.arg(index).arg(&keys.name);
        let slot = self.keys.part_slot(self.keys.part(keys.slot));
        Ok(value::number(&self.fleet.ask(Request::new(slot, score)).await?))
    }

    /// The stream's deadline before it is changed.
    pub(super) async fn deadline_seen(&self, keys: &StreamKeys) -> Result<Option<u64>, RedisStoreError> {
        if !self.cluster {
            return Ok(None);
        }
        self.score(&self.keys.active(self.keys.part(keys.slot)), keys).await
    }

    /// Whether a stream's deadline is not the one that a lease wrote. In a cluster a beat may come between this look and
    /// what follows it; but then its node was silent for longer than it may be (guarantee G5's exception).
    pub(super) async fn has_moved(&self, keys: &StreamKeys, leased: Option<u64>) -> Result<bool, RedisStoreError> {
        let Some(leased) = leased.filter(|_| self.cluster) else { return Ok(false) };
        let part = self.keys.part(keys.slot);
        let held = [self.score(&self.keys.active(part), keys).await?, self.score(&self.keys.due(part), keys).await?];
        Ok(!held.contains(&Some(leased)))
    }
}

/// For how long a stream that may be opened counts as one of its owner's, in milliseconds.
const RESERVED: u64 = 10_000;

/// How long an index outlives the last deadline in it, in milliseconds: a guardian's pause, at most.
const LOOKED_AFTER: u64 = 3_600_000;

/// Members and their scores, as either protocol gives them: in pairs, or one after the other.
fn scored(reply: Value) -> Result<Vec<(String, u64)>, RedisStoreError> {
    let mut flat = Vec::new();
    for value in value::array(reply, "ZRANGE")? {
        match value {
            Value::Array(pair) => flat.extend(pair),
            value => flat.push(value),
        }
    }
    let mut flat = flat.into_iter();
    let pair = || Some((value::text(flat.next()?)?, value::number(&flat.next()?)?));
    Ok(std::iter::from_fn(pair).collect())
}
