//! Looking into streams, and stopping them.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        error::StoreError,
        id::{EventId, Owner, StreamId, StreamKey},
        stream::{Ended, RecordKind, StreamInfo, reason},
    },
    node::{Node, stop::Stopped},
    recorder::Status,
    store::{From, List, Listed, Page, Read},
    wire::{Framing, single_events},
};

/// How many streams a list has at most that is not paged.
const LIST: usize = 1000;

impl Node {
    async fn list(&self, owner: &Owner) -> Result<Vec<StreamInfo>, StoreError> {
        let list = List { owner: owner.clone(), after: None, limit: LIST };
        Ok(self.store.list(list).await?.streams)
    }
}

/// Lists and stops streams: see [`ResilientSse::streams`](crate::ResilientSse::streams).
#[derive(Clone, Debug)]
pub struct Streams(Arc<Node>);

impl Streams {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// The streams of an owner that are held, ended ones included: the first 1,000 in the order of [`page`](Self::page).
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn list(&self, owner: &Owner) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.list(owner).await
    }

    /// The same page by page: at most `limit` streams, from the one after `after` on, or from the first. Those that run come
    /// first, then the others; of both the newest first. The cost depends on the page, not on how many streams the owner
    /// has. A stream that changes its state between two pages may be on both, or on neither; after one that is not held any
    /// more there is nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn page(&self, owner: &Owner, after: Option<&StreamId>, limit: usize) -> Result<Listed, StoreError> {
        self.0.store.list(List { owner: owner.clone(), after: after.cloned(), limit }).await
    }

    /// Stops a stream, wherever it runs: it is closed as `cancelled`, reason `stopped`, and its node
    /// drops the inner body. Answers with the stream's end, which is another one if it had ended
    /// before; `None` if there is no such stream.
    ///
    /// A stream that runs here is stopped at once, also while the store is away: if the store has not acknowledged the
    /// end within 2 s, the answer is that end, and the recorder goes on trying.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer and the stream does not run here; it may be stopped all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream is stopped or not.
    pub async fn stop(&self, owner: &Owner, id: &StreamId) -> Result<Option<Ended>, StoreError> {
        let stopped = self.0.stop(&StreamKey::new(owner.clone(), id.clone()), reason::STOPPED).await?;
        Ok(match stopped {
            Stopped::Now(ended) | Stopped::Before(ended) => Some(ended),
            Stopped::Missing => None,
        })
    }

    /// The newest stream of an owner's conversation, whether it runs or has ended; `None` if there is none. See
    /// [`ResilientSseLayer::conversation`](crate::ResilientSseLayer::conversation).
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing but what a process that died has left undone.
    pub async fn current(&self, owner: &Owner, conversation: &StreamId) -> Result<Option<StreamInfo>, StoreError> {
        let conversation = StreamKey::new(owner.clone(), conversation.clone());
        Ok(self.0.current(&conversation).await?.map(|current| current.info))
    }
}

/// Looks into what the store knows of streams: see [`ResilientSse::registry`](crate::ResilientSse::registry).
#[derive(Clone, Debug)]
pub struct StreamRegistry(Arc<Node>);

impl StreamRegistry {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// What is known of a stream.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn stream(&self, key: &StreamKey) -> Result<Option<StreamInfo>, StoreError> {
        self.0.store.info(key.clone()).await
    }

    /// The streams of an owner that are held, ended ones included: as [`Streams::list`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn user_streams(&self, owner: &Owner) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.list(owner).await
    }

    /// Active streams whose producer was last heard of longer ago than `threshold`; at most 1000.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn stale_streams(&self, threshold: Duration) -> Result<Vec<StreamInfo>, StoreError> {
        self.0.store.stale(threshold, 1000).await
    }

    /// How many streams are active, whose ever.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn active_count(&self) -> Result<u64, StoreError> {
        self.0.store.active_count().await
    }

    /// Removes a stream and all that is held of it.
    ///
    /// An active one is stopped first, and its [`on_end`](super::Builder::on_end) hook is run while its events are still
    /// held. So is a hook that runs here, or waits, for a stream that had ended before. A hook has one turn, for at most
    /// [`hook_limit`](super::Builder::hook_limit) (and as long to wait for it); then the stream is removed even if the hook
    /// failed, which is counted: a failing hook does not block a deletion. Hooks that are due on other nodes are not waited
    /// for.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer; the stream may be gone all the same. Where the stream runs on this node and
    /// the store has not acknowledged its end within 2 s, it is stopped and still held, since its hook has not run: delete it
    /// again.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream may be stopped and still held: delete it again.
    pub async fn delete(&self, key: &StreamKey) -> Result<(), StoreError> {
        let lane = self.0.recorder.lane(key);
        Streams::new(Arc::clone(&self.0)).stop(&key.owner, &key.id).await?;
        if lane.is_some_and(|lane| lane.status() == Status::Running) {
            // Its hook is due once the end is stored, and needs the stream's events then.
            return Err(StoreError::timed_out("close"));
        }
        let hooks = &self.0.hooks;
        let _ = tokio::time::timeout(hooks.patience(), hooks.finished(key)).await;
        hooks.recent.forget(key);
        self.0.store.delete(key.clone()).await
    }
}

/// Looks into what the store keeps of ended streams: see [`ResilientSse::completions`](crate::ResilientSse::completions).
#[derive(Clone, Debug)]
pub struct CompletionStore(Arc<Node>);

impl CompletionStore {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// How a stream ended; `None` if it has not, or is not held.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn completion(&self, key: &StreamKey) -> Result<Option<Ended>, StoreError> {
        Ok(self.0.store.info(key.clone()).await?.and_then(|info| info.ended))
    }

    /// A page of a stream's log: up to `limit` entries after `after`, or from the first one held. Each event is an entry of its
    /// own.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn events(
        &self,
        key: &StreamKey,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let from = after.map_or(From::Start, From::After);
        let read = Read { key: key.clone(), from, max_events: limit, max_bytes: usize::MAX };
        let page = self.0.store.read(read).await?;
        Ok(page.map(|page| of_single_events(&*self.0.framing, page, after, limit)))
    }

    /// Removes an ended stream and all that is held of it; an active one is stopped first, and its hook run: see
    /// [`StreamRegistry::delete`].
    ///
    /// # Errors
    ///
    /// As [`StreamRegistry::delete`].
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream may be stopped and still held: delete it again.
    pub async fn delete(&self, key: &StreamKey) -> Result<(), StoreError> {
        StreamRegistry::new(Arc::clone(&self.0)).delete(key).await
    }
}

/// A page's entries after `after`, of one event each; at most so many, the end on top.
fn of_single_events(framing: &dyn Framing, mut page: Page, after: Option<EventId>, limit: usize) -> Page {
    let records = std::mem::take(&mut page.records).into_iter();
    let mut left = limit.max(1);
    for record in records.flat_map(|record| single_events(framing, record)).filter(|record| Some(record.id) > after) {
        if left == 0 && !matches!(record.kind, RecordKind::End(_)) {
            page.more = true;
            break;
        }
        left = left.saturating_sub(1);
        page.records.push(record);
    }
    page
}
