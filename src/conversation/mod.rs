//! Conversations: a pointer to the newest stream of a chat, and what a new turn does to the one before.
//!
//! A turn is registered first, then the pointer is moved to it, and only then its handler runs. Once it has
//! started, the streams that stand behind it in the pointer are stopped. Until then a withdrawal moves the pointer back. Each of these steps is one
//! step of one key of the store, so a process may die between any two. What it leaves undone is done by whoever looks at the pointer
//! next ([`Node::current`]): a resume, the next turn, a sweep that finds the dead turn, or the node of a stream that was not stopped.

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

/// How many streams a look at a pointer goes back at most: as many as may stand in one.
const LOOKS: usize = crate::store::pointer::BEHIND + 1;

/// The stream that a conversation's pointer names.
pub(crate) struct Current {
    pub(crate) pointer: Pointer,
    pub(crate) info: StreamInfo,
}

impl Node {
    /// Looks which stream a conversation's pointer names. Sets right what a crash left undone: a turn that failed to begin
    /// is taken out, and those that a turn that has started was to replace are stopped, beside the caller.
    pub(crate) async fn current(self: &Arc<Self>, conversation: &StreamKey) -> Result<Option<Current>, StoreError> {
        let mut pointer = self.store.pointer(conversation.clone()).await?;
        for _ in 0..LOOKS {
            let Some(named) = pointer.take() else { return Ok(None) };
            let key = stream_of(conversation, &named.stream);
            let info = self.store.info(key.clone()).await?;
            let failed = match &info {
                // One that the store forgot is about to be registered again.
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

    /// Does what a turn of another process was to do once it had started, should that process have died.
    fn finish_for(self: &Arc<Self>, conversation: &StreamKey, named: &Pointer, info: &StreamInfo) {
        let is_under_way = |lane: Arc<Lane>| lane.turn().is_none_or(|begun| begun.is_under_way());
        let is_here = self.recorder.lane(&info.key).is_some_and(is_under_way);
        let is_to_finish = has_begun(info) && !named.behind.is_empty() && !is_here;
        let Some(turn) = info.turn.as_ref().filter(|_| is_to_finish) else { return };
        let (node, conversation) = (Arc::clone(self), conversation.clone());
        let (overlap, behind) = (turn.overlap, named.behind.clone());
        self.executor.spawn(async move { drop(node.give_way(&conversation, overlap, behind).await) });
    }

    /// Streams give way to a turn that has started: they are stopped, unless the turn lets them run, and stand behind it no
    /// more. Returns which have; one that the store may only have forgotten has not, since it is about to register again.
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

/// The stream of a conversation's owner that has this id.
pub(crate) fn stream_of(conversation: &StreamKey, stream: &StreamId) -> StreamKey {
    StreamKey::new(conversation.owner.clone(), stream.clone())
}

/// Whether a turn has begun: its handler has answered, or its job was found to be done.
fn has_begun(info: &StreamInfo) -> bool {
    info.started || info.state == StreamState::Completed
}

/// Whether a turn runs no more and has never begun: its node died or was drained, or it was stopped, before its handler answered. One that is
/// interrupted may still be run again, and is pointed to again then.
fn has_failed_to_begin(info: &StreamInfo) -> bool {
    let is_over = info.state.is_terminal() || (info.state == StreamState::Interrupted && info.previous.is_none());
    is_over && !has_begun(info)
}
