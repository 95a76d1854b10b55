//! Streams that background jobs make, and the relay that lets clients follow them.

mod publication;
mod relay;

use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};
pub use publication::{Publication, PublishError, Stopped};
pub use relay::Relay;

use crate::{
    model::{
        event::Event,
        id::{EventId, Owner, StreamId, StreamKey},
        kept::KeptHeaders,
        metadata::{Metadata, keep},
        stream::{Origin, StreamState},
        voice::Voice,
    },
    node::Node,
    recorder::Lane,
    route::classify::{Classify, Ends, Outcome},
    store::{Open, Opened, Publish, Published},
};

/// What delivering writes around an event, at most.
const AROUND: usize = 16;

/// A stream to be published.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    key: StreamKey,
    kind: Cow<'static, str>,
    metadata: Metadata,
    voice: Voice,
}

impl StreamSpec {
    /// This owner's stream of this name; kind `job`.
    #[must_use]
    pub fn new(owner: Owner, id: StreamId) -> Self {
        Self {
            key: StreamKey::new(owner, id),
            kind: Cow::Borrowed("job"),
            metadata: Metadata::new(),
            voice: Voice::default(),
        }
    }

    /// How the library itself speaks to those who read the stream, unless a relay is told otherwise. Default:
    /// [`Voice::Named`], also for streams that [`Publisher::send`] opens.
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }

    /// What the stream is for.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Keeps something with the stream, such as the job's id, for the job probe; up to 4 KiB in all.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }
}

/// Publishes streams: see [`ResilientSse::publisher`](crate::ResilientSse::publisher).
///
/// ```
/// # use resilient_sse::{Event, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
/// # tokio::spawn(guardian);
/// let spec = StreamSpec::new(Owner::new("ada")?, StreamId::new("export-7")?).kind("export");
/// let mut export = sse.publisher().open(spec).await?;
/// export.send(Event::new("half done")).await?;
/// export.complete(Event::new("done").named("completed")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Node>);

impl Publisher {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Registers a stream, whose producer the returned publication is: the guardian of this process
    /// keeps it alive. A job that has ended, as `expired` too, is not opened again under the same id.
    ///
    /// # Errors
    ///
    /// [`PublishError::Conflict`] if another producer runs, [`PublishError::Ended`] if the stream has
    /// ended, [`PublishError::Store`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, or unanswered, the registration is withdrawn. Should that fail too, nobody beats the
    /// stream, so it is closed as `orphaned` after the stale threshold.
    pub async fn open(&self, spec: StreamSpec) -> Result<Publication, PublishError> {
        let mut metadata = Metadata::new();
        for (key, value) in spec.metadata {
            keep(&mut metadata, key, value).map_err(|bytes| PublishError::MetadataTooLarge { bytes })?;
        }
        let node = &self.0;
        node.check_guarded();
        if node.is_draining() {
            return Err(PublishError::Draining);
        }
        let retention = Arc::new(node.settings.retention());
        let open = Open {
            key: spec.key,
            kind: spec.kind,
            origin: Origin::Published,
            node: node.name.clone(),
            token: node.random.u128(),
            create: true,
            reruns: false,
            // Said by the lane once the publication is there: until then a registration can be taken back.
            started: false,
            fingerprint: None,
            limit: None,
            metadata,
            voice: spec.voice,
            turn: None,
            headers: KeptHeaders::None,
            retention: *retention,
        };
        let (mut opening, opened) = node.recorder.open(open.clone()).await;
        match opened? {
            // The registration is withdrawn: a stream that begins now would be cut short.
            Opened::New { .. } if node.is_draining() => Err(PublishError::Draining),
            Opened::New { epoch, .. } => {
                let lane = Lane::new(open, &retention, epoch, node.hooks.lease_within(node.settings.recovery_window));
                node.recorder.enter(&lane);
                opening.keep();
                lane.start();
                node.recorder.ready(&lane);
                Ok(Publication::new(Arc::clone(node), lane))
            }
            Opened::Ended(ended) => Err(PublishError::Ended(Box::new(ended))),
            Opened::Active { .. }
            | Opened::Missing
            | Opened::OverLimit
            | Opened::OtherFingerprint
            | Opened::OtherKind { .. } => Err(PublishError::Conflict),
        }
    }

    /// Publishes one event, from anywhere, without a standing producer: the store gives it the next
    /// id. The first one opens the stream, of kind `job`; each renews its lifetime (1 h). A stream that nothing was sent to
    /// for so long has ended as `expired`; the next event begins a new run of it.
    ///
    /// # Errors
    ///
    /// [`PublishError::Conflict`] if the stream has a standing producer, [`PublishError::Ended`] if it
    /// has ended, [`PublishError::Encode`] if the event cannot be encoded, [`PublishError::TooLarge`]
    /// if it is larger than an event may be, [`PublishError::Store`] if the store does not answer: the
    /// event may be published all the same, so repeat it [with a key](Self::send_once).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the event is published or not.
    pub async fn send(&self, owner: &Owner, id: &StreamId, event: Event) -> Result<EventId, PublishError> {
        self.publish(owner, id, &event, None, None).await
    }

    /// The same, at most once for each `idempotency_key` among the stream's newest 1024: a repeat
    /// answers with the first one's id.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the event is published or not: repeat it with the same key.
    pub async fn send_once(
        &self,
        owner: &Owner,
        id: &StreamId,
        event: Event,
        idempotency_key: impl Into<String>,
    ) -> Result<EventId, PublishError> {
        self.publish(owner, id, &event, None, Some(idempotency_key.into())).await
    }

    /// Publishes a terminal event, which ends the stream: as `failed` if its name or its payload's
    /// `type` is `failed`, else as `completed`.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the stream has ended or not.
    pub async fn end(&self, owner: &Owner, id: &StreamId, event: Event) -> Result<EventId, PublishError> {
        let block = publication::encode(&self.0, &event)?;
        let outcome = Ends::default().classify(&self.0.framing.view(&block));
        let state = outcome.map_or(StreamState::Completed, Outcome::state);
        self.publish(owner, id, &event, Some(state), None).await
    }

    async fn publish(
        &self,
        owner: &Owner,
        id: &StreamId,
        event: &Event,
        ends: Option<StreamState>,
        idempotency_key: Option<String>,
    ) -> Result<EventId, PublishError> {
        let node = &self.0;
        let key = StreamKey::new(owner.clone(), id.clone());
        let mut block = publication::encode(node, event)?;
        let mut after_id = Bytes::new();
        if ends.is_none() {
            let mut out = BytesMut::with_capacity(block.len() + AROUND);
            after_id = Bytes::from_static(node.framing.deliver_around(&block, event.id().is_some(), &mut out));
            block = out.freeze();
        }
        let publish = Publish {
            key: key.clone(),
            kind: Cow::Borrowed("job"),
            block,
            after_id,
            ends,
            idempotency_key,
            hook: node.hooks.lease(),
            retention: node.settings.retention(),
        };
        match node.store.publish(publish).await? {
            Published::Stored(id) => {
                crate::telemetry::add(&node.telemetry.recorded, 1);
                Ok(id)
            }
            Published::Ended(ended) => {
                node.telemetry.closed(ended.ending.state);
                node.hooks.ended(key);
                Ok(ended.id)
            }
            Published::Conflict => Err(PublishError::Conflict),
            Published::EndedBefore(ended) => Err(PublishError::Ended(Box::new(ended))),
        }
    }
}
