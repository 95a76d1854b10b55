//! A turn of this process, from its registration until the earlier turns are stopped.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{
        id::{StreamId, StreamKey},
        turn::Turn,
    },
    runtime::sync::lock,
    store::{Place, Pointer, Renew},
};

/// A stream of this process that is a turn of a conversation.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) conversation: StreamKey,
    pub(crate) turn: Turn,
    /// Whether a pointer that the store has lost is restored for this stream. A stream that is run again may not have
    /// been the newest of its conversation, so the pointer is not restored for it.
    puts_back: bool,
    /// The run of the stream.
    pub(crate) epoch: u64,
    /// When the stream became a turn.
    since: Instant,
    pub(crate) progress: Mutex<Progress>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    /// Whether the pointer has been moved to the stream.
    pointed: bool,
    /// Whether a newer turn has replaced the stream, so that the pointer must not be moved to it again.
    passed: bool,
    /// Whether the turn may not begin before the pointer is moved to it.
    pub(crate) waits: bool,
    /// Whether a task is moving the pointer.
    moving: bool,
    /// Whether a move was sent and not answered. Such a move may still arrive.
    pub(crate) unanswered: bool,
    pub(crate) started: bool,
    /// The streams to stop once this one has started.
    pub(crate) behind: Vec<StreamId>,
    /// Whether the pointer named another stream when it was last read. The node of that stream may have died before it
    /// stopped this one.
    stands_behind: bool,
    /// When the pointer was last renewed.
    renewed: Instant,
}

impl Begun {
    pub(crate) fn new(stream: &StreamKey, epoch: u64, turn: Turn, runs_again: bool) -> Arc<Self> {
        let conversation = StreamKey::new(stream.owner.clone(), turn.conversation.clone());
        let progress = Progress {
            pointed: runs_again,
            passed: false,
            waits: false,
            moving: false,
            unanswered: false,
            started: false,
            behind: Vec::new(),
            stands_behind: false,
            renewed: Instant::now(),
        };
        let since = Instant::now();
        Arc::new(Self { conversation, turn, puts_back: !runs_again, epoch, since, progress: Mutex::new(progress) })
    }

    /// Returns how long ago the turn began.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Returns the turn's place in its pointer, for a move that is made after the turn began.
    pub(crate) fn place(&self) -> Place {
        Place { epoch: self.epoch, since: self.age().max(Duration::from_millis(1)) }
    }

    /// Returns the place at which a renewal restores a lost pointer; `None` if it must not restore one.
    pub(crate) fn put_back(&self) -> Option<Place> {
        self.puts_back.then(|| self.place())
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Whether the pointer still has to be moved to the stream, because the store did not answer or has lost the move.
    pub(crate) fn is_to_point(&self) -> bool {
        let progress = lock(&self.progress);
        !progress.pointed && !progress.passed && !progress.waits
    }

    /// Whether the turn may not begin yet: it was refused, or the pointer has not been moved to it.
    pub(crate) fn waits(&self) -> bool {
        lock(&self.progress).waits
    }

    /// Lets the turn begin although the store has not moved the pointer.
    pub(crate) fn begins_anyway(&self) {
        lock(&self.progress).waits = false;
    }

    /// Whether the stream has started and others still have to be stopped for it.
    pub(crate) fn is_to_finish(&self) -> bool {
        let progress = lock(&self.progress);
        progress.started && !progress.behind.is_empty()
    }

    /// Whether a renewal of the pointer is due. It is due at the interval `every`, and always while the stream is
    /// behind another one.
    pub(crate) fn is_due(&self, every: Duration) -> bool {
        let progress = lock(&self.progress);
        progress.pointed && !progress.passed && (progress.stands_behind || progress.renewed.elapsed() >= every)
    }

    /// Whether this process still changes the pointer itself: the stream has not started, or others still have to be
    /// stopped for it.
    pub(crate) fn is_under_way(&self) -> bool {
        !lock(&self.progress).started || self.is_to_finish()
    }

    /// Returns the request that lets the pointer expire with the stream, which has ended.
    pub(crate) fn expiring(&self, stream: &StreamId, window: Duration) -> Renew {
        Renew { conversation: self.conversation.clone(), stream: stream.clone(), ttl: window, put_back: None }
    }

    /// Takes the pointer that a renewal returned. Returns whether the stream is behind another one in it.
    pub(crate) fn take_renewed(&self, stream: &StreamId, pointer: Option<&Pointer>) -> bool {
        let Some(pointer) = pointer else {
            lock(&self.progress).renewed = Instant::now();
            return false;
        };
        let mut progress = lock(&self.progress);
        progress.renewed = Instant::now();
        if !pointer.knows(stream) {
            // A newer turn has replaced this one, or the store has lost the move. The move is repeated, and puts the
            // turn in its right place.
            progress.pointed = false;
            progress.passed = !self.puts_back;
            return false;
        }
        progress.stands_behind = pointer.stream != *stream;
        progress.stands_behind
    }

    /// Notes that the pointer has been moved to the stream.
    pub(crate) fn pointed(&self, stream: &StreamId, pointer: &Pointer) {
        let mut progress = lock(&self.progress);
        progress.pointed = true;
        progress.waits = false;
        progress.behind = pointer.behind(stream);
        progress.stands_behind = pointer.stream != *stream;
    }

    /// Whether the caller is to move the pointer. Only one task at a time moves it.
    pub(crate) fn begins_moving(&self) -> bool {
        self.is_to_point() && !std::mem::replace(&mut lock(&self.progress).moving, true)
    }

    pub(crate) fn ends_moving(&self) {
        lock(&self.progress).moving = false;
    }

    /// Whether a move that was sent may still arrive.
    pub(crate) fn is_unanswered(&self) -> bool {
        lock(&self.progress).unanswered
    }
}
