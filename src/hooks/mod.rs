//! The host's hooks on a stream's life: `on_end` and the job probe.

mod ended;
mod queue;
pub(crate) mod recent;
mod run;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
pub use ended::EndedStream;
pub(crate) use run::Hooks;

use crate::{
    model::{error::BoxError, event::Event, stream::StreamInfo},
    runtime::executor::BoxFuture,
    wire::Framing,
};

/// The state of the job that produces a stream, which the host can look up from any node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStatus {
    /// The job is running. The stream stays active, and a later sweep asks again: see
    /// [`Builder::job_probe`](crate::Builder::job_probe).
    Running,
    /// The job is done, with this terminal event.
    Completed(Event),
    /// The job failed, with this terminal event.
    Failed(Event),
    /// The host does not know the job's state. A sweep closes the stream as `orphaned`, or interrupts it if it may be
    /// run again. A drain closes it as `failed`.
    Unknown,
}

/// The result of an `on_end` hook. `()` and `Ok` acknowledge the end, an error does not.
#[diagnostic::on_unimplemented(
    message = "an `on_end` hook cannot return `{Self}`",
    label = "expected `()` or a `Result<(), E>`",
    note = "`Ok(())` and `()` acknowledge the end; an error has the hook run again"
)]
pub trait Acknowledge: Send + 'static {
    /// Returns whether the hook acknowledged the end.
    ///
    /// # Errors
    ///
    /// The hook's error. The hook then runs again, on this node or another one, until the recovery window is over.
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

pub(crate) type OnEnd = dyn Fn(EndedStream) -> BoxFuture<Result<(), BoxError>> + Send + Sync;
pub(crate) type Probe = dyn Fn(StreamInfo) -> BoxFuture<Result<JobStatus, BoxError>> + Send + Sync;

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

/// The answer of a job probe: a [`JobStatus`], or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "a job probe cannot return `{Self}`",
    label = "expected a `JobStatus` or a `Result<JobStatus, E>`",
    note = "an error counts as `JobStatus::Running`, for three sweeps"
)]
pub trait ProbeAnswer: Send + 'static {
    /// Returns the status of the job.
    ///
    /// # Errors
    ///
    /// The error that kept the probe from finding the job's state. The job then counts as running, for three sweeps.
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

/// Returns the block of an event; `None` if the event cannot be encoded.
pub(crate) fn block_of(framing: &dyn Framing, event: &Event) -> Option<Bytes> {
    framing.encode(event).ok()
}
