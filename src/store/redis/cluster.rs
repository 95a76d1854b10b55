//! The indexes of a cluster, where they lie in other slots than the streams, and so perhaps on servers that are away.
//!
//! A stream's own keys decide. What goes into the indexes is best effort: it is written beside or after the stream, by a
//! task that goes on when the caller does not wait any longer, and its errors are nobody's. An index may so name a stream
//! that it should not, which a guardian's look mends, or for a while not name one that it should, which the producer's next
//! beat mends.
//!
//! Where one server holds everything the scripts keep the indexes themselves, and all of this does nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{Value, cmd};
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use super::{
    Shared,
    error::RedisStoreError,
    fleet::{Fleet, Request},
    indexes::{Indexed, Watching},
    keys::{Keys, StreamKeys},
    value,
};
use crate::{
    model::{
        id::{Owner, StreamId, StreamKey},
        stream::StreamState,
    },
    protocol::backoff::Backoff,
    runtime::sync::lock,
    store::{Open, Opened},
};

/// For how long a caller waits for the indexes: a server that answers has done it by then.
const PATIENCE: Duration = Duration::from_millis(100);
/// For how long an owner's index is asked whether one more stream is allowed.
const ADMISSION: Duration = Duration::from_millis(500);
/// For how long the indexes of a stream are tried, and how often at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);
/// How many streams' indexes are written at a time.
const AT_ONCE: usize = 4096;
/// For how long a stream that may be opened counts as one of its owner's, in milliseconds.
const RESERVED: u64 = 10_000;
/// How many of an owner's active streams are looked at in search of one that has ended without a word.
const RECOUNTED: usize = 100;

/// Work on indexes and pointers that nobody waits for any more. It ends with the store.
#[derive(Default)]
pub(super) struct Background(Mutex<JoinSet<()>>);

