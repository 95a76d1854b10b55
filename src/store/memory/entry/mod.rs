//! One stream in memory, and its transitions.

mod publish;
mod read;

use std::{borrow::Cow, sync::Arc, time::Duration};

use publish::{Remembered, registration};

use super::log::{Log, Put};
use crate::{
    model::{
        id::{EventId, NodeId, StreamKey},
        kept::KeptHeaders,
        metadata::{Metadata, keep},
        stream::{Ended, Ending, Origin, StreamInfo, StreamState, reason},
        turn::Turn,
        voice::Voice,
    },
    store::{
        Append, Appended, Close, Closed, Fence, Interrupt, Interrupted, Open, Opened, Publish, Reopen, Retention,
        TailCell,
    },
};

#[derive(Debug)]
pub(super) struct Entry {
    kind: Cow<'static, str>,
    origin: Origin,
    state: StreamState,
    epoch: u64,
    token: u128,
    node: Option<NodeId>,
    started: bool,
    reruns: bool,
    fingerprint: Option<String>,
    voice: Voice,
    turn: Option<Turn>,
    headers: KeptHeaders,
    metadata: Metadata,
    inner_id: Option<String>,
    inner_retry: Option<u64>,
    started_at: u64,
    last_heartbeat: u64,
    deadline: u64,
    expires_at: u64,
    /// Until when whoever looks after the end of its lifetime has it to itself.
    leased_until: u64,
    /// The run before this one.
    before: Option<Box<Before>>,
    /// The last event of this run, recorded or not, once it was interrupted.
    run_end: Option<EventId>,
    /// Boxed: most of a stream's life there is none.
    ended: Option<Box<Ended>>,
    hook: Hook,
    retention: Retention,
    /// Only a tombstone is left: whoever produced the stream, and has not heard of its end yet, is fenced by it.
    deleted: bool,
    log: Log,
    /// Where something was published under idempotency keys.
    published: Option<Box<Remembered>>,
    pub(super) tail: Arc<TailCell>,
    /// When the store looks at the stream next.
    pub(super) timer: u64,
}

/// Whether a stream's `on_end` hook must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    None,
    /// The time, in unix milliseconds, from which any guardian may run it.
    DueAt(u64),
}

/// What is still asked of the run before a stream's newest one.
#[derive(Debug)]
struct Before {
    /// Its last event, recorded or not.
    last: EventId,
    /// Its metadata, which a withdrawal of the newest run restores.
    metadata: Metadata,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

impl Entry {
    pub(super) fn new(open: &Open, epoch: u64, log: Log, tail: Arc<TailCell>, now: u64) -> Self {
        let mut entry = Self {
            kind: open.kind.clone(),
            origin: open.origin,
            state: StreamState::Active,
            epoch,
            token: open.token,
            node: Some(open.node.clone()),
            started: open.started,
            reruns: open.reruns,
            fingerprint: open.fingerprint.clone(),
            voice: open.voice,
            turn: open.turn.clone(),
            headers: open.headers.clone(),
            metadata: Metadata::new(),
            inner_id: None,
            inner_retry: None,
            started_at: now,
            last_heartbeat: now,
            deadline: 0,
            expires_at: 0,
            leased_until: 0,
            before: None,
            run_end: None,
            ended: None,
            hook: Hook::None,
            retention: open.retention,
            deleted: false,
            log,
            published: None,
            tail,
            timer: 0,
        };
        entry.keep(&open.metadata);
        entry.log.push_run(epoch, epoch, None, now);
        entry.beat(now, millis(open.retention.stale));
        entry
    }

    /// A stream whose producer runs, and which was forgotten.
    pub(super) fn reopened(reopen: &Reopen, log: Log, tail: Arc<TailCell>, now: u64) -> Self {
        let started = reopen.open.started || reopen.acknowledged > 0;
        Self {
            inner_id: reopen.inner_id.clone(),
            inner_retry: reopen.inner_retry,
            started,
            ..Self::new(&reopen.open, reopen.epoch, log, tail, now)
        }
    }

