//! What the memory store holds of a stream, and what may be asked of it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::keys::RememberedKeys;
use crate::{
    model::{
        id::{EventId, NodeId, StreamKey},
        kept::KeptHeaders,
        metadata::{Metadata, keep},
        retention::Retention,
        stream::{Ended, Origin, StreamInfo, StreamState},
        turn::Turn,
        voice::Voice,
    },
    store::{TailCell, memory::log::Log},
};

#[derive(Debug)]
pub(in super::super) struct Entry {
    pub(super) kind: Cow<'static, str>,
    pub(super) origin: Origin,
    pub(super) state: StreamState,
    pub(super) epoch: u64,
    pub(super) token: u128,
    pub(super) node: Option<NodeId>,
    pub(super) started: bool,
    pub(super) reruns: bool,
    pub(super) fingerprint: Option<String>,
    pub(super) voice: Voice,
    pub(super) turn: Option<Turn>,
    pub(super) headers: KeptHeaders,
    pub(super) metadata: Metadata,
    pub(super) inner_id: Option<String>,
    pub(super) inner_retry: Option<u64>,
    pub(super) started_at: u64,
    pub(super) last_heartbeat: u64,
    pub(super) deadline: u64,
    pub(super) expires_at: u64,
    /// Until when the guardian that leased it has the stream to itself, after the end of its lifetime.
    pub(super) leased_until: u64,
    /// The run before this one.
    pub(super) before: Option<Box<Before>>,
    /// The last event of this run, recorded or not, if the run was interrupted.
    pub(super) run_end: Option<EventId>,
    /// Boxed, since a stream has none for most of its life.
    pub(super) ended: Option<Box<Ended>>,
    pub(super) hook: Hook,
    pub(super) retention: Retention,
    /// Whether only a tombstone is left, which fences a producer that does not know of the deletion yet.
    pub(super) deleted: bool,
    pub(super) log: Log,
    /// The idempotency keys of published events, if any came with one.
    pub(super) keys: Option<Box<RememberedKeys>>,
    pub(in super::super) tail: Arc<TailCell>,
    /// When the store visits the stream next.
    pub(in super::super) timer: u64,
}

/// What is kept of the run before the newest one.
#[derive(Debug)]
pub(super) struct Before {
    /// Its last event, recorded or not.
    pub(super) last: EventId,
    /// Its metadata, which a withdrawal of the newest run restores.
    pub(super) metadata: Metadata,
}

/// Whether a stream's `on_end` hook must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    None,
    /// The time, in unix milliseconds, from which any guardian may run it.
    DueAt(u64),
}

impl Entry {
    /// The sort key for lists of its owner's streams: the highest comes first.
    pub(in super::super) fn place(&self) -> (bool, u64) {
        let is_active = self.state == StreamState::Active;
        (is_active, if is_active { self.started_at } else { self.expires_at })
    }

    pub(in super::super) fn info(&self, key: &StreamKey) -> StreamInfo {
        StreamInfo {
            key: key.clone(),
            kind: self.kind.clone(),
            origin: self.origin,
            fingerprint: self.fingerprint.clone(),
            voice: self.voice,
            turn: self.turn.clone(),
            headers: self.headers.clone(),
            state: self.state,
            epoch: self.epoch,
            previous: self.previous(),
            node: self.node.clone(),
            started: self.started,
            reruns: self.reruns,
            started_at: self.started_at,
            last_heartbeat: self.last_heartbeat,
            deadline: self.deadline,
            metadata: self.metadata.clone(),
            top: self.ended.as_ref().map_or(self.log.top(), |ended| ended.id),
            inner_id: self.inner_id.clone(),
            inner_retry: self.inner_retry,
            ended: self.ended().cloned(),
        }
    }

    pub(in super::super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(in super::super) fn state(&self) -> StreamState {
        self.state
    }

    pub(in super::super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_deref()
    }

    pub(in super::super) fn last_heartbeat(&self) -> u64 {
        self.last_heartbeat
    }

    /// The conversation that the stream is a turn of.
    pub(in super::super) fn conversation(&self, key: &StreamKey) -> Option<StreamKey> {
        let turn = self.turn.as_ref()?;
        Some(StreamKey::new(key.owner.clone(), turn.conversation.clone()))
    }

    /// How long the stream is kept after its producer was last heard of.
    pub(in super::super) fn kept(&self) -> Duration {
        self.retention.kept()
    }

    /// How long after `now` the stream expires, as it stands.
    pub(in super::super) fn expires_in(&self, now: u64) -> Duration {
        Duration::from_millis(self.expires_at.saturating_sub(now))
    }

    pub(in super::super) fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    pub(in super::super) fn is_started(&self) -> bool {
        self.started
    }

    pub(in super::super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch of the newest id that was used. The epoch of a terminal event is one above that of its run.
    pub(in super::super) fn newest_epoch(&self) -> u64 {
        self.ended.as_ref().map_or(self.epoch, |ended| ended.id.epoch)
    }

    pub(in super::super) fn previous(&self) -> Option<EventId> {
        self.before.as_ref().map(|before| before.last)
    }

    pub(in super::super) fn inner_id(&self) -> Option<String> {
        self.inner_id.clone()
    }

    pub(in super::super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Keeps the pairs of metadata that fit within the bound.
    pub(super) fn keep(&mut self, metadata: &Metadata) {
        for (key, value) in metadata {
            let _ = keep(&mut self.metadata, key.clone(), value.clone());
        }
    }

    pub(super) fn trim(&mut self) {
        self.log.trim(self.retention.max_events, self.retention.max_bytes);
    }
}
