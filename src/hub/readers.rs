//! Who reads a stream, and how a reader on another node announces itself.

use std::{future::poll_fn, task::Poll, time::Duration};

use super::Core;
use crate::{id::StreamKey, kept::KeptHeaders, recorder::Lane};

/// How long a follower waits for the headers of a response that has not begun.
const HEADERS_WAIT: Duration = Duration::from_secs(2);

/// What a follower's response begins with, besides what its route says.
#[derive(Debug, Default)]
pub(crate) struct Introduced {
    /// The reconnect delay that the inner service set, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// The headers that are kept of the stream's response.
    pub(crate) headers: KeptHeaders,
}

impl Core {
    /// Whether anybody reads the stream of this lane: on this node, its client included, or on another.
    pub(crate) fn is_read(&self, lane: &Lane) -> bool {
        lane.readers.any() || self.is_read_elsewhere(lane)
    }

    /// Whether anybody reads the stream of this lane on another node, as far as is known here. While the stream's part of the
    /// store does not answer nobody can say so: whoever read before counts as a reader still.
    pub(crate) fn is_read_elsewhere(&self, lane: &Lane) -> bool {
        let follows = self.store.is_followed_beside(&lane.key, lane.readers.followers());
        lane.is_read_elsewhere(follows, !follows && self.store.is_mute(&lane.key))
    }

    /// Tells the node that produces a stream that it is read here.
    pub(crate) async fn announce(&self, key: &StreamKey) {
        // Nodes of an immediate store are one process, and a stream of this node counts its followers itself.
        if self.store.is_immediate() || self.recorder.lane(key).is_some() {
            return;
        }
        // Best effort: without it the producing node learns of the reader within the store's own time.
        let _ = self.store.announce(key.clone()).await;
    }

    /// The same, and asks what a follower's response begins with: both in the time of one request. `with_headers`: those that the
    /// stream's route keeps are waited for, up to 2 s.
    pub(crate) async fn announce_and_ask(&self, key: &StreamKey, with_headers: bool) -> Introduced {
        let introduced = self.announce_and_ask_once(key).await;
        if with_headers && introduced.headers == KeptHeaders::Awaited {
            let headers = self.await_headers(key).await;
            return Introduced { headers, ..introduced };
        }
        introduced
    }

    /// The headers that are kept of a stream's response, once its producer has answered; waits for that up to 2 s.
    pub(crate) async fn await_headers(&self, key: &StreamKey) -> KeptHeaders {
        let waits = async {
            let mut tail = self.store.tail(key);
            loop {
                let headers = match self.recorder.lane(key) {
                    Some(lane) => lane.headers().clone(),
                    None => {
                        self.store.info(key.clone()).await.ok().flatten().map(|info| info.headers).unwrap_or_default()
                    }
                };
                if headers != KeptHeaders::Awaited {
                    return headers;
                }
                poll_fn(|cx| tail.poll_changed(cx)).await;
            }
        };
        tokio::time::timeout(HEADERS_WAIT, waits).await.unwrap_or_default()
    }

    async fn announce_and_ask_once(&self, key: &StreamKey) -> Introduced {
        if let Some(lane) = self.recorder.lane(key) {
            return Introduced { retry: lane.inner_retry(), headers: lane.headers().clone() };
        }
        let mut announced = Box::pin(self.announce(key));
        let mut asked = Box::pin(self.store.info(key.clone()));
        let (mut is_announced, mut info) = (false, None);
        poll_fn(|cx| {
            is_announced = is_announced || announced.as_mut().poll(cx).is_ready();
            if info.is_none()
                && let Poll::Ready(answer) = asked.as_mut().poll(cx)
            {
                info = Some(answer);
            }
            if is_announced && info.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let info = info.and_then(Result::ok).flatten();
        info.map_or_else(Introduced::default, |info| Introduced { retry: info.inner_retry, headers: info.headers })
    }
}
