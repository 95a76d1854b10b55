//! Streams that background jobs publish, and the relay through which clients follow them.

mod publication;
mod relay;

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
pub use publication::{Publication, PublishError, Stopped};
pub use relay::Relay;

use crate::{
    model::{
        config::bounded,
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
    store::{Open, Opened, Publish, Published, Retention},
};

/// How many bytes delivery writes around an event at most.
const AROUND: usize = 16;

/// The description of a stream to publish: its owner, id, kind, metadata and voice.
///
/// ```
/// use resilient_sse::{Owner, StreamId, StreamSpec};
///
/// let spec = StreamSpec::new(Owner::new("ann")?, StreamId::new("export-7")?).kind("export").metadata("job", "7");
/// # let _ = spec;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StreamSpec {
    key: StreamKey,
    kind: Cow<'static, str>,
    metadata: Metadata,
    voice: Voice,
}

impl StreamSpec {
    /// Describes this owner's stream of this name, with kind `job`.
    #[must_use]
    pub fn new(owner: Owner, id: StreamId) -> Self {
        Self {
            key: StreamKey::new(owner, id),
            kind: Cow::Borrowed("job"),
            metadata: Metadata::new(),
            voice: Voice::default(),
        }
    }

    /// Sets the form of the library's own events in the stream. A relay may set another ([`Relay::voice`]). Default:
    /// [`Voice::Named`], also for streams that [`Publisher::send`] opens.
    #[must_use]
    pub fn voice(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }

    /// Sets the stream's kind: what it is for, such as `export`. Default: `job`.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Keeps a key and a value with the stream, such as the job's id, for the job probe. A stream keeps up to 4 KiB of
    /// keys and values.
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
pub struct Publisher {
    node: Arc<Node>,
    lifetime: Duration,
}

impl Publisher {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let lifetime = node.settings.lifetime;
        Self { node, lifetime }
    }

    /// Sets how long this publisher's streams live after their last event or their producer's last beat. The shortest,
    /// and the default, is [`Builder::lifetime`](crate::Builder::lifetime), 1 h. If publishers with different lifetimes
    /// send to a stream, the longest counts.
    ///
    /// Set it for [`send`](Self::send) where hours may pass between two events, as in a user's notifications: a stream
    /// that expires ends for its readers, and their clients do not reconnect.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use resilient_sse::{Event, MemoryStore, Owner, ResilientSse, StreamId};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
    /// # tokio::spawn(guardian);
    /// let notices = sse.publisher().lifetime(Duration::from_secs(30 * 86_400));
    /// notices.send(&Owner::new("ada")?, &StreamId::new("notices")?, Event::new("The report is ready.")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lifetime(self, lifetime: Duration) -> Self {
        let lifetime = bounded(lifetime).max(self.node.settings.lifetime);
        Self { lifetime, ..self }
    }

    fn retention(&self) -> Retention {
        Retention { lifetime: self.lifetime, ..self.node.settings.retention() }
    }

    /// Registers a stream, and returns its producer. The guardian of this process beats for the stream while the
    /// publication lives.
    ///
    /// Open it in the request that starts the job, before you answer that request, and move the publication into the job's
    /// task. Then the stream exists as soon as a client asks for it, a repeated request learns of the conflict, and a
    /// shutdown knows of a job that has not begun yet.
    ///
    /// A stream that has ended, even as `expired`, cannot be opened again under the same id. As long as a job probe answers
    /// [`Running`](crate::JobStatus::Running) for a stream, the answer is `Conflict`, also after its node has died: a job that begins
    /// anew opens another id.
    ///
    /// # Errors
    ///
    /// [`PublishError::Conflict`] if another producer runs, [`PublishError::Ended`] if the stream has ended,
    /// [`PublishError::MetadataTooLarge`] if the metadata exceeds 4 KiB, [`PublishError::Draining`] if this process
    /// shuts down, [`PublishError::Store`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, or the store does not answer, the registration is withdrawn. If the withdrawal fails
    /// too, no node beats for the stream, and it is closed as `orphaned` after the stale threshold.
    pub async fn open(&self, spec: StreamSpec) -> Result<Publication, PublishError> {
        let mut metadata = Metadata::new();
        for (key, value) in spec.metadata {
            keep(&mut metadata, key, value).map_err(|bytes| PublishError::MetadataTooLarge { bytes })?;
        }
        let node = &self.node;
        node.check_guarded();
        if node.is_draining() {
            return Err(PublishError::Draining);
        }
        let retention = Arc::new(self.retention());
        let open = Open {
            key: spec.key,
            kind: spec.kind,
            origin: Origin::Published,
            node: node.name.clone(),
            token: node.random.u128(),
            create: true,
            reruns: false,
            // The lane reports the start once the publication exists. Until then the registration can be withdrawn.
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
            // Dropping `opening` withdraws the registration: the drain would cut a stream that begins now.
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

    /// Publishes one event without a standing producer, from any process, and returns the id that the store gives it.
    ///
    /// The first event opens the stream, with kind `job`. Each event renews the stream's [`lifetime`](Self::lifetime). A
    /// stream that gets no event for that long ends as `expired`. The next event begins a new run of it, but a client
    /// that has seen the end does not reconnect.
    ///
    /// An event of any name or payload is an ordinary event here: only [`end`](Self::end) ends the stream. The data must
    /// not hold a carriage return, which a client would read as a line feed. So replace `\r\n` in text from a form.
    ///
    /// # Errors
    ///
    /// [`PublishError::Conflict`] if the stream has a standing producer, [`PublishError::Ended`] if it has ended,
    /// [`PublishError::Encode`] if the event cannot be encoded, [`PublishError::TooLarge`] if the event exceeds the
    /// limit for events, [`PublishError::Store`] if the store does not answer. In the last case the event may be
    /// published all the same, so use [`send_once`](Self::send_once) where you repeat events.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be published.
    pub async fn send(&self, owner: &Owner, id: &StreamId, event: Event) -> Result<EventId, PublishError> {
        self.publish(owner, id, &event, None, None).await
    }

    /// Publishes one event like [`send`](Self::send), at most once for each `idempotency_key`. A repeat returns the id
    /// of the first event with this key. A stream remembers its newest 1024 keys.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may or may not be published: repeat it with the same key.
    pub async fn send_once(
        &self,
        owner: &Owner,
        id: &StreamId,
        event: Event,
        idempotency_key: impl Into<String>,
    ) -> Result<EventId, PublishError> {
        self.publish(owner, id, &event, None, Some(idempotency_key.into())).await
    }

    /// Publishes a terminal event, which ends the stream. The stream is `failed` if the event's name or its payload's
    /// `type` is `failed`, and `completed` otherwise.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream may or may not have ended.
    pub async fn end(&self, owner: &Owner, id: &StreamId, event: Event) -> Result<EventId, PublishError> {
        let block = publication::encode(&self.node, &event)?;
        let outcome = Ends::default().classify(&self.node.framing.view(&block));
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
        let node = &self.node;
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
            retention: self.retention(),
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
