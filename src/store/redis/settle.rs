//! The tasks that set the indexes of a cluster right.

use std::{sync::Arc, time::Duration};

use redis::Value;
use tokio::sync::oneshot;

use super::{
    error::RedisStoreError,
    fleet::Fleet,
    indexes::{Indexed, Watching, standing},
    keys::Keys,
    request::Request,
    reservation::Outcome,
    value,
};
use crate::{model::id::StreamKey, protocol::backoff::Backoff, runtime::random};

/// How soon the indexes of a stream are tried again, at first and later.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);

/// The state of a task that corrects the indexes. The task may outlive its caller, but not the store.
#[derive(Clone)]
pub(super) struct Indexes {
    pub(super) keys: Keys,
    pub(super) fleet: Arc<Fleet>,
}

impl Indexes {
    /// Sends commands; `Ok` if all of them worked.
    async fn send(&self, requests: Vec<Request>) -> Result<Vec<Value>, RedisStoreError> {
        self.fleet.send(requests).await?.into_iter().collect()
    }

    /// Reserves a place, and once the outcome of the request is known, completes it or removes it.
    pub(super) async fn reserve(
        self,
        key: StreamKey,
        watching: Watching,
        counted: bool,
        outcome: oneshot::Receiver<Outcome>,
    ) {
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
        let Ok(outcome) = outcome.await else { return };
        match outcome {
            Outcome::Registered => {
                let mut missing = Vec::new();
                if deadline.is_none() {
                    // Another request has added the entry, and may remove it again.
                    missing.push(self.keys.registering(&keys, watching, false));
                }
                if !owned {
                    missing.push(self.keys.owning(&key, watching.ttl, true));
                }
                if !missing.is_empty() && self.send(missing).await.is_err() {
                    self.settle_in_time(&key, None).await;
                }
            }
            Outcome::Ended(known) => self.settle(&key, Some(known)).await,
            // The owner's index may be wrong about the stream.
            Outcome::Active | Outcome::Nothing if owned || counted => self.settle_in_time(&key, None).await,
            // The index names the stream, which is right.
            Outcome::Active => {}
            Outcome::Nothing => {
                if let Some(deadline) = deadline {
                    let active = self.keys.active(self.keys.part(keys.slot));
                    let _ = self.send(vec![self.keys.unwatching(&active, &keys, deadline, None)]).await;
                }
            }
        }
    }

    /// Corrects the indexes after a change of a stream: from the known outcome of the change, or else from the stream's own keys.
    pub(super) async fn settle(&self, key: &StreamKey, known: Option<Indexed>) {
        if let Some(known) = known {
            let keys = self.keys.of(key);
            let part = self.keys.part(keys.slot);
            let (active, due) = (self.keys.active(part), self.keys.due(part));
            // The hook first: a stream that has left one index must be in the other.
            let looked_after = match known.overdue {
                Some(overdue) => self.keys.watching_due(&keys, overdue),
                None => self.keys.removing(&due, &keys),
            };
            let all =
                vec![looked_after, self.keys.removing(&active, &keys), self.keys.owning(key, known.ttl, known.active)];
            if self.send(all).await.is_ok() {
                return;
            }
        }
        self.settle_in_time(key, known).await;
    }

    /// Corrects the indexes from the stream's own keys, and repeats that until it succeeds.
    async fn settle_in_time(&self, key: &StreamKey, known: Option<Indexed>) {
        let mut backoff = Backoff::new(SOONEST, LATEST);
        while self.reconcile(key, known).await.is_err() {
            tokio::time::sleep(backoff.failed(random::u128() as u64)).await;
        }
    }

    /// Corrects the indexes from the stream's own keys, once. It marks the entries in the indexes before it reads the stream,
    /// and removes them only if they still have the mark, so that it does not undo a registration in between.
    async fn reconcile(&self, key: &StreamKey, known: Option<Indexed>) -> Result<(), RedisStoreError> {
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
            match (stands.overdue, known) {
                // Its hook waits, and a guardian may have leased it.
                (Some(0), None) if was_due.is_some() => {}
                (Some(overdue), known) => {
                    let lease = known.and_then(|known| known.overdue).unwrap_or(0);
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
