//! The signal that tells a stream's work to stop.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// The signal that tells a stream's work to stop.
///
/// The handler's [`StreamContext`](crate::layer::context::StreamContext) and the driver of the inner body share it. It
/// is apart from the context, so that the context's memory is freed with the handler.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<OnceLock<CancellationToken>>);

impl Stop {
    /// Returns the token. It is made on the first call, since most handlers rely on their body being dropped and never
    /// wait.
    pub(crate) fn token(&self) -> &CancellationToken {
        self.0.get_or_init(CancellationToken::new)
    }

    pub(crate) fn stop(&self) {
        self.token().cancel();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.get().is_some_and(CancellationToken::is_cancelled)
    }
}
