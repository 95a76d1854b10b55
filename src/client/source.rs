//! The public type of the client.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};

use super::{GaveUp, State, Update, machine::Machine};

/// A reader of one event stream that reconnects by itself. See the [module](super) for an example.
///
/// An event source is a [`Stream`] of [`Update`]s. It sends requests, waits and reads only while it is polled, and
/// spawns no task. Its last item is [`Update::Ended`] once the stream has ended, or the error [`GaveUp`] if the source
/// gives up.
///
/// # Cancel safety
///
/// An event source may be dropped at any time. A new source that is built with its
/// [`last_event_id`](Self::last_event_id) yields everything after the last event that the dropped source yielded.
#[must_use = "an event source does nothing unless it is polled"]
pub struct EventSource(pub(super) Machine);

impl EventSource {
    /// Returns the next update, or `None` after the last one. It is the same as `StreamExt::next`, without a trait to
    /// import.
    ///
    /// # Errors
    ///
    /// [`GaveUp`], once, if the source stops before the end of the stream. `None` follows.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing. The request, the response and the timers go on at the next call.
    pub async fn next(&mut self) -> Option<Result<Update, GaveUp>> {
        poll_fn(|cx| self.0.poll_next(cx)).await
    }

    /// Returns the id of the last event that was yielded, or an empty string if there is none. Give it to
    /// [`last_event_id`](super::EventSourceBuilder::last_event_id) to go on after that event with a new source.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        self.0.last_event_id()
    }

    /// Returns the state of the source.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// Returns how many attempts in a row brought no event.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.failures()
    }

    /// Closes the connection. The source yields nothing more. The stream and its work go on without this reader; to end
    /// them, stop the stream.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// Tries again at once. Call it during a wait, for example when the network is back, or after the source gave up,
    /// for example when there is a new token. It does nothing while the source connects or reads, and nothing after an
    /// end or a close.
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