    /// A stream that nobody beats: it lives as long as something is published.
    pub(super) fn published(publish: &Publish, epoch: u64, tail: Arc<TailCell>, now: u64) -> Self {
        Self { node: None, ..Self::new(&registration(publish), epoch, Log::default(), tail, now) }
    }

    /// Its place among its owner's streams, the first of which is the highest.
    pub(super) fn place(&self) -> (bool, u64) {
        let is_active = self.state == StreamState::Active;
        (is_active, if is_active { self.started_at } else { self.expires_at })
    }

    pub(super) fn info(&self, key: &StreamKey) -> StreamInfo {
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

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn state(&self) -> StreamState {
        self.state
    }

    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_deref()
    }

    pub(super) fn last_heartbeat(&self) -> u64 {
        self.last_heartbeat
    }

    /// Whether `open` is a repeat of the request that registered the running producer.
    pub(super) fn is_repeat(&self, open: &Open) -> bool {
        self.state == StreamState::Active && self.token == open.token
    }

    /// Takes what a repeat of the request that registered the producer says besides.
    pub(super) fn say_more(&mut self, open: &Open) {
        self.started |= open.started;
        self.turn = self.turn.take().or(open.turn.clone());
        if matches!(open.headers, KeptHeaders::Kept(_)) {
            self.headers.clone_from(&open.headers);
        }
    }

    /// The conversation that the stream is a turn of.
    pub(super) fn conversation(&self, key: &StreamKey) -> Option<StreamKey> {
        let turn = self.turn.as_ref()?;
        Some(StreamKey::new(key.owner.clone(), turn.conversation.clone()))
    }

    /// How long the stream is kept after its producer was last heard of.
    pub(super) fn kept(&self) -> Duration {
        self.retention.kept()
    }

    /// How long after `now` the stream expires, as it stands.
    pub(super) fn expires_in(&self, now: u64) -> Duration {
        Duration::from_millis(self.expires_at.saturating_sub(now))
    }

    pub(super) fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch of the newest id that was given: a terminal event's is one above its run's.
    pub(super) fn newest_epoch(&self) -> u64 {
        self.ended.as_ref().map_or(self.epoch, |ended| ended.id.epoch)
    }

    pub(super) fn previous(&self) -> Option<EventId> {
        self.before.as_ref().map(|before| before.last)
    }

    pub(super) fn inner_id(&self) -> Option<String> {
        self.inner_id.clone()
    }

    pub(super) fn refuses(&self, open: &Open) -> Option<Opened> {
        open.refused_by(self.origin, &self.kind, self.fingerprint.as_deref())
    }

