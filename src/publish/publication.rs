//! The producer of a stream that a background job publishes.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    model::{
        error::StoreError,
        event::Event,
        id::{EventId, StreamKey},
        metadata::MetadataTooLarge,
        stream::{Ended, Ending, StreamState, reason},
    },
    node::Node,
    recorder::{EndRequest, Inner, Lane, Producing, Status},
    wire::EncodeError,
};

/// The error of opening, sending to or ending a published stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// Another producer holds the stream.
    Conflict,
    /// The stream has ended.
    Ended(Box<Ended>),
    /// The event cannot be encoded.
    Encode(EncodeError),
    /// The event exceeds [`Builder::max_event_bytes`](crate::Builder::max_event_bytes).
    TooLarge {
        /// The event's size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream's metadata exceeds 4 KiB.
    MetadataTooLarge {
        /// The metadata's size, in bytes.
        bytes: usize,
    },
    /// This process is shutting down: publish from another node.
    Draining,
    /// The store does not answer.
    Store(StoreError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("another producer holds the stream"),
            Self::Ended(ended) => write!(f, "the stream has ended as {}", ended.ending.state),
            Self::Encode(error) => write!(f, "the event cannot be encoded: {error}"),
            Self::TooLarge { bytes, limit } => write!(f, "the event has {bytes} bytes; it may have {limit}"),
            Self::MetadataTooLarge { bytes } => write!(f, "a stream keeps 4096 bytes of metadata; this is {bytes}"),
            Self::Draining => f.write_str("this process is shutting down"),
            Self::Store(_) => f.write_str("the store did not take it"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode(error) => error.source(),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Encodes an event as a block, and checks its size.
pub(super) fn encode(node: &Node, event: &Event) -> Result<Bytes, PublishError> {
    let block = node.framing.encode(event).map_err(PublishError::Encode)?;
    let (bytes, limit) = (block.len(), node.settings.max_event_bytes);
    if bytes > limit { Err(PublishError::TooLarge { bytes, limit }) } else { Ok(block) }
}

/// The producer of a published stream: see [`Publisher::open`](super::Publisher::open).
///
/// A publication that is dropped before it ends its stream closes the stream as `failed`, reason `dropped`.
///
/// ```
/// use resilient_sse::{Event, PublishError, ResilientSse, StreamSpec};
///
/// async fn export(sse: &ResilientSse, spec: StreamSpec) -> Result<(), PublishError> {
///     let mut publication = sse.publisher().open(spec).await?;
///     publication.send(Event::new("half of it is done")).await?;
///     publication.complete(Event::new("all of it is done").named("completed")).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Publication(Arc<Job>);

/// A publication, shared with the tasks that wait for its end.
#[derive(Debug)]
struct Job {
    node: Arc<Node>,
    lane: Arc<Lane>,
    stop: CancellationToken,
    /// Held by the task that waits for the end to be stored. The lane wakes only one task, so others queue here.
    ending: tokio::sync::Mutex<()>,
}

impl Producing for Job {
    fn halted(self: Arc<Self>) {
        self.stop.cancel();
    }

    fn release(self: Arc<Self>) {}

    fn discard(self: Arc<Self>) {
        self.stop.cancel();
    }
}

impl Job {
    /// Returns an error if the stream has ended or has another producer.
    fn check(&self) -> Result<(), PublishError> {
        match self.lane.status() {
            Status::Running => self.lane.own_end().map_or(Ok(()), |ended| Err(PublishError::Ended(Box::new(ended)))),
            Status::Ended(ended) => Err(PublishError::Ended(ended)),
            Status::Superseded => Err(PublishError::Conflict),
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.waker.register(cx.waker());
        let room = self.lane.room_ahead() > 0 || self.lane.is_halted() || self.node.store.is_broken(&self.lane.key);
        if room { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.waker.register(cx.waker());
        if self.lane.is_halted() { Poll::Ready(()) } else { Poll::Pending }
    }

    async fn end(self: Arc<Self>, state: StreamState, event: Event) -> Result<Ended, PublishError> {
        let block = encode(&self.node, &event)?;
        if !self.lane.is_ending() {
            self.check()?;
            self.lane.end(&self.node.recorder, EndRequest::close(Ending::with_event(state, block)));
        }
        let settled = async {
            let _turn = self.ending.lock().await;
            poll_fn(|cx| self.poll_settled(cx)).await;
        };
        let limit = self.node.settings.terminal_limit;
        if tokio::time::timeout(limit, settled).await.is_err() {
            return Err(PublishError::Store(StoreError::timed_out("close")));
        }
        match self.lane.status() {
            Status::Ended(ended) => Ok(*ended),
            Status::Running | Status::Superseded => Err(PublishError::Conflict),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let dropped = EndRequest::supplied(StreamState::Failed, reason::DROPPED);
        // The first end counts: after `complete` this has no effect.
        self.lane.end(&self.node.recorder, dropped);
    }
}

impl Publication {
    pub(super) fn new(node: Arc<Node>, lane: Arc<Lane>) -> Self {
        let (stop, ending) = (CancellationToken::new(), tokio::sync::Mutex::default());
        let job = Arc::new(Job { node, lane, stop, ending });
        let producing: Arc<dyn Producing> = job.clone();
        job.lane.set_producer(Arc::downgrade(&producing));
        Self(job)
    }

    /// Returns the stream's owner and id.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.0.lane.key
    }

    /// Publishes an event, and returns its id.
    ///
    /// It waits only while the store is more than 1,024 events or 256 KiB behind, and for at most
    /// [`Builder::store_limit`](crate::Builder::store_limit) (500 ms).
    ///
    /// # Errors
    ///
    /// [`PublishError::Ended`] if the stream has ended, [`PublishError::Conflict`] if another producer has taken it
    /// over, [`PublishError::Encode`] or [`PublishError::TooLarge`] if the event cannot be published.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, the event is published all the same: the recorder has it already.
    pub async fn send(&mut self, event: Event) -> Result<EventId, PublishError> {
        let job = &*self.0;
        let block = encode(&job.node, &event)?;
        job.check()?;
        let inner_id = event.id().map(str::to_owned);
        let id = EventId::new(job.lane.epoch, job.lane.next());
        let frame = job.lane.writer().one(&*job.node.framing, &block, event.id().is_some(), id);
        job.lane.push(&job.node.recorder, frame, Inner { id: inner_id, retry: None });
        let room = poll_fn(|cx| job.poll_room(cx));
        if tokio::time::timeout(job.node.settings.store_limit, room).await.is_err() {
            // This does not open the breaker: if the guardian is late, the store may not have been asked at all.
            job.lane.pass_by();
        }
        Ok(id)
    }

    /// Ends the stream as `completed`, with its terminal event, and returns the stream's end. If this publication has
    /// ended the stream before, that first end is returned.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send). After [`PublishError::Encode`] and [`PublishError::TooLarge`] the stream is
    /// still open, and can be ended with another event. [`PublishError::Store`] if the store has not acknowledged the
    /// end within 2 s. The recorder then keeps trying to store the end.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, the stream ends all the same. If it is dropped before its first poll,
    /// nothing has happened.
    pub fn complete(&self, event: Event) -> impl Future<Output = Result<Ended, PublishError>> + Send + use<> {
        Arc::clone(&self.0).end(StreamState::Completed, event)
    }

    /// Ends the stream as `failed`, with its terminal event, and returns the stream's end. If this publication has
    /// ended the stream before, that first end is returned.
    ///
    /// # Errors
    ///
    /// The errors of [`complete`](Self::complete).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, the stream ends all the same. If it is dropped before its first poll,
    /// nothing has happened.
    pub fn fail(&self, event: Event) -> impl Future<Output = Result<Ended, PublishError>> + Send + use<> {
        Arc::clone(&self.0).end(StreamState::Failed, event)
    }

    /// Keeps a key and a value with the stream, such as the job's id, for the job probe. A value that the key had
    /// before is replaced.
    ///
    /// # Errors
    ///
    /// [`MetadataTooLarge`] if the stream would keep more than 4 KiB of keys and values. The earlier metadata stays.
    pub fn metadata(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), MetadataTooLarge> {
        let kept = self.0.lane.keep(&self.0.node.recorder, key.into(), value.into());
        kept.map_err(|bytes| MetadataTooLarge { bytes })
    }

    /// Returns a future that completes when the work should stop: the stream was stopped or ended elsewhere, or a drain
    /// of the process ends it.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. A later call completes at once if the work should stop.
    pub fn stopped(&self) -> Stopped<'_> {
        Stopped { wait: self.0.stop.cancelled() }
    }
}

pin_project_lite::pin_project! {
    /// Completes when a publication's work should stop: see [`Publication::stopped`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Stopped<'a> {
        #[pin]
        wait: WaitForCancellationFuture<'a>,
    }
}

impl Future for Stopped<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().wait.poll(cx)
    }
}

impl fmt::Debug for Stopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped")
    }
}
