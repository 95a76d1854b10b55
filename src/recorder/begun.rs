//! A turn of this process: from its registration until those before it have given way.

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
    /// Whether a pointer that the store has lost is put back for the stream. Not for one that runs again: it may not have been the
    /// newest.
    puts_back: bool,
    /// The run of the stream, and when that became a turn.
    pub(crate) epoch: u64,
    since: Instant,
    pub(crate) progress: Mutex<Progress>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    /// Whether the pointer has been moved to the stream.
    pointed: bool,
    /// Whether the stream is to be named no more: a newer turn has taken its place.
    passed: bool,
    /// Whether the turn may not begin yet: the pointer has not been moved to it, and it is not served without that.
    pub(crate) waits: bool,
    /// Whether a task is moving the pointer.
    moving: bool,
    /// Whether a move was sent that was not answered: it may still arrive.
    pub(crate) unanswered: bool,
    pub(crate) started: bool,
    /// Those that are to give way once the stream has started.
    pub(crate) behind: Vec<StreamId>,
    /// Whether the pointer named another stream when it was looked at last: whoever is in front may have died before it had this one
    /// give way.
    stands_behind: bool,
    /// When the pointer was renewed last.
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

    /// How long ago the turn began.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The turn's place in its pointer, now that it has begun a while ago.
    pub(crate) fn place(&self) -> Place {
        Place { epoch: self.epoch, since: self.age().max(Duration::from_millis(1)) }
    }

    /// For which turn a pointer is put back that the store has lost.
    pub(crate) fn put_back(&self) -> Option<Place> {
        self.puts_back.then(|| self.place())
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Whether the pointer is still to be moved to the stream: the store did not answer, or has lost the move.
    pub(crate) fn is_to_point(&self) -> bool {
        let progress = lock(&self.progress);
        !progress.pointed && !progress.passed && !progress.waits
    }

    /// Whether the turn may not begin yet: it was refused, or nobody has asked.
    pub(crate) fn waits(&self) -> bool {
        lock(&self.progress).waits
    }

    /// The turn is served although the store has not moved the pointer.
    pub(crate) fn begins_anyway(&self) {
        lock(&self.progress).waits = false;
    }

    /// Whether others are still to give way to the stream.
    pub(crate) fn is_to_finish(&self) -> bool {
        let progress = lock(&self.progress);
        progress.started && !progress.behind.is_empty()
    }

    /// Whether the pointer is to be renewed, or looked at, which is done so often: sooner where the stream stands behind another one.
    pub(crate) fn is_due(&self, every: Duration) -> bool {
        let progress = lock(&self.progress);
        progress.pointed && !progress.passed && (progress.stands_behind || progress.renewed.elapsed() >= every)
    }

    /// Whether what the pointer says of the stream is still this process's to set right: the stream has not started, or others are still to
    /// give way to it.
    pub(crate) fn is_under_way(&self) -> bool {
        !lock(&self.progress).started || self.is_to_finish()
    }

    /// The request by which a pointer that names the stream expires with it, now that it has ended.
    pub(crate) fn expiring(&self, stream: &StreamId, window: Duration) -> Renew {
        Renew { conversation: self.conversation.clone(), stream: stream.clone(), ttl: window, put_back: None }
    }

    /// Where the pointer stands after it was renewed for the stream. Returns whether the stream stands behind another one.
    pub(crate) fn heard(&self, stream: &StreamId, pointer: Option<&Pointer>) -> bool {
        let Some(pointer) = pointer else {
            lock(&self.progress).renewed = Instant::now();
            return false;
        };
        let mut progress = lock(&self.progress);
        progress.renewed = Instant::now();
        if !pointer.knows(stream) {
            // A newer turn has taken its place, or the store has lost the move: it is made again, to where the turn belongs.
            progress.pointed = false;
            progress.passed = !self.puts_back;
            return false;
        }
        progress.stands_behind = pointer.stream != *stream;
        progress.stands_behind
    }

    /// The pointer has been moved to the stream.
    pub(crate) fn pointed(&self, stream: &StreamId, pointer: &Pointer) {
        let mut progress = lock(&self.progress);
        progress.pointed = true;
        progress.waits = false;
        progress.behind = pointer.behind(stream);
        progress.stands_behind = pointer.stream != *stream;
    }

    /// Whether the caller is to move the pointer: only one task does at a time.
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
