//! Conversations: a pointer to the newest stream of a chat, and the effect of a new turn on the earlier ones.
//!
//! A turn begins in this order: its stream is registered, the pointer is moved to it, and its handler runs. Once the
//! handler has answered, the streams behind the new one in the pointer are stopped. If the turn is withdrawn before
//! that, the pointer moves back.
//!
//! Each step changes a single key of the store, so a process may die between any two steps. The next caller of
//! [`Node::current`] completes the rest: a resume, the next turn, a sweep that finds the dead turn, or the node of a
//! stream that was to be stopped.

mod begin;
mod keep;
mod late;

pub(crate) use begin::Beginning;
pub(crate) use keep::run as keep;

use std::sync::Arc;

use crate::{
    model::{
        error::StoreError,
        id::{StreamId, StreamKey},
        stream::{StreamInfo, StreamState, reason},
        turn::Overlap,
    },
    node::{Node, stop::Stopped},
    recorder::Lane,
    store::Pointer,
};

/// How many streams [`Node::current`] checks at most: as many as a pointer can hold.
const CHECKED: usize = crate::store::pointer::BEHIND + 1;

/// The stream that a conversation's pointer names.
pub(crate) struct Current {
    pub(crate) pointer: Pointer,
    pub(crate) info: StreamInfo,
}

impl Node {
    /// Returns the stream that a conversation's pointer names.
    ///
    /// Completes the steps that a crashed process left undone: removes a turn that failed to begin, and stops, in a
    /// spawned task, the streams that a started turn replaces.
    pub(crate) async fn current(self: &Arc<Self>, conversation: &StreamKey) -> Result<Option<Current>, StoreError> {
        let mut pointer = self.store.pointer(conversation.clone()).await?;
        for _ in 0..CHECKED {
            let Some(named) = pointer.take() else { return Ok(None) };
            let key = stream_of(conversation, &named.stream);
            let info = self.store.info(key.clone()).await?;
            let failed = match &info {
                // A stream that the store forgot is about to be registered again, so it has not failed.
                None => self.recorder.lane(&key).is_none() && !self.ask_whether_forgotten().await?,
                Some(info) => has_failed_to_begin(info) && !named.behind.is_empty(),
            };
            if failed {
                pointer = self.store.unpoint(conversation.clone(), named.stream, Some(named.epoch)).await?;
                continue;
            }
            let Some(info) = info else { return Ok(None) };
            self.finish_for(conversation, &named, &info);
            return Ok(Some(Current { pointer: named, info }));
        }
        Ok(None)
    }

    /// Stops the streams behind a started turn on behalf of its process, which may have died before it did so.
    fn finish_for(self: &Arc<Self>, conversation: &StreamKey, named: &Pointer, info: &StreamInfo) {
        let is_under_way = |lane: Arc<Lane>| lane.turn().is_none_or(|begun| begun.is_under_way());
        let is_here = self.recorder.lane(&info.key).is_some_and(is_under_way);
        let is_to_finish = has_begun(info) && !named.behind.is_empty() && !is_here;
        let Some(turn) = info.turn.as_ref().filter(|_| is_to_finish) else { return };
        let (node, conversation) = (Arc::clone(self), conversation.clone());
        let (overlap, behind) = (turn.overlap, named.behind.clone());
        self.executor.spawn(async move { drop(node.give_way(&conversation, overlap, behind).await) });
    }

    /// Stops the streams behind a started turn, unless its policy lets them run, and removes them from the pointer.
    ///
    /// Returns the removed streams. A stream that the store may have forgotten stays, because it is about to register
    /// again and must be stopped then.
    async fn give_way(
        self: &Arc<Self>,
        conversation: &StreamKey,
        overlap: Overlap,
        behind: Vec<StreamId>,
    ) -> Result<Vec<StreamId>, StoreError> {
        let mut gone = Vec::new();
        for stream in behind {
            let may_run = overlap.stops()
                && matches!(self.stop(&stream_of(conversation, &stream), reason::REPLACED).await?, Stopped::Missing)
                && self.ask_whether_forgotten().await?;
            if !may_run {
                gone.push(stream);
            }
        }
        self.store.give_way(conversation.clone(), gone.clone()).await?;
        Ok(gone)
    }
}

/// Returns the key of the conversation owner's stream with this id.
pub(crate) fn stream_of(conversation: &StreamKey, stream: &StreamId) -> StreamKey {
    StreamKey::new(conversation.owner.clone(), stream.clone())
}

/// Whether a turn has begun: its handler has answered, or a job probe found its job completed.
fn has_begun(info: &StreamInfo) -> bool {
    info.started || info.state == StreamState::Completed
}

/// Whether a turn is over and has never begun: before its handler answered, its node died or was drained, or the stream
/// was stopped. If an interrupted stream is run again later, the pointer is moved to it again.
fn has_failed_to_begin(info: &StreamInfo) -> bool {
    let is_over = info.state.is_terminal() || (info.state == StreamState::Interrupted && info.previous.is_none());
    is_over && !has_begun(info)
}
