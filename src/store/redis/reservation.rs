//! A place in the indexes for a stream that is about to be registered.

use tokio::sync::oneshot;

use super::{background::Settling, indexes::Indexed};

/// What came of a request that had a place in the indexes reserved for it.
pub(super) enum Came {
    /// The stream is active, and the caller's.
    Registered,
    /// The stream has ended by the request.
    Ended(Indexed),
    /// The stream is active, and somebody else's.
    Active,
    /// Nothing that the reservation was made for.
    Nothing,
}

/// A place in the indexes for a stream that is about to be registered. Dropped without a word, it stays until a guardian's
/// look: the stream may be registered yet.
pub(super) struct Reservation(pub(super) Option<(oneshot::Sender<Came>, Settling)>);

impl Reservation {
    /// Says what came of the request, and waits for a moment until the indexes are as they have to be.
    pub(super) async fn settle(self, came: Came) {
        if let Some((tell, settling)) = self.0 {
            let _ = tell.send(came);
            settling.wait().await;
        }
    }
}
