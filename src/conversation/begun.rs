//! A turn of this process: from its registration until those before it have given way.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::Current;
use crate::{
    error::StoreError,
    hub::Core,
    id::{StreamId, StreamKey},
    recorder::Lane,
    store::{Close, Closed, Expected, Point, Pointed, Pointer, Renew},
    stream::{Ending, StreamState, reason},
    sync::lock,
    turn::{Overlap, Turn},
};

/// How often a pointer that others move at the same time is tried.
const TRIES: usize = 32;

/// A stream of this process that is a turn of a conversation.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) conversation: StreamKey,
    turn: Turn,
    /// Whether a pointer that the store has lost is put back for the stream. Not for one that runs again: it may not have been the
    /// newest.
    puts_back: bool,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// Whether the pointer has been moved to the stream.
    pointed: bool,
    /// Whether the stream is to be named no more: a newer turn has taken its place.
    passed: bool,
    /// Whether the turn may not begin yet: the pointer has not been moved to it, and it is not served without that.
    waits: bool,
    /// Whether a task is moving the pointer.
    moving: bool,
    started: bool,
    /// Those that are to give way once the stream has started.
    behind: Vec<StreamId>,
    /// When the pointer was renewed last.
    renewed: Instant,
}

/// What came of moving the pointer to a turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Pointed,
    /// This stream runs.
    Refused(StreamId),
    /// One may run that the store has forgotten, and that is about to register again.
    Unknown,
}

impl Begun {
    fn new(lane: &Lane, turn: Turn, runs_again: bool) -> Arc<Self> {
        let conversation = StreamKey::new(lane.key.owner.clone(), turn.conversation.clone());
        let progress = Progress {
            pointed: runs_again,
            passed: false,
            waits: false,
            moving: false,
            started: false,
            behind: Vec::new(),
            renewed: Instant::now(),
        };
        Arc::new(Self { conversation, turn, puts_back: !runs_again, progress: Mutex::new(progress) })
    }

    pub(super) fn puts_back(&self) -> bool {
        self.puts_back
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Whether the pointer is still to be moved to the stream: the store did not answer, or has lost the move.
    pub(super) fn is_to_point(&self) -> bool {
        let progress = lock(&self.progress);
        !progress.pointed && !progress.passed && !progress.waits
    }

    /// Whether the turn may not begin yet: it was refused, or nobody has asked.
    pub(crate) fn waits(&self) -> bool {
        lock(&self.progress).waits
    }

    /// The turn is served although the store has not moved the pointer.
    pub(super) fn begins_anyway(&self) {
        lock(&self.progress).waits = false;
    }

    /// Whether others are still to give way to the stream.
    pub(super) fn is_to_finish(&self) -> bool {
        let progress = lock(&self.progress);
        progress.started && !progress.behind.is_empty()
    }

    /// When the pointer was renewed last; `None`: it is not this stream's to renew.
    pub(super) fn renewed(&self) -> Option<Instant> {
        let progress = lock(&self.progress);
        (progress.pointed && !progress.passed).then_some(progress.renewed)
    }

    /// Whether what the pointer says of the stream is still this process's to set right: the stream has not started, or others are still to
    /// give way to it.
    pub(super) fn is_under_way(&self) -> bool {
        !lock(&self.progress).started || self.is_to_finish()
    }

    /// The request by which a pointer that names the stream expires with it, now that it has ended.
    pub(super) fn expiring(&self, lane: &Lane) -> Renew {
        let ttl = lane.retention().recovery_window;
        Renew { conversation: self.conversation.clone(), stream: lane.key.id.clone(), ttl, put_back: false }
    }

    /// Where the pointer stands after it was renewed for the stream. Returns whether the stream stands behind another one.
    pub(super) fn heard(&self, stream: &StreamId, pointer: Option<&Pointer>) -> bool {
        let Some(pointer) = pointer else {
            lock(&self.progress).renewed = Instant::now();
            return false;
        };
        let mut progress = lock(&self.progress);
        progress.renewed = Instant::now();
        if !pointer.knows(stream) {
            // A newer turn has taken its place, or the store has lost the move: a look at the newer one says which.
            progress.pointed = false;
            progress.passed = !self.puts_back;
            return false;
        }
        pointer.stream != *stream
    }

    /// The pointer has been moved to the stream.
    pub(super) fn pointed(&self, behind: Vec<StreamId>) {
        let mut progress = lock(&self.progress);
        progress.pointed = true;
        progress.waits = false;
        progress.behind = behind;
    }

    /// The pointer is the business of a newer turn.
    pub(super) fn pass(&self) {
        lock(&self.progress).passed = true;
    }

    /// Whether the caller is to move the pointer: only one task does at a time.
    pub(super) fn begins_moving(&self) -> bool {
        self.is_to_point() && !std::mem::replace(&mut lock(&self.progress).moving, true)
    }

    pub(super) fn ends_moving(&self) {
        lock(&self.progress).moving = false;
    }
}

impl Core {
    /// Makes a stream that is registered, and whose handler has not run, a turn of a conversation.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the pointer could not be moved: the keeper goes on trying as long as the stream runs.
    pub(crate) async fn begin_turn(self: &Arc<Self>, lane: &Arc<Lane>, turn: Turn) -> Result<Beginning, StoreError> {
        let refuses = turn.overlap == Overlap::Refuse;
        let begun = self.name_turn(lane, turn);
        if refuses && self.may_be_forgotten() { Ok(Beginning::Unknown) } else { self.point(lane, &begun).await }
    }