    /// Leaves a tombstone for one stale threshold.
    pub(super) fn delete(&mut self, now: u64) {
        if self.ended.is_none() {
            self.end(Ending::supplied(StreamState::Cancelled, reason::STOPPED), None, None, now);
        }
        self.deleted = true;
        self.hook = Hook::None;
        self.log = Log::default();
        self.metadata.clear();
        if let Some(before) = &mut self.before {
            before.metadata.clear();
        }
        self.turn = None;
        self.headers = KeptHeaders::None;
        self.published = None;
        self.expires_at = now.saturating_add(millis(self.retention.stale));
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Whether nothing is left to be known of it.
    pub(super) fn is_over(&self, now: u64) -> bool {
        let removable = self.state.is_terminal() || (self.state == StreamState::Interrupted && self.reruns);
        removable && self.expires_at <= now
    }

    /// Whether it has not ended, its lifetime is over, and nobody looks after that yet.
    pub(super) fn has_expired(&self, now: u64) -> bool {
        !self.state.is_terminal() && self.expires_at.max(self.leased_until) <= now
    }

    /// Whether its producer was not heard of in time.
    pub(super) fn is_stale(&self, now: u64) -> bool {
        self.state == StreamState::Active && self.node.is_some() && self.deadline <= now
    }

    pub(super) fn hook_is_due(&self, now: u64) -> bool {
        matches!(self.hook, Hook::DueAt(at) if at <= now)
    }

    /// When somebody must look at it next.
    pub(super) fn next_look(&self) -> u64 {
        let mut at = if self.state.is_terminal() { self.expires_at } else { self.expires_at.max(self.leased_until) };
        if self.state == StreamState::Active && self.node.is_some() {
            at = at.min(self.deadline);
        }
        if let Hook::DueAt(hook) = self.hook {
            at = at.min(hook);
        }
        at
    }

    pub(super) fn lease(&mut self, now: u64, lease: u64) {
        let until = now.saturating_add(lease);
        if self.state.is_terminal() {
            self.hook = Hook::DueAt(until);
        } else {
            self.leased_until = until;
            self.deadline = until;
        }
    }

    pub(super) fn hook_done(&mut self) {
        self.hook = Hook::None;
    }

    pub(super) fn beat(&mut self, now: u64, stale: u64) {
        self.last_heartbeat = now;
        self.deadline = now.saturating_add(stale);
        self.expires_at = now.saturating_add(millis(self.retention.lifetime));
    }

    /// Starts a new run of a stream that stands still, or has expired.
    pub(super) fn rerun(&mut self, open: &Open, now: u64) {
        let newest = self.newest_epoch();
        let ended = self.ended.take();
        let previous = ended.as_ref().map(|ended| ended.last).or(self.run_end.take()).unwrap_or(self.log.top());
        let epoch = newest.saturating_add(1).max(now);
        // Readers were told of an end that is undone now; its id stays valid as a cursor.
        let since = ended.map_or(epoch, |ended| ended.id.epoch);
        self.log.push_run(epoch, since, Some(previous), now);
        self.begin_run(open, epoch, previous, now);
    }

    /// Registers a run whose registration was lost, over an older one. How far that came nobody knows: readers are told of a
    /// gap between them.
    pub(super) fn overtake(&mut self, reopen: &Reopen, now: u64) {
        let previous = self.run_end.take().unwrap_or(self.log.top());
        self.log.push_run(reopen.epoch, reopen.epoch, None, now);
        self.log.lose_up_to(EventId::new(reopen.epoch, reopen.acknowledged));
        self.begin_run(&reopen.open, reopen.epoch, previous, now);
        self.started |= reopen.acknowledged > 0;
        self.inner_id = reopen.inner_id.clone().or(self.inner_id.take());
        self.inner_retry = reopen.inner_retry.or(self.inner_retry);
    }

    /// A run whose marker stands in the log.
    fn begin_run(&mut self, open: &Open, epoch: u64, previous: EventId, now: u64) {
        self.epoch = epoch;
        self.token = open.token;
        self.node = Some(open.node.clone());
        self.started = open.started;
        self.reruns = open.reruns;
        self.kind = open.kind.clone();
        self.origin = self.origin.of_new_run(open.origin);
        if open.fingerprint.is_some() {
            self.fingerprint.clone_from(&open.fingerprint);
        }
        self.voice = open.voice;
        // A stream stays a turn of its first conversation, whatever request runs it again.
        self.turn = self.turn.take().or(open.turn.clone());
        self.headers.clone_from(&open.headers);
        self.state = StreamState::Active;
        self.hook = Hook::None;
        self.leased_until = 0;
        self.started_at = now;
        self.retention = open.retention;
        self.before = Some(Box::new(Before { last: previous, metadata: std::mem::take(&mut self.metadata) }));
        self.keep(&open.metadata);
        self.trim();
        self.beat(now, millis(open.retention.stale));
    }

    /// Undoes the opening of a run that never started. `false`: nothing is left of the stream.
    pub(super) fn withdraw(&mut self, token: u128) -> bool {
        if self.state != StreamState::Active || self.token != token || self.started {
            return true;
        }
        let Some(before) = &mut self.before else { return false };
        self.metadata = std::mem::take(&mut before.metadata);
        self.stand_still(EventId::new(self.epoch, 0));
        true
    }

    /// Keeps what fits into the bound.
    fn keep(&mut self, metadata: &Metadata) {
        for (key, value) in metadata {
            let _ = keep(&mut self.metadata, key.clone(), value.clone());
        }
    }

    fn trim(&mut self) {
        self.log.trim(self.retention.max_events, self.retention.max_bytes);
    }

    fn stand_still(&mut self, end: EventId) {
        self.state = StreamState::Interrupted;
        self.run_end = Some(end);
    }

    /// What stands in the way of the producer of `epoch`.
    fn fence(&self, epoch: u64) -> Option<Fence> {
        if self.epoch != epoch {
            return Some(Fence::Newer);
        }
        match &self.ended {
            Some(ended) => Some(Fence::Ended(Ended::clone(ended))),
            None => (self.state != StreamState::Active).then_some(Fence::Newer),
        }
    }

    pub(super) fn append(&mut self, append: &Append, now: u64) -> Appended {
        if append.epoch > self.epoch {
            return Appended::Gone;
        }
        if let Some(fence) = self.fence(append.epoch) {
            return Appended::Fenced(fence);
        }
        if !append.events.is_empty() {
            let last = EventId::new(append.epoch, append.last());
            if self.log.put(last, append.events.clone(), now, &self.retention) == Put::Taken {
                return Appended::Refused;
            }
            self.started = true;
            self.trim();
        }
        self.started |= append.starts;
        if append.inner_id.is_some() {
            self.inner_id.clone_from(&append.inner_id);
        }
        self.inner_retry = append.inner_retry.or(self.inner_retry);
        self.keep(&append.metadata);
        self.expires_at = now.saturating_add(millis(self.retention.lifetime));
        Appended::Stored
    }

    pub(super) fn close(&mut self, close: Close, now: u64) -> Closed {
        if (self.deleted && close.epoch.is_none()) || close.epoch.is_some_and(|epoch| epoch > self.epoch) {
            return Closed::Missing;
        }
        if let Some(ended) = &self.ended {
            return Closed::Before(Ended::clone(ended));
        }
        if close.epoch.is_some_and(|epoch| epoch != self.epoch) {
            return Closed::Newer;
        }
        if close.if_deadline.is_some_and(|deadline| deadline != self.deadline) {
            return Closed::Moved;
        }
        let ended = self.end(close.ending, close.last, close.hook, now);
        Closed::Now { ended, node: self.node.clone() }
    }

    fn end(&mut self, ending: Ending, last: Option<u64>, hook: Option<Duration>, now: u64) -> Ended {
        let recorded = self.last_recorded();
        let last = last.map_or(recorded, |seq| EventId::new(self.epoch, seq).max(recorded));
        let ended = Ended { id: EventId::terminal(self.epoch), last, at: now, ending };
        self.state = ended.ending.state;
        self.hook = hook.map_or(Hook::None, |lease| Hook::DueAt(now.saturating_add(millis(lease))));
        self.expires_at = now.saturating_add(millis(self.retention.recovery_window));
        self.ended = Some(Box::new(ended.clone()));
        ended
    }

    /// The last event of the newest run that is known of: recorded, or said to have been made.
    fn last_recorded(&self) -> EventId {
        self.run_end.map_or(self.log.top(), |end| end.max(self.log.top()))
    }

    pub(super) fn interrupt(&mut self, interrupt: &Interrupt) -> Interrupted {
        if interrupt.epoch > self.epoch {
            return Interrupted::Missing;
        }
        if let Some(fence) = self.fence(interrupt.epoch) {
            let done = self.state == StreamState::Interrupted && self.epoch == interrupt.epoch;
            return if done { Interrupted::Done } else { Interrupted::Fenced(fence) };
        }
        if interrupt.if_deadline.is_some_and(|deadline| deadline != self.deadline) {
            return Interrupted::Moved;
        }
        let top = self.log.top();
        self.stand_still(interrupt.last.map_or(top, |seq| EventId::new(self.epoch, seq).max(top)));
        Interrupted::Done
    }

    /// A producer that runs registers again.
    pub(super) fn take_back(&mut self, epoch: u64, token: u128) -> Option<Fence> {
        if self.state == StreamState::Active && self.epoch == epoch && self.token == token {
            return None;
        }
        Some(self.fence(epoch).unwrap_or(Fence::Newer))
    }
}