/// Work on what a stream's change means for other keys, as far as its caller waits for it.
#[must_use]
pub(super) enum Settling {
    Nothing,
    Apart(oneshot::Receiver<()>),
    /// There is no room for another task, or no runtime.
    Here(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Background {
    pub(super) fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> Settling {
        let mut tasks = lock(&self.0);
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= AT_ONCE || Handle::try_current().is_err() {
            return Settling::Here(Box::pin(work));
        }
        let (done, wait) = oneshot::channel();
        tasks.spawn(async move {
            let _ = timeout(SETTLES_WITHIN, work).await;
            drop(done);
        });
        Settling::Apart(wait)
    }
}

impl Settling {
    /// Waits until it is done, but not for long.
    pub(super) async fn wait(self) {
        let _ = match self {
            Self::Nothing => return,
            Self::Apart(done) => timeout(PATIENCE, done).await.map(drop),
            Self::Here(work) => timeout(PATIENCE, work).await,
        };
    }
}

/// What came of a request that had a place in the indexes reserved for it.
pub(super) enum Came {
    /// The stream is active, and the caller's.
    Registered,
    /// The stream has ended by the request.
    Ended(Indexed),
    /// The stream is active, and somebody else's.
    Active,
    /// Nothing that the reservation was made for.
    Nothing,
}

/// A place in the indexes for a stream that is about to be registered. Dropped without a word, it stays until a guardian's
/// look: the stream may be registered yet.
pub(super) struct Reservation(Option<(oneshot::Sender<Came>, Settling)>);

impl Reservation {
    /// Says what came of the request, and waits for a moment until the indexes are as they have to be.
    pub(super) async fn settle(self, came: Came) {
        if let Some((tell, settling)) = self.0 {
            let _ = tell.send(came);
            settling.wait().await;
        }
    }
}

/// The indexes, as a task has them that may outlive its caller but not the store.
#[derive(Clone)]
struct Indexes {
    keys: Keys,
    fleet: Arc<Fleet>,
}

impl Shared {
    fn indexes(&self) -> Option<Indexes> {
        self.cluster.then(|| Indexes { keys: self.keys.clone(), fleet: Arc::clone(&self.fleet) })
    }

    /// Reserves a place in the indexes, at the same time as the stream itself is asked. `counted`: the owner's index has it
    /// among the active ones already, for a moment.
    pub(super) fn reserve(&self, key: &StreamKey, watching: Watching, counted: bool) -> Reservation {
        let Some(indexes) = self.indexes() else { return Reservation(None) };
        let (tell, told) = oneshot::channel();
        let key = key.clone();
        Reservation(Some((
            tell,
            self.background.begin(async move { indexes.reserve(key, watching, counted, told).await }),
        )))
    }

    /// Sets the indexes right after a change of a stream. `told`: what they have to say, where that is known.
    pub(super) async fn settle(&self, key: &StreamKey, told: Option<Indexed>) {
        let Some(indexes) = self.indexes() else { return };
        let key = key.clone();
        self.background.begin(async move { indexes.settle(&key, told).await }).wait().await;
    }

    /// Nobody must look after a stream any more.
    pub(super) async fn settle_hook(&self, keys: StreamKeys) {
        let Some(Indexes { keys: names, fleet }) = self.indexes() else { return };
        let work = async move {
            let due = names.due(names.part(keys.slot));
            let _ = fleet.ask(names.removing(&due, &keys)).await;
        };
        self.background.begin(work).wait().await;
    }

    /// Whether an owner may have one more active stream, by its index; this one is then counted for as long as opening it
    /// may take. `Some`: what the request is told instead. Where the index cannot be asked the stream is admitted: its own
    /// keys are well.
    pub(super) async fn admit(&self, open: &Open) -> Result<Option<Opened>, RedisStoreError> {
        let Some(limit) = open.limit.filter(|_| self.cluster) else { return Ok(None) };
        let ask = async || {
            let asked = timeout(ADMISSION, self.fleet.ask(self.keys.admitting(&open.key, RESERVED, limit))).await;
            asked.ok()?.ok().map(|admitted| value::number(&admitted) == Some(1))
        };
        if ask().await != Some(false) {
            return Ok(None);
        }
        // Perhaps some of them ended without a word.
        let freed = timeout(ADMISSION, self.recount(&open.key.owner)).await;
        if matches!(freed, Ok(Ok(true))) && ask().await == Some(true) {
            return Ok(None);
        }
        self.over_limit(open).await
    }

    /// Looks at those that count as an owner's active streams; what is held of one that is not active says so from now on.
    /// Returns whether there was one.
    async fn recount(&self, owner: &Owner) -> Result<bool, RedisStoreError> {
        let (slot, index) = self.keys.owner(owner);
        let mut members = cmd("ZRANGEBYSCORE");
        members.arg(&index).arg(ACTIVE).arg("+inf").arg("LIMIT").arg(0).arg(RECOUNTED);
        let members = value::array(self.fleet.ask(Request::new(slot, members)).await?, "ZRANGEBYSCORE")?;
        let ids = members.into_iter().filter_map(|id| StreamId::new(value::text(id)?).ok());
        let counted: Vec<StreamKey> = ids.map(|id| StreamKey::new(owner.clone(), id)).collect();
        let asked = counted.iter().map(|key| self.keys.standing(&self.keys.of(key))).collect();
        let replies = self.fleet.send(asked).await?;
        let told = counted.iter().zip(replies).filter_map(|(key, reply)| Some((key, standing(reply.ok()?).ok()?)));
        // One that is not held yet may be about to be opened.
        let ended = told.filter(|(_, told)| told.ttl > 0 && !told.active);
        let written: Vec<Request> = ended.map(|(key, told)| self.keys.owning(key, told.ttl, false)).collect();
        let found = !written.is_empty();
        self.fleet.send(written).await?;
        Ok(found)
    }

    /// An owner at the limit may still go back to a stream that is there.
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

    /// Whether a stream's deadline is not the one that a lease wrote. In a cluster a beat may come between this look and
    /// what follows it; but then its node was silent for longer than it may be (guarantee G5's exception).
    pub(super) async fn has_moved(&self, keys: &StreamKeys, leased: Option<u64>) -> Result<bool, RedisStoreError> {
        let Some(leased) = leased.filter(|_| self.cluster) else { return Ok(false) };
        let part = self.keys.part(keys.slot);
        let mut due = cmd("ZSCORE");
        due.arg(self.keys.due(part)).arg(&keys.name);
        let held = vec![self.keys.deadline(keys), Request::new(self.keys.part_slot(part), due)];
        let held = self.fleet.send(held).await?.into_iter();
        let held: Vec<_> = held.map(|reply| reply.map(|score| value::number(&score))).collect::<Result<_, _>>()?;
        Ok(!held.contains(&Some(leased)))
    }
}

impl Indexes {
    /// Sends commands; `Ok` if all of them worked.
    async fn send(&self, requests: Vec<Request>) -> Result<Vec<Value>, RedisStoreError> {
        self.fleet.send(requests).await?.into_iter().collect()
    }

    async fn reserve(self, key: StreamKey, watching: Watching, counted: bool, told: oneshot::Receiver<Came>) {
        let keys = self.keys.of(&key);
        let mut asked = vec![self.keys.reserving(&keys, watching)];
        if !counted {
            asked.push(self.keys.owning_new(&key, watching.ttl));
        }
        let mut replies = match self.fleet.send(asked).await {
            Ok(replies) => replies.into_iter(),
            Err(_) => Vec::new().into_iter(),
        };
        let mut written = || replies.next()?.ok().and_then(|reply| value::number(&reply)).filter(|number| *number > 0);
        let (deadline, owned) = (written(), written().is_some());
        let Ok(came) = told.await else { return };
        match came {
            Came::Registered => {
                let mut missing = Vec::new();
                if deadline.is_none() {
                    // Whoever put it in before may take it out again.
                    missing.push(self.keys.registering(&keys, watching, false));
                }
                if !owned {
                    missing.push(self.keys.owning(&key, watching.ttl, true));
                }
                if !missing.is_empty() && self.send(missing).await.is_err() {
                    self.settle_in_time(&key, None).await;
                }
            }
            Came::Ended(told) => self.settle(&key, Some(told)).await,
            // The owner's index says of it what need not be so.
            Came::Active | Came::Nothing if owned || counted => self.settle_in_time(&key, None).await,
            // The index names it rightly, whoever put it in.
            Came::Active => {}
            Came::Nothing => {
                if let Some(deadline) = deadline {
                    let active = self.keys.active(self.keys.part(keys.slot));
                    let _ = self.send(vec![self.keys.unwatching(&active, &keys, deadline, None)]).await;
                }
            }
        }
    }

    /// Sets the indexes right after a stream was changed: by what is known of it, at first.
    async fn settle(&self, key: &StreamKey, told: Option<Indexed>) {
        if let Some(told) = told {
            let keys = self.keys.of(key);
            let part = self.keys.part(keys.slot);
            let (active, due) = (self.keys.active(part), self.keys.due(part));
            // Its hook first: once it is out of the one index it must be in the other.
            let looked_after = match told.overdue {
                Some(overdue) => self.keys.watching_due(&keys, overdue),
                None => self.keys.removing(&due, &keys),
            };
            let all =
                vec![looked_after, self.keys.removing(&active, &keys), self.keys.owning(key, told.ttl, told.active)];
            if self.send(all).await.is_ok() {
                return;
            }
        }
        self.settle_in_time(key, told).await;
    }

    /// Sets the indexes right by what the stream itself says, again and again until that works.
    async fn settle_in_time(&self, key: &StreamKey, told: Option<Indexed>) {
        let mut backoff = Backoff::new(SOONEST, LATEST);
        while self.look(key, told).await.is_err() {
            tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
        }
    }

    /// The same once. What stands in the indexes is marked before the stream is looked at, and taken out only if it still
    /// bears the mark: whoever registers the stream meanwhile is not undone.
    async fn look(&self, key: &StreamKey, told: Option<Indexed>) -> Result<(), RedisStoreError> {
        let keys = self.keys.of(key);
        let part = self.keys.part(keys.slot);
        let (active, due) = (self.keys.active(part), self.keys.due(part));
        let marks = self.send(vec![self.keys.marking(&active, &keys), self.keys.marking(&due, &keys)]).await?;
        let mut marks = marks.iter().map(|mark| value::number(mark).filter(|mark| *mark > 0));
        let (was_active, was_due) = (marks.next().flatten(), marks.next().flatten());
        let stands = standing(self.fleet.ask(self.keys.standing(&keys)).await?)?;
        let mut all = Vec::with_capacity(3);
        if stands.active {
            if was_active.is_none() {
                let overdue = stands.overdue.unwrap_or(0);
                all.push(self.keys.registering(&keys, Watching { overdue, ttl: stands.ttl }, true));
            }
        } else {
            match (stands.overdue, told) {
                // A hook that waits, and that a guardian may have leased.
                (Some(0), None) if was_due.is_some() => {}
                (Some(overdue), told) => {
                    let lease = told.and_then(|told| told.overdue).unwrap_or(0);
                    all.push(self.keys.watching_due(&keys, overdue.max(lease)));
                }
                (None, _) => all.extend(was_due.map(|mark| self.keys.unwatching(&due, &keys, mark, None))),
            }
            all.extend(was_active.map(|mark| self.keys.unwatching(&active, &keys, mark, None)));
        }
        all.push(if stands.ttl > 0 {
            self.keys.owning(key, stands.ttl, stands.active)
        } else {
            self.keys.disowning(key)
        });
        self.send(all).await.map(drop)
    }
}

/// What is added to the expiry of an active stream in its owner's index, as in the scripts.
const ACTIVE: u64 = 1 << 50;

/// Reads what the script says of a stream.
pub(super) fn standing(reply: Value) -> Result<Indexed, RedisStoreError> {
    const WHAT: &str = "standing";
    let mut parts = value::array(reply, WHAT)?.into_iter();
    let mut number = || parts.next().as_ref().map(value::number).ok_or_else(|| value::unexpected(WHAT));
    let (ttl, active, overdue) = (number()?, number()?, number()?);
    Ok(Indexed { ttl: ttl.unwrap_or(0), active: active == Some(1), overdue })
}
