//! The word that a stream's work is to stop.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Tells a stream's work to stop. It is shared by the handler's [`StreamContext`](crate::layer::context::StreamContext) and whoever
/// drives the inner body, and apart from the rest of the context, which so goes with the handler.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<OnceLock<CancellationToken>>);

impl Stop {
    /// The token, made when it is first asked for: most handlers leave it to the library to drop their body, and never wait.
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