    /// Names the turn that a stream is, before the pointer is moved to it.
    pub(crate) fn name_turn(&self, lane: &Lane, turn: Turn) -> Arc<Begun> {
        if let Some(named) = lane.turn() {
            return Arc::clone(named);
        }
        let begun = Begun::new(lane, turn, false);
        lock(&begun.progress).waits = true;
        let _ = lane.set_turn(Arc::clone(&begun));
        begun
    }

    /// A stream that was a turn already runs again: its pointer is renewed, should it name the stream, and not moved. Those that still stand
    /// behind it give way as soon as it has started.
    pub(crate) async fn rejoin_turn(&self, lane: &Arc<Lane>, turn: Turn) {
        let begun = Begun::new(lane, turn, true);
        // Should this fail, whoever looks at the pointer next has them give way.
        if let Ok(Some(pointer)) = self.store.pointer(begun.conversation.clone()).await {
            begun.pointed(pointer.behind(&lane.key.id));
        }
        let _ = lane.set_turn(begun);
    }

    async fn point(self: &Arc<Self>, lane: &Lane, begun: &Begun) -> Result<Beginning, StoreError> {
        let refuses = begun.turn.overlap == Overlap::Refuse;
        let mut expected = if refuses { Expected::Nothing } else { Expected::Any };
        let mut in_the_way = lane.key.id.clone();
        for _ in 0..TRIES {
            let point = Point {
                conversation: begun.conversation.clone(),
                stream: lane.key.id.clone(),
                expected,
                ttl: lane.retention().kept(),
            };
            let pointed = match self.store.point(point.clone()).await {
                // A repeat is the same request.
                Err(error) if !error.is_timeout() && !error.is_breaker_open() => self.store.point(point).await?,
                pointed => pointed?,
            };
            expected = match pointed {
                Pointed::Moved(pointer) => {
                    begun.pointed(pointer.behind(&lane.key.id));
                    return Ok(Beginning::Pointed);
                }
                Pointed::Kept(None) => Expected::Nothing,
                Pointed::Kept(Some(pointer)) if !refuses => return Ok(Beginning::Refused(pointer.stream)),
                Pointed::Kept(Some(pointer)) => match self.current(&begun.conversation).await? {
                    // Of one that the store has forgotten nobody knows whether it runs.
                    None if self.may_be_forgotten() => return Ok(Beginning::Refused(pointer.stream)),
                    None => Expected::Nothing,
                    Some(Current { info, .. }) => {
                        in_the_way = info.key.id.clone();
                        let is_over = match info.state {
                            StreamState::Active => false,
                            // Nothing runs, but might again.
                            StreamState::Interrupted => self.close_interrupted(&info.key, info.epoch).await?,
                            _ => true,
                        };
                        if !is_over {
                            return Ok(Beginning::Refused(in_the_way));
                        }
                        Expected::Stream(in_the_way.clone())
                    }
                },
            };
        }
        Ok(Beginning::Refused(in_the_way))
    }

    /// Ends a stream that is interrupted. Returns whether it has ended: not if it runs again.
    async fn close_interrupted(&self, key: &StreamKey, epoch: u64) -> Result<bool, StoreError> {
        let close = Close {
            key: key.clone(),
            epoch: Some(epoch),
            ending: Ending::supplied(StreamState::Cancelled, reason::REPLACED),
            last: None,
            if_deadline: None,
            hook: self.hooks.lease(),
        };
        Ok(!matches!(self.close(close).await?, Closed::Newer | Closed::Moved))
    }

    /// The handler of a turn has answered: those before it give way.
    pub(crate) fn turn_started(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        lock(&begun.progress).started = true;
        if begun.is_to_finish() {
            let (core, lane) = (Arc::clone(self), Arc::clone(lane));
            self.executor.spawn(async move { core.finish(&lane).await });
        }
    }

    /// A turn has ended before its handler answered, perhaps even before the pointer was moved to it: the pointer is to expire with
    /// the stream all the same. Once the store knows of the end, it goes back to the turn before, which may run on.
    pub(crate) fn turn_is_over(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        let (store, renew) = (self.store.in_background(), begun.expiring(lane));
        let (core, lane, conversation) = (Arc::clone(self), Arc::clone(lane), begun.conversation.clone());
        self.executor.begin(async move {
            drop(store.renew(vec![renew]).await);
            let settled = core.recorder.until_settled(&lane);
            if tokio::time::timeout(core.settings.terminal_limit, settled).await.is_ok() {
                // Should this fail, whoever looks at the pointer next does it.
                drop(core.current(&conversation).await);
            }
        });
    }

    /// Has those give way that stand behind a turn that has started. Should that fail, the keeper tries again.
    pub(super) async fn finish(self: &Arc<Self>, lane: &Lane) {
        let Some(begun) = lane.turn() else { return };
        let behind = lock(&begun.progress).behind.clone();
        if let Ok(gone) = self.give_way(&begun.conversation, begun.turn.overlap, behind).await {
            lock(&begun.progress).behind.retain(|stream| !gone.contains(stream));
        }
    }
}
