//! Stops a stream, on whatever node it runs.

use std::sync::Arc;

use super::Node;
use crate::{
    model::{
        error::StoreError,
        id::StreamKey,
        stream::{Ended, Ending, Reason, StreamState},
    },
    recorder::{EndRequest, Lane, Status},
    store::{Close, Closed},
};

/// The outcome of stopping a stream.
pub(crate) enum Stopped {
    /// This stop has ended the stream.
    Now(Ended),
    /// The stream had ended before.
    Before(Ended),
    /// There is no such stream.
    Missing,
}

impl Node {
    /// Stops a stream, on whatever node it runs: see [`Streams::stop`](crate::Streams::stop).
    pub(crate) async fn stop(&self, key: &StreamKey, reason: Reason) -> Result<Stopped, StoreError> {
        if let Some(lane) = self.recorder.lane(key)
            && let Some(stopped) = self.stop_here(&lane, reason.clone()).await
        {
            return Ok(stopped);
        }
        let close = Close {
            key: key.clone(),
            epoch: None,
            ending: Ending::supplied(StreamState::Cancelled, reason),
            last: None,
            if_deadline: None,
            hook: self.hooks.lease(),
        };
        Ok(match self.close(close).await? {
            Closed::Now { ended, .. } => Stopped::Now(ended),
            Closed::Before(ended) => Stopped::Before(ended),
            Closed::Missing | Closed::Newer | Closed::Moved => Stopped::Missing,
        })
    }

    /// Closes a stream in the store, for callers that do not produce it.
    pub(crate) async fn close(&self, close: Close) -> Result<Closed, StoreError> {
        let key = close.key.clone();
        let closed = self.store.close(close).await?;
        if let Closed::Now { ended, .. } = &closed {
            self.telemetry.closed(ended.ending.state);
            self.hooks.ended(key);
        }
        Ok(closed)
    }

    /// Stops a stream whose producer runs on this node. Returns `None` if another producer has taken it over, or if it
    /// is interrupted.
    async fn stop_here(&self, lane: &Arc<Lane>, reason: Reason) -> Option<Stopped> {
        let Self { recorder, executor, settings, store, .. } = self;
        let stopped = lane.end(recorder, EndRequest::supplied(StreamState::Cancelled, reason));
        if let Some(producer) = lane.producer().filter(|_| stopped) {
            let lane = Arc::clone(lane);
            executor.spawn(async move {
                producer.discard();
                lane.waker.wake();
            });
        }
        // Do not wait for the store to acknowledge the end while it is away.
        if !store.is_broken(&lane.key) {
            let _ = tokio::time::timeout(settings.terminal_limit, recorder.until_settled(lane)).await;
        }
        let ended = match lane.status() {
            Status::Ended(ended) => *ended,
            Status::Superseded => return None,
            Status::Running => lane.own_end()?,
        };
        Some(if stopped { Stopped::Now(ended) } else { Stopped::Before(ended) })
    }
}
