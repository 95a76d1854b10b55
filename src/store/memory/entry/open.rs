//! Registering a producer: the first run of a stream, the next ones, and taking one back.

use std::sync::Arc;

use super::state::{Before, Entry, Hook};
use crate::{
    model::{id::EventId, kept::KeptHeaders, metadata::Metadata, stream::StreamState},
    store::{
        Fence, Open, Opened, Reopen, TailCell,
        memory::{clock::millis, log::Log},
    },
};

impl Entry {
    pub(in super::super) fn new(open: &Open, epoch: u64, log: Log, tail: Arc<TailCell>, now: u64) -> Self {
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
            keys: None,
            tail,
            timer: 0,
        };
        entry.keep(&open.metadata);
        entry.log.push_run(epoch, epoch, None, now);
        entry.beat(now, millis(open.retention.stale));
        entry
    }

    /// A stream whose producer runs, but which the store forgot.
    pub(in super::super) fn reopened(reopen: &Reopen, log: Log, tail: Arc<TailCell>, now: u64) -> Self {
        let started = reopen.open.started || reopen.acknowledged > 0;
        Self {
            inner_id: reopen.inner_id.clone(),
            inner_retry: reopen.inner_retry,
            started,
            ..Self::new(&reopen.open, reopen.epoch, log, tail, now)
        }
    }

    /// Whether `open` is a repeat of the request that registered the running producer.
    pub(in super::super) fn is_repeat(&self, open: &Open) -> bool {
        self.state == StreamState::Active && self.token == open.token
    }

    /// Adds what a repeat of the registering request has in addition to the first one.
    pub(in super::super) fn add_from_repeat(&mut self, open: &Open) {
        self.started |= open.started;
        self.turn = self.turn.take().or(open.turn.clone());
        if matches!(open.headers, KeptHeaders::Kept(_)) {
            self.headers.clone_from(&open.headers);
        }
    }

    pub(in super::super) fn refuses(&self, open: &Open) -> Option<Opened> {
        open.refused_by(self.origin, &self.kind, self.fingerprint.as_deref())
    }

    /// Starts a new run of a stream that is interrupted, or of a published one that has expired.
    pub(in super::super) fn rerun(&mut self, open: &Open, now: u64) {
        let newest = self.newest_epoch();
        let ended = self.ended.take();
        let previous = ended.as_ref().map(|ended| ended.last).or(self.run_end.take()).unwrap_or(self.log.top());
        let epoch = newest.saturating_add(1).max(now);
        // The end is undone, but readers may have its id as their cursor, so its epoch counts as known.
        let since = ended.map_or(epoch, |ended| ended.id.epoch);
        self.log.push_run(epoch, since, Some(previous), now);
        self.begin_run(open, epoch, previous, now);
    }

    /// Registers a run whose registration was lost, over an older run. Nobody knows where that one ended, so readers get a gap
    /// between the two.
    pub(in super::super) fn overtake(&mut self, reopen: &Reopen, now: u64) {
        let previous = self.run_end.take().unwrap_or(self.log.top());
        self.log.push_run(reopen.epoch, reopen.epoch, None, now);
        self.log.lose_up_to(EventId::new(reopen.epoch, reopen.acknowledged));
        self.begin_run(&reopen.open, reopen.epoch, previous, now);
        self.started |= reopen.acknowledged > 0;
        self.inner_id = reopen.inner_id.clone().or(self.inner_id.take());
        self.inner_retry = reopen.inner_retry.or(self.inner_retry);
    }

    /// Begins a run whose marker has been written to the log.
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
        // A stream stays a turn of its first conversation, whichever request runs it again.
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
    pub(in super::super) fn withdraw(&mut self, token: u128) -> bool {
        if self.state != StreamState::Active || self.token != token || self.started {
            return true;
        }
        let Some(before) = &mut self.before else { return false };
        self.metadata = std::mem::take(&mut before.metadata);
        self.stand_still(EventId::new(self.epoch, 0));
        true
    }

    /// Registers a running producer again, or returns why it is fenced.
    pub(in super::super) fn take_back(&mut self, epoch: u64, token: u128) -> Option<Fence> {
        if self.state == StreamState::Active && self.epoch == epoch && self.token == token {
            return None;
        }
        Some(self.fence(epoch).unwrap_or(Fence::Newer))
    }
}
