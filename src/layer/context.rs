//! What a handler can learn of its stream, and say of it.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    config::METADATA_BYTES,
    id::{EventId, Owner, StreamId, StreamKey},
    kept::keep,
    recorder::{Lane, Recorder},
    stream::Metadata,
    sync::lock,
};

/// The stream that a request is part of: an extension of the inner request.
///
/// ```
/// # use resilient_sse::StreamContext;
/// async fn start(stream: &StreamContext, job: &str) {
///     // Stored before the first event is delivered: a probe on another node can find the job.
///     stream.metadata("job", job).expect("fits");
/// }
/// ```
#[derive(Clone)]
pub struct StreamContext(Arc<Inner>);

struct Inner {
    key: StreamKey,
    recorded: OnceLock<bool>,
    cursor: Option<EventId>,
    last_inner_id: Option<String>,
    stop: CancellationToken,
    /// The metadata to keep with the stream, until it is registered.
    metadata: Mutex<Metadata>,
    lane: OnceLock<(Arc<Lane>, Arc<Recorder>)>,
}

impl StreamContext {
    pub(crate) fn new(
        key: StreamKey,
        cursor: Option<EventId>,
        last_inner_id: Option<String>,
        metadata: &Metadata,
    ) -> Self {
        Self(Arc::new(Inner {
            key,
            recorded: OnceLock::new(),
            cursor,
            last_inner_id,
            stop: CancellationToken::new(),
            metadata: Mutex::new(metadata.clone()),
            lane: OnceLock::new(),
        }))
    }

    /// The stream's name.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.0.key.id
    }

    /// The owner of the stream.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.key.owner
    }

    /// Whether the stream is recorded, and metadata kept; `None` until that is known, which on a route that makes up ids is
    /// after the handler has answered.
    #[must_use]
    pub fn is_recorded(&self) -> Option<bool> {
        self.0.recorded.get().copied()
    }

    /// Which run this is; `None` until the stream is registered, which on a route that makes up ids
    /// happens once the handler has answered.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.0.lane.get().map(|(lane, _)| lane.epoch)
    }

    /// The last event that the client saw, if it came with a readable cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<EventId> {
        self.0.cursor
    }

    /// The last id that the handler itself gave an event of this stream, in an earlier run.
    /// The inner request carries the same as its `Last-Event-ID`.
    #[must_use]
    pub fn last_inner_id(&self) -> Option<&str> {
        self.0.last_inner_id.as_deref()
    }

    /// Ready once the stream's work is to stop: the stream was stopped or ended elsewhere, nobody has read it for too
    /// long, an event was too large, the process goes down, or the handler is dropped before it answers.
    ///
    /// The body is dropped in all these cases. This future is for work that the body does not own.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing; once ready, always ready.
    pub fn stopped(&self) -> WaitStopped<'_> {
        WaitStopped { wait: self.0.stop.cancelled() }
    }

    /// Whether the stream's work is to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Keeps something with the stream, such as the id of the job that makes its events: a job
    /// probe gets it, on any node. It is stored before the next event is delivered. A key that is kept already is
    /// replaced.
    ///
    /// On an unrecorded stream this is `Ok`, but nothing is kept: see [`is_recorded`](Self::is_recorded).
    ///
    /// # Errors
    ///
    /// [`MetadataTooLarge`] if the stream would keep more than 4 KiB of keys and values; the metadata from before stays.
    pub fn metadata(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), MetadataTooLarge> {
        let (key, value) = (key.into(), value.into());
        let mut metadata = lock(&self.0.metadata);
        let kept = match self.0.lane.get() {
            Some((lane, recorder)) => lane.keep(recorder, key, value),
            None => keep(&mut metadata, key, value).map(drop),
        };
        kept.map_err(|bytes| MetadataTooLarge { bytes })
    }

    /// The metadata from before the stream is registered.
    pub(crate) fn kept(&self) -> Metadata {
        lock(&self.0.metadata).clone()
    }

    /// The stream is registered.
    pub(crate) fn registered(&self, lane: &Arc<Lane>, recorder: &Arc<Recorder>) {
        let kept = {
            let mut metadata = lock(&self.0.metadata);
            let _ = self.0.lane.set((Arc::clone(lane), Arc::clone(recorder)));
            let _ = self.0.recorded.set(true);
            std::mem::take(&mut *metadata)
        };
        for (key, value) in kept {
            // Pairs that the stream was registered with change nothing; those added since were within the bound.
            let _ = lane.keep(recorder, key, value);
        }
    }

    /// The stream cannot be registered.
    pub(crate) fn unrecorded(&self) {
        let _ = self.0.recorded.set(false);
    }

    pub(crate) fn stop(&self) {
        self.0.stop.cancel();
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("cursor", &self.0.cursor)
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// Ready once the work is to stop: see [`StreamContext::stopped`].
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitStopped<'a> {
        #[pin]
        wait: WaitForCancellationFuture<'a>,
    }
}

impl Future for WaitStopped<'_> {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.project().wait.poll(cx)
    }
}

impl fmt::Debug for WaitStopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitStopped")
    }
}

/// More was to be kept with a stream than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataTooLarge {
    pub(crate) bytes: usize,
}

impl fmt::Display for MetadataTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stream keeps at most {METADATA_BYTES} bytes of metadata; this would be {}", self.bytes)
    }
}

impl std::error::Error for MetadataTooLarge {}
