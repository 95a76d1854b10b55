//! A place in the indexes for a stream that is about to be registered.

use tokio::sync::oneshot;

use super::{background::Settling, indexes::Indexed};

/// What a request did for which a place in the indexes was reserved.
pub(super) enum Outcome {
    /// It registered the stream.
    Registered,
    /// It ended the stream.
    Ended(Indexed),
    /// Nothing: another producer runs the stream.
    Active,
    /// Nothing that the reservation is needed for.
    Nothing,
}

/// A place in the indexes for a stream that is about to be registered. If this is dropped without [`settle`](Self::settle), the
/// place stays until a guardian removes it: the stream may have been registered all the same.
pub(super) struct Reservation(pub(super) Option<(oneshot::Sender<Outcome>, Settling)>);

impl Reservation {
    /// Reports what the request did, and waits briefly until the indexes are right.
    pub(super) async fn settle(self, outcome: Outcome) {
        if let Some((report, settling)) = self.0 {
            let _ = report.send(outcome);
            settling.wait().await;
        }
    }
}
