//! The errors of response bodies and of stores. The errors of names and settings are defined beside those types.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::model::stream::{Reason, StreamState};

/// An error of any type that several waiters of one operation share.
pub(crate) type SharedError = Arc<dyn Error + Send + Sync>;

/// An error of any type from the host's code.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error of a response body that breaks off before its stream's terminal event (guarantee G12).
///
/// HTTP/1.1 and HTTP/2 clients see a broken response, so that they do not take the end of the body for the end of the
/// answer. An `EventSource` reconnects.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// The inner body of a response that the layer passes through unchanged failed.
    Inner(BoxError),
    /// The client cannot be served now and should reconnect.
    ComeAgain,
    /// The process is shutting down. The client should reconnect, to another node.
    Draining,
    /// Another producer has taken the stream over. A client that reconnects follows the new producer.
    Superseded,
    /// The stream has no producer now. The next request may start a new run.
    Interrupted,
    /// Events are lost, and the route's voice has no message for a gap.
    Gap,
    /// A new run began, and the route's voice has no message for a restart.
    Restart,
    /// The store no longer holds the stream.
    Gone,
    /// No producer opened the stream within the time that a relay waits.
    NotOpened {
        /// How long the relay waited.
        waited: Duration,
    },
    /// The stream ended without a terminal event of its own, and the route's voice has no message for this ending.
    Ended {
        /// The state in which the stream ended.
        state: StreamState,
        /// The reason for the ending, if it is known.
        reason: Option<Reason>,
        /// The error of the inner body, if that caused the ending.
        source: Option<BoxError>,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(_) => f.write_str("the inner body failed"),
            Self::ComeAgain => f.write_str("the stream cannot be served now: reconnect"),
            Self::Draining => f.write_str("this process is shutting down: reconnect"),
            Self::Superseded => f.write_str("another producer has taken the stream over: reconnect"),
            Self::Interrupted => f.write_str("the stream was interrupted: reconnect"),
            Self::Gap => f.write_str("events of the stream are lost"),
            Self::Restart => f.write_str("the stream was started over"),
            Self::Gone => f.write_str("the stream is not held any more"),
            Self::NotOpened { waited } => write!(f, "nobody opened the stream within {waited:?}"),
            Self::Ended { state, reason: None, .. } => write!(f, "the stream has ended as {state}"),
            Self::Ended { state, reason: Some(reason), .. } => write!(f, "the stream has ended as {state}: {reason}"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inner(source) | Self::Ended { source: Some(source), .. } => Some(&**source),
            _ => None,
        }
    }
}

/// The error of a store operation: the store failed, did not answer in time, or was not asked.
#[derive(Clone, Debug)]
pub struct StoreError {
    operation: &'static str,
    cause: Cause,
}

#[derive(Clone, Debug)]
enum Cause {
    TimedOut,
    BreakerOpen,
    Failed(SharedError),
}

impl StoreError {
    pub(crate) fn timed_out(operation: &'static str) -> Self {
        Self { operation, cause: Cause::TimedOut }
    }

    pub(crate) fn breaker_open(operation: &'static str) -> Self {
        Self { operation, cause: Cause::BreakerOpen }
    }

    pub(crate) fn failed(operation: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self { operation, cause: Cause::Failed(Arc::new(source)) }
    }

    /// Whether the store did not answer within its time limit.
    ///
    /// The store may have carried out the operation all the same.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::TimedOut)
    }

    /// Whether the store was not asked, because the breaker is open.
    #[must_use]
    pub fn is_breaker_open(&self) -> bool {
        matches!(self.cause, Cause::BreakerOpen)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, cause } = self;
        match cause {
            Cause::TimedOut => write!(f, "the store did not answer `{operation}` in time"),
            Cause::BreakerOpen => {
                write!(f, "the store was not asked to `{operation}`: it failed before and is given time")
            }
            Cause::Failed(_) => write!(f, "the store failed to `{operation}`"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::TimedOut | Cause::BreakerOpen => None,
            Cause::Failed(source) => Some(source.as_ref()),
        }
    }
}
