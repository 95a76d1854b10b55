//! How a turn begins: the pointer is moved to it, and those before it give way once its handler has answered.

use std::{sync::Arc, time::Duration};

use super::{Current, stream_of};
use crate::{
    model::{
        error::StoreError,
        id::StreamId,
        stream::StreamState,
        turn::{Overlap, Turn},
    },
    node::Node,
    protocol::backoff::Backoff,
    recorder::{Begun, Lane},
    runtime::sync::lock,
    store::{Expected, Place, Point, Pointed, Pointer},
};

/// How often a pointer that others move at the same time is tried.
const TRIES: usize = 32;
/// How often a turn that has started has those before it give way, and how soon again at first. Should all fail, their own nodes find out.
const TRIES_TO_FINISH: usize = 5;
const SOON: Duration = Duration::from_millis(200);

/// What came of moving the pointer to a turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Pointed,
    /// This stream runs.
    Refused(StreamId),
    /// One may run that the store has forgotten, and that is about to register again.
    Unknown,
}

impl Node {
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
        let begun = Begun::new(&lane.key, lane.epoch, turn, false);
        lock(&begun.progress).waits = true;
        let _ = lane.set_turn(Arc::clone(&begun));
        begun
    }

    /// A stream that was a turn already runs again: its pointer is renewed, should it name the stream, and not moved. Those that still stand
    /// behind it give way as soon as it has started. Under `Refuse` it does not run beside a newer turn: that is returned.
    pub(crate) async fn rejoin_turn(&self, lane: &Arc<Lane>, turn: Turn) -> Option<StreamId> {
        let refuses = turn.overlap == Overlap::Refuse;
        let begun = Begun::new(&lane.key, lane.epoch, turn, true);
        // Should this fail, whoever looks at the pointer next has them give way.
        let pointer = self.store.pointer(begun.conversation.clone()).await.ok().flatten();
        if let Some(pointer) = &pointer {
            begun.pointed(&lane.key.id, pointer);
        }
        let newer = pointer.map(|pointer| pointer.stream).filter(|newest| refuses && *newest != lane.key.id);
        let _ = lane.set_turn(Arc::clone(&begun));
        let newer = newer?;
        let info = self.store.info(stream_of(&begun.conversation, &newer)).await.ok().flatten();
        info.filter(|info| info.state == StreamState::Active).map(|info| info.key.id)
    }

    async fn point(self: &Arc<Self>, lane: &Lane, begun: &Begun) -> Result<Beginning, StoreError> {
        let refuses = begun.turn.overlap == Overlap::Refuse;
        // Said of each move: one that arrives late, when the pointer has been moved to a newer turn, is not to pass that.
        let mut expected = Expected::Nothing;
        let mut in_the_way = lane.key.id.clone();
        for _ in 0..TRIES {
            let pointer = match self.move_to(lane, begun, expected.clone()).await? {
                Pointed::Moved(pointer) if !refuses || pointer.stream == lane.key.id => {
                    if refuses && let Some(running) = self.runs_again(begun, &pointer).await? {
                        return Ok(Beginning::Refused(running));
                    }
                    begun.pointed(&lane.key.id, &pointer);
                    return Ok(Beginning::Pointed);
                }
                // A newer turn has been moved to since.
                Pointed::Moved(pointer) => Some(pointer),
                Pointed::Kept(pointer) => pointer,
            };
            expected = match pointer {
                None => Expected::Nothing,
                Some(pointer) if !refuses && expected == Expected::Stream(pointer.stream.clone()) => {
                    // As many stand behind it as may be.
                    return Ok(Beginning::Refused(pointer.stream));
                }
                Some(pointer) if !refuses => Expected::Stream(pointer.stream),
                Some(pointer) => match self.current(&begun.conversation).await? {
                    // Of one that the store has forgotten nobody knows whether it runs.
                    None if self.may_be_forgotten() => return Ok(Beginning::Refused(pointer.stream)),
                    None => Expected::Nothing,
                    Some(Current { info, .. }) if info.state == StreamState::Active => {
                        return Ok(Beginning::Refused(info.key.id));
                    }
                    Some(Current { info, .. }) => {
                        in_the_way = info.key.id.clone();
                        Expected::Stream(info.key.id)
                    }
                },
            };
        }
        Ok(Beginning::Refused(in_the_way))
    }

    async fn move_to(&self, lane: &Lane, begun: &Begun, expected: Expected) -> Result<Pointed, StoreError> {
        let point = Point {
            conversation: begun.conversation.clone(),
            stream: lane.key.id.clone(),
            // It begins now: whatever the pointer was moved to before is older.
            place: Place { epoch: begun.epoch, since: Duration::ZERO },
            expected,
            ttl: lane.retention().kept(),
        };
        match self.send_move(begun, point.clone()).await {
            // A repeat is the same request.
            Err(error) if !error.is_timeout() && !error.is_breaker_open() => self.send_move(begun, point).await,
            pointed => pointed,
        }
    }

    pub(super) async fn send_move(&self, begun: &Begun, point: Point) -> Result<Pointed, StoreError> {
        lock(&begun.progress).unanswered = true;
        let pointed = self.store.point(point).await;
        lock(&begun.progress).unanswered &= pointed.is_err();
        pointed
    }

    /// Finds a stream behind a turn that refuses to begin beside a running one, and that runs again since it was looked at: it was
    /// interrupted then. Whoever runs it again looks at the pointer after it is registered, and this turn looks at it after the pointer
    /// was moved, so that one of them sees the other.
    async fn runs_again(&self, begun: &Begun, pointer: &Pointer) -> Result<Option<StreamId>, StoreError> {
        for stream in &pointer.behind {
            let info = self.store.info(stream_of(&begun.conversation, stream)).await?;
            if info.is_some_and(|info| info.state == StreamState::Active) {
                return Ok(Some(stream.clone()));
            }
        }
        Ok(None)
    }

    /// The handler of a turn has answered: those before it give way.
    pub(crate) fn turn_started(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        lock(&begun.progress).started = true;
        if begun.is_to_finish() {
            let (node, lane) = (Arc::clone(self), Arc::clone(lane));
            self.executor.spawn(async move {
                // The turn may be over before the store takes this, and its keeper looks after it no more then.
                let mut backoff = Backoff::new(SOON, node.settings.beat_every());
                for _ in 0..TRIES_TO_FINISH {
                    node.finish(&lane).await;
                    if !lane.turn().is_some_and(|begun| begun.is_to_finish()) {
                        return;
                    }
                    tokio::time::sleep(backoff.failed(crate::runtime::random::u128() as u64)).await;
                }
            });
        }
    }

    /// A turn has ended before its handler answered, perhaps even before the pointer was moved to it: the pointer is to expire with
    /// the stream all the same. Once the store knows of the end, it goes back to the turn before, which may run on.
    pub(crate) fn turn_is_over(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        let (store, renew) =
            (self.store.in_background(), begun.expiring(&lane.key.id, lane.retention().recovery_window));
        let (node, lane, conversation) = (Arc::clone(self), Arc::clone(lane), begun.conversation.clone());
        self.executor.begin(async move {
            drop(store.renew(vec![renew]).await);
            let settled = node.recorder.until_settled(&lane);
            if tokio::time::timeout(node.settings.terminal_limit, settled).await.is_ok() {
                // Should this fail, whoever looks at the pointer next does it.
                drop(node.current(&conversation).await);
            }
            if lane.turn().is_some_and(|begun| begun.is_unanswered()) {
                node.tidy_late(&lane).await;
            }
        });
    }

    /// The maker of a turn has left before its handler answered, perhaps while the pointer was being moved: the move may arrive after the
    /// withdrawal, or after the end.
    pub(crate) fn turn_is_left(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn().map(Arc::clone) else { return };
        let (node, lane) = (Arc::clone(self), Arc::clone(lane));
        self.executor.spawn(async move {
            if begun.is_unanswered() {
                node.tidy_late(&lane).await;
            } else {
                // It may have been stopped while the pointer was moved to it: then nothing is withdrawn that the pointer would follow.
                // Should this fail, whoever looks at the pointer next does it.
                let _ = node.tidy(&lane, &begun).await;
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
