//! Conversations: a pointer to the newest stream of a chat, and what a new turn does to the one before.
//!
//! A turn is registered first, then the pointer is moved to it, and only then its handler runs. Once it has
//! started, the streams that stand behind it in the pointer are stopped. Until then a withdrawal moves the pointer back. Each of these steps is one
//! step of one key of the store, so a process may die between any two. What it leaves undone is done by whoever looks at the pointer
//! next ([`Core::current`]): a resume, the next turn, a sweep that finds the dead turn, or the node of a stream that was not stopped.

mod begun;
mod keep;

pub(crate) use begun::{Beginning, Begun};
pub(crate) use keep::run as keep;

use std::sync::Arc;

use crate::{
    error::StoreError,
    hub::Core,
    id::{StreamId, StreamKey},
    store::Pointer,
    stream::{StreamInfo, StreamState, reason},
    turn::Overlap,
};

/// How many streams a look at a pointer goes back at most: as many as may stand in one.
const LOOKS: usize = crate::store::pointer::BEHIND + 1;

/// The stream that a conversation's pointer names.
pub(crate) struct Current {
    pub(crate) pointer: Pointer,
    pub(crate) info: StreamInfo,
}

impl Core {
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
                pointer = self.store.unpoint(conversation.clone(), named.stream).await?;
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
        let is_here = self.recorder.lane(&info.key).is_some();
        let Some(turn) = info.turn.as_ref().filter(|_| info.started && !named.behind.is_empty() && !is_here) else {
            return;
        };
        let (core, conversation) = (Arc::clone(self), conversation.clone());
        let (overlap, behind) = (turn.overlap, named.behind.clone());
        self.executor.spawn(async move { drop(core.give_way(&conversation, overlap, behind).await) });
    }

    /// Streams give way to a turn that has started: they are stopped, unless the turn lets them run, and stand behind it no
    /// more.
    async fn give_way(
        self: &Arc<Self>,
        conversation: &StreamKey,
        overlap: Overlap,
        behind: Vec<StreamId>,
    ) -> Result<(), StoreError> {
        if overlap.stops() {
            for stream in &behind {
                self.stop(&stream_of(conversation, stream), reason::REPLACED).await?;
            }
        }
        self.store.give_way(conversation.clone(), behind).await
    }
}

/// The stream of a conversation's owner that has this id.
pub(crate) fn stream_of(conversation: &StreamKey, stream: &StreamId) -> StreamKey {
    StreamKey::new(conversation.owner.clone(), stream.clone())
}

/// Whether a turn has ended without ever having begun: its node died, or it was stopped, before its handler answered.
fn has_failed_to_begin(info: &StreamInfo) -> bool {
    !info.started && info.state.is_terminal() && info.state != StreamState::Completed
}
