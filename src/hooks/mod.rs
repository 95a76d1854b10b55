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

/// The state of a job that produces a stream, as the host knows it on any node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStatus {
    /// It runs: the stream is left as it is, and a later sweep asks again.
    Running,
    /// It is done, and this is its terminal event.
    Completed(Event),
    /// It failed, and this is its terminal event.
    Failed(Event),
    /// Nobody knows.
    Unknown,
}

/// The result of an `on_end` hook: `()` and `Ok` acknowledge the end, an error does not.
#[diagnostic::on_unimplemented(
    message = "an `on_end` hook cannot return `{Self}`",
    label = "expected `()` or a `Result<(), E>`",
    note = "`Ok(())` and `()` acknowledge the end; an error has the hook run again"
)]
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

/// The answer of a probe: the status itself, or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "a job probe cannot return `{Self}`",
    label = "expected a `JobStatus` or a `Result<JobStatus, E>`",
    note = "an error counts as `JobStatus::Running`, for three sweeps"
)]
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
