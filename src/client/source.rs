//! The event source, as its owner sees it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};

use super::{GaveUp, State, Update, machine::Machine};

/// A [`Stream`] of a stream's events that outlives its connections. See the [module](super) for an example.
///
/// Nothing is spawned: it makes its requests, waits and reads while it is polled. It yields [`Update`]s until the stream has
/// ended ([`Update::Ended`], the last item), or until it gives up ([`GaveUp`], an error and the last item).
///
/// # Cancel safety
///
/// An event source may be dropped at any time: a new one that is built with its [`last_event_id`](Self::last_event_id) gets
/// everything after the last event that this one yielded.
#[must_use = "an event source does nothing unless it is polled"]
pub struct EventSource(pub(super) Machine);

impl EventSource {
    /// The next update; `None` after the last one. The same as the [`Stream`]'s, without a trait to import.
    ///
    /// # Errors
    ///
    /// [`GaveUp`], once, where the source stops before the stream's end. `None` follows.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what it waited for goes on at the next poll, timers included.
    pub async fn next(&mut self) -> Option<Result<Update, GaveUp>> {
        poll_fn(|cx| self.0.poll_next(cx)).await
    }

    /// The id of the last event that was yielded, with which a later source goes on; empty if there is none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.0.last_event_id()
    }

    /// Where the source stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// How many attempts in a row have failed without an event.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.failures()
    }

    /// Closes the connection, and yields nothing more. The stream goes on without this reader: to end its work is to stop it.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// Tries again at once: cuts a wait short, as when the network is back, and begins anew after giving up, as when there is a
    /// new token. It does nothing while the source connects or reads, and after an end or a close.
    pub fn reconnect(&mut self) {
        self.0.reconnect();
    }
}

impl Stream for EventSource {
    type Item = Result<Update, GaveUp>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

impl FusedStream for EventSource {
    fn is_terminated(&self) -> bool {
        self.0.is_over()
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource")
            .field("state", &self.state())
            .field("last_event_id", &self.last_event_id())
            .field("attempts", &self.attempts())
            .finish_non_exhaustive()
    }
}
