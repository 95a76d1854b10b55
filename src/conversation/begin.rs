//! The beginning of a turn: the pointer is moved to it, and the earlier turns stop once its handler has answered.

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

/// How often a move is tried while other turns move the pointer at the same time.
const TRIES: usize = 32;
/// How often a started turn tries to stop the earlier ones, and the first pause between tries. If all tries fail, the
/// nodes of the earlier turns find out when they renew the pointer.
const TRIES_TO_FINISH: usize = 5;
const SOON: Duration = Duration::from_millis(200);

/// The result of moving the pointer to a turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Pointed,
    /// The turn is refused, because this stream is running.
    Refused(StreamId),
    /// A stream may be running that the store has forgotten and that is about to register again.
    Unknown,
}

impl Node {
    /// Moves a conversation's pointer to a registered stream whose handler has not run yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the pointer could not be moved. The keeper retries for as long as the stream runs.
    pub(crate) async fn begin_turn(self: &Arc<Self>, lane: &Arc<Lane>, turn: Turn) -> Result<Beginning, StoreError> {
        let refuses = turn.overlap == Overlap::Refuse;
        let begun = self.name_turn(lane, turn);
        if refuses && self.may_be_forgotten() { Ok(Beginning::Unknown) } else { self.point(lane, &begun).await }
    }

    /// Marks a stream as a turn, before the pointer is moved to it.
    pub(crate) fn name_turn(&self, lane: &Lane, turn: Turn) -> Arc<Begun> {
        if let Some(named) = lane.turn() {
            return Arc::clone(named);
        }
        let begun = Begun::new(&lane.key, lane.epoch, turn, false);
        lock(&begun.progress).waits = true;
        lane.set_turn(Arc::clone(&begun));
        begun
    }

    /// Marks a stream that was a turn and is run again. The pointer is renewed if it names the stream, and never moved.
    /// The streams behind it are stopped once it has started.
    ///
    /// Returns a newer turn that is running, under `Refuse`: this stream must not run beside it.
    pub(crate) async fn rejoin_turn(&self, lane: &Arc<Lane>, turn: Turn) -> Option<StreamId> {
        let refuses = turn.overlap == Overlap::Refuse;
        let begun = Begun::new(&lane.key, lane.epoch, turn, true);
        // If this fails, the next caller of `current` stops the streams behind this one.
        let pointer = self.store.pointer(begun.conversation.clone()).await.ok().flatten();
        if let Some(pointer) = &pointer {
            begun.pointed(&lane.key.id, pointer);
        }
        let newer = pointer.map(|pointer| pointer.stream).filter(|newest| refuses && *newest != lane.key.id);
        lane.set_turn(Arc::clone(&begun));
        let newer = newer?;
        let info = self.store.info(stream_of(&begun.conversation, &newer)).await.ok().flatten();
        info.filter(|info| info.state == StreamState::Active).map(|info| info.key.id)
    }

    async fn point(self: &Arc<Self>, lane: &Lane, begun: &Begun) -> Result<Beginning, StoreError> {
        let refuses = begun.turn.overlap == Overlap::Refuse;
        // Each move names the pointer that it expects. A move that arrives late must not replace a newer turn.
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
                // The pointer has since been moved to a newer turn.
                Pointed::Moved(pointer) => Some(pointer),
                Pointed::Kept(pointer) => pointer,
            };
            expected = match pointer {
                None => Expected::Nothing,
                Some(pointer) if !refuses && expected == Expected::Stream(pointer.stream.clone()) => {
                    // The pointer holds as many streams as it can.
                    return Ok(Beginning::Refused(pointer.stream));
                }
                Some(pointer) if !refuses => Expected::Stream(pointer.stream),
                Some(pointer) => match self.current(&begun.conversation).await? {
                    // The store has forgotten the stream, so it may be running.
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
            // The turn begins now, so every stream in the pointer is older.
            place: Place { epoch: begun.epoch, since: Duration::ZERO },
            expected,
            ttl: lane.retention().kept(),
        };
        match self.send_move(begun, point.clone()).await {
            // Sending the same move twice is safe.
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

    /// Returns a stream behind a `Refuse` turn that was interrupted when it was checked and is running again now.
    ///
    /// The new run reads the pointer after it is registered. This turn reads the stream after the pointer is moved. So
    /// one of the two sees the other.
    async fn runs_again(&self, begun: &Begun, pointer: &Pointer) -> Result<Option<StreamId>, StoreError> {
        for stream in &pointer.behind {
            let info = self.store.info(stream_of(&begun.conversation, stream)).await?;
            if info.is_some_and(|info| info.state == StreamState::Active) {
                return Ok(Some(stream.clone()));
            }
        }
        Ok(None)
    }

    /// Notes that the handler of a turn has answered, and stops the earlier turns in a spawned task.
    pub(crate) fn turn_started(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        lock(&begun.progress).started = true;
        if begun.is_to_finish() {
            let (node, lane) = (Arc::clone(self), Arc::clone(lane));
            self.executor.spawn(async move {
                // Retried here, because the keeper stops retrying once the turn is over.
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

    /// Cleans up after a turn that ended before its handler answered, perhaps even before the pointer was moved to it.
    ///
    /// The pointer is set to expire with the stream. Once the store has the end, the pointer moves back to the turn
    /// before, which may still be running.
    pub(crate) fn turn_is_over(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn() else { return };
        let (store, renew) =
            (self.store.in_background(), begun.expiring(&lane.key.id, lane.retention().recovery_window));
        let (node, lane, conversation) = (Arc::clone(self), Arc::clone(lane), begun.conversation.clone());
        self.executor.begin(async move {
            drop(store.renew(vec![renew]).await);
            let settled = node.recorder.until_settled(&lane);
            if tokio::time::timeout(node.settings.terminal_limit, settled).await.is_ok() {
                // If this fails, the next caller of `current` moves the pointer back.
                drop(node.current(&conversation).await);
            }
            if lane.turn().is_some_and(|begun| begun.is_unanswered()) {
                node.tidy_late(&lane).await;
            }
        });
    }

    /// Cleans up after a turn whose request was dropped before its handler answered. The pointer may have been moving
    /// then: the move may arrive after the withdrawal, or after the end.
    pub(crate) fn turn_is_left(self: &Arc<Self>, lane: &Arc<Lane>) {
        let Some(begun) = lane.turn().map(Arc::clone) else { return };
        let (node, lane) = (Arc::clone(self), Arc::clone(lane));
        self.executor.spawn(async move {
            if begun.is_unanswered() {
                node.tidy_late(&lane).await;
            } else {
                // The stream may have been stopped while the pointer was moved to it. Then there is no withdrawal that
                // would move the pointer back. If this fails, the next caller of `current` does it.
                let _ = node.tidy(&lane, &begun).await;
            }
        });
    }

    /// Stops the streams behind a started turn. If that fails, the keeper tries again.
    pub(super) async fn finish(self: &Arc<Self>, lane: &Lane) {
        let Some(begun) = lane.turn() else { return };
        let behind = lock(&begun.progress).behind.clone();
        if let Ok(gone) = self.give_way(&begun.conversation, begun.turn.overlap, behind).await {
            lock(&begun.progress).behind.retain(|stream| !gone.contains(stream));
        }
    }
}
