//! The handles that read, stop and delete streams.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        error::StoreError,
        id::{EventId, Owner, StreamId, StreamKey},
        stream::{Ended, RecordKind, StreamInfo, reason},
    },
    node::{Node, stop::Stopped},
    recorder::Status,
    store::{List, Listed, Page, Read, ReadFrom},
    wire::{Framing, single_events},
};

/// How many streams an unpaged list has at most.
const LIST: usize = 1000;

impl Node {
    async fn list(&self, owner: &Owner) -> Result<Vec<StreamInfo>, StoreError> {
        let list = List { owner: owner.clone(), after: None, limit: LIST };
        Ok(self.store.list(list).await?.streams)
    }
}

/// Lists and stops streams: see [`ResilientSse::streams`](crate::ResilientSse::streams).
///
/// ```
/// use resilient_sse::{Owner, ResilientSse, StoreError, StreamId};
///
/// async fn stop_all(sse: &ResilientSse, owner: &Owner) -> Result<(), StoreError> {
///     let streams = sse.streams();
///     for stream in streams.list(owner).await? {
///         streams.stop(owner, &stream.key.id).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Streams(Arc<Node>);

impl Streams {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Returns the streams of an owner that the store holds, ended ones included: the first 1,000 in the order of
    /// [`page`](Self::page).
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

    /// Returns a page of an owner's streams: at most `limit` streams after the stream `after`, or from the first one.
    ///
    /// Running streams come first, then the others, in each group the newest first. The cost depends on the size of the
    /// page, not on how many streams the owner has. A stream that changes its state between two pages may be on both,
    /// or on neither. If the store no longer holds `after`, the page is empty.
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

    /// Stops a stream, on whatever node it runs. The stream is closed as `cancelled`, reason `stopped`, and its node
    /// drops the inner body.
    ///
    /// Returns the stream's end, or `None` if there is no such stream. If the stream had ended before, this is its
    /// earlier end.
    ///
    /// A stream that runs on this node is stopped at once, also while the store is away. If the store has not
    /// acknowledged the end within 2 s, that end is returned all the same, and the recorder keeps trying to store it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer and the stream does not run on this node. The stream may be stopped
    /// all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream may or may not be stopped.
    pub async fn stop(&self, owner: &Owner, id: &StreamId) -> Result<Option<Ended>, StoreError> {
        let stopped = self.0.stop(&StreamKey::new(owner.clone(), id.clone()), reason::STOPPED).await?;
        Ok(match stopped {
            Stopped::Now(ended) | Stopped::Before(ended) => Some(ended),
            Stopped::Missing => None,
        })
    }

    /// Returns the newest stream of an owner's conversation, running or ended, or `None` if there is none. See
    /// [`ResilientSseLayer::conversation`](crate::ResilientSseLayer::conversation).
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. Reading may finish a change of the conversation that a process which died
    /// has left half done.
    pub async fn current(&self, owner: &Owner, conversation: &StreamId) -> Result<Option<StreamInfo>, StoreError> {
        let conversation = StreamKey::new(owner.clone(), conversation.clone());
        Ok(self.0.current(&conversation).await?.map(|current| current.info))
    }
}

/// Reads the store's records of streams, and deletes streams: see
/// [`ResilientSse::registry`](crate::ResilientSse::registry).
#[derive(Clone, Debug)]
pub struct StreamRegistry(Arc<Node>);

impl StreamRegistry {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Returns the store's record of a stream, or `None` if the store holds no such stream.
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

    /// Returns the streams of an owner that the store holds, like [`Streams::list`].
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

    /// Returns up to 1000 active streams whose producer's last append or beat is longer ago than `threshold`.
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

    /// Returns how many streams of all owners are active.
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

    /// Removes a stream and all its events from the store.
    ///
    /// An active stream is stopped first, and its [`on_end`](super::Builder::on_end) hook runs while its events are
    /// still held. If the stream had ended before, and its hook runs or waits on this node, the deletion waits for that
    /// hook too. It does not wait for hooks that are due on other nodes.
    ///
    /// A hook runs once, for at most [`hook_limit`](super::Builder::hook_limit), and may wait as long for its turn.
    /// Then the stream is removed even if the hook failed: a failing hook is counted, and does not block a deletion.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer. The stream may be gone all the same. If the stream runs on this
    /// node and the store has not acknowledged its end within 2 s, the stream is stopped but still held, since its hook
    /// has not run: delete it again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream may be stopped and still held: delete it again.
    pub async fn delete(&self, key: &StreamKey) -> Result<(), StoreError> {
        let lane = self.0.recorder.lane(key);
        Streams::new(Arc::clone(&self.0)).stop(&key.owner, &key.id).await?;
        if lane.is_some_and(|lane| lane.status() == Status::Running) {
            // The hook is due once the end is stored, and needs the stream's events then.
            return Err(StoreError::timed_out("close"));
        }
        let hooks = &self.0.hooks;
        let _ = tokio::time::timeout(hooks.patience(), hooks.finished(key)).await;
        hooks.recent.forget(key);
        self.0.store.delete(key.clone()).await
    }
}

/// Reads the ends and events of streams, and deletes streams: see
/// [`ResilientSse::completions`](crate::ResilientSse::completions).
#[derive(Clone, Debug)]
pub struct CompletionStore(Arc<Node>);

impl CompletionStore {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Returns a stream's end, or `None` if the stream has not ended or is not held.
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

    /// Returns a page of a stream's log: up to `limit` entries after `after`, or from the first one held. Each event is
    /// an entry of its own.
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
        let from = after.map_or(ReadFrom::Start, ReadFrom::After);
        let read = Read { key: key.clone(), from, max_events: limit, max_bytes: usize::MAX };
        let page = self.0.store.read(read).await?;
        Ok(page.map(|page| of_single_events(&*self.0.framing, page, after, limit)))
    }

    /// Removes a stream and all its events from the store, like [`StreamRegistry::delete`].
    ///
    /// # Errors
    ///
    /// The errors of [`StreamRegistry::delete`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream may be stopped and still held: delete it again.
    pub async fn delete(&self, key: &StreamKey) -> Result<(), StoreError> {
        StreamRegistry::new(Arc::clone(&self.0)).delete(key).await
    }
}

/// Splits a page into entries of one event each, and keeps up to `limit` entries after `after`. The end does not count.
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
