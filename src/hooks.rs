//! What the host hangs on a stream's life: the `on_end` hook and the job probe.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    error::{BoxError, StoreError},
    event::Event,
    executor::Executor,
    id::StreamKey,
    panics::Guarded,
    recent::RecentCloses,
    store::{From, Read, StoreHandle, handle::BoxFuture},
    stream::{Ended, Metadata, RecordKind, StreamInfo},
    telemetry::Telemetry,
    wire::Framing,
};

/// What a job that produces a stream is doing, as far as the host can tell from anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// It runs: the stream is left alone, and asked after again at a later sweep.
    Running,
    /// It is done, and this is its terminal event.
    Completed(Event),
    /// It failed, and this is its terminal event.
    Failed(Event),
    /// Nobody knows.
    Unknown,
}

/// What became of an `on_end` hook: `()` is an acknowledgement, an error is not.
pub trait Acknowledge: Send + 'static {
    /// The error, if it is one.
    ///
    /// # Errors
    ///
    /// The hook is run again, here or on another node, until the recovery window is over.
    fn acknowledge(self) -> Result<(), BoxError>;
}

impl Acknowledge for () {
    fn acknowledge(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError> + Send + 'static> Acknowledge for Result<(), E> {
    fn acknowledge(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A stream that has ended, as the `on_end` hook gets it.
#[derive(Clone)]
pub struct EndedStream {
    info: StreamInfo,
    ended: Ended,
    store: StoreHandle,
    framing: Arc<dyn Framing>,
}

impl EndedStream {
    /// Whose and which.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.info.key
    }

    /// What it was for.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.info.kind
    }

    /// How it ended.
    #[must_use]
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// What the host kept with it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.info.metadata
    }

    /// The terminal event's data; `None` where the library supplied the ending.
    #[must_use]
    pub fn terminal_data(&self) -> Option<String> {
        let block = self.ended.ending.event.as_ref()?;
        Some(self.framing.view(block).data.into_owned())
    }

    /// The data of every event that the log still holds, oldest first, the terminal event left out.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Reading changes nothing.
    pub async fn events(&self) -> Result<Vec<String>, StoreError> {
        let mut from = From::Start;
        let mut events = Vec::new();
        loop {
            let read = Read { key: self.info.key.clone(), from, max_events: 1000, max_bytes: 1 << 20 };
            let Some(page) = self.store.read(read).await? else { return Ok(events) };
            for record in &page.records {
                from = From::After(record.id);
                if let RecordKind::Event(block) = &record.kind {
                    events.push(self.framing.view(block).data.into_owned());
                }
            }
            if !page.more {
                return Ok(events);
            }
        }
    }
}

impl fmt::Debug for EndedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedStream").field("info", &self.info).finish_non_exhaustive()
    }
}

pub(crate) type OnEnd = dyn Fn(EndedStream) -> BoxFuture<Result<(), BoxError>> + Send + Sync;
pub(crate) type Probe = dyn Fn(StreamInfo) -> BoxFuture<Result<JobStatus, BoxError>> + Send + Sync;

/// Runs the `on_end` hook, on the executor, and tells the store once it is acknowledged.
pub(crate) struct Hooks {
    pub(crate) on_end: Option<Box<OnEnd>>,
    pub(crate) executor: Executor,
    pub(crate) store: StoreHandle,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) lease: Duration,
    /// Told of hooks that were acknowledged: these are not to run again after a failover.
    pub(crate) recent: Arc<RecentCloses>,
}

impl Hooks {
    /// For how long a node that ends a stream has the hook to itself, where there is one.
    pub(crate) fn lease(&self) -> Option<Duration> {
        self.on_end.as_ref().map(|_| self.lease)
    }

    /// A stream has ended, and its hook is this node's to run.
    pub(crate) fn ended(self: &Arc<Self>, key: StreamKey) {
        if self.on_end.is_some() {
            let hooks = Arc::clone(self);
            self.executor.spawn(async move { hooks.run(key).await });
        }
    }

    async fn run(&self, key: StreamKey) {
        let Some(on_end) = &self.on_end else { return };
        // Should the store fail here, the hook stays due, and a sweep finds it.
        let Ok(Some(info)) = self.store.info(key.clone()).await else { return };
        let Some(ended) = info.ended.clone() else { return };
        let stream = EndedStream { info, ended, store: self.store.clone(), framing: Arc::clone(&self.framing) };
        match Guarded::new(run_hook(on_end, stream)).await {
            Ok(Ok(())) => {
                self.recent.hook_done(&key);
                let _ = self.store.hook_done(key).await;
            }
            Ok(Err(error)) => self.telemetry.host_failed("on_end", &error),
            Err(_) => self.telemetry.panicked("on_end"),
        }
    }
}

async fn run_hook(on_end: &OnEnd, stream: EndedStream) -> Result<(), BoxError> {
    on_end(stream).await
}

/// Boxes a host's `on_end` closure.
pub(crate) fn on_end<F, R>(hook: F) -> Box<OnEnd>
where
    F: Fn(EndedStream) -> R + Send + Sync + 'static,
    R: Future<Output: Acknowledge> + Send + 'static,
{
    Box::new(move |stream| {
        let hook = hook(stream);
        Box::pin(async move { hook.await.acknowledge() })
    })
}

/// What a probe's answer may be: the status itself, or a `Result` of it.
pub trait ProbeAnswer: Send + 'static {
    /// The status.
    ///
    /// # Errors
    ///
    /// The job's state could not be asked: it counts as running for three sweeps.
    fn status(self) -> Result<JobStatus, BoxError>;
}

impl ProbeAnswer for JobStatus {
    fn status(self) -> Result<JobStatus, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError> + Send + 'static> ProbeAnswer for Result<JobStatus, E> {
    fn status(self) -> Result<JobStatus, BoxError> {
        self.map_err(Into::into)
    }
}

/// Boxes a host's job probe.
pub(crate) fn probe<F, R>(probe: F) -> Arc<Probe>
where
    F: Fn(StreamInfo) -> R + Send + Sync + 'static,
    R: Future<Output: ProbeAnswer> + Send + 'static,
{
    Arc::new(move |stream| {
        let probe = probe(stream);
        Box::pin(async move { probe.await.status() })
    })
}

/// The block of an event, in the form in which the log keeps it.
pub(crate) fn block_of(framing: &dyn Framing, event: &Event) -> Option<Bytes> {
    framing.encode(event).ok()
}
