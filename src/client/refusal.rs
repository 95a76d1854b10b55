//! Reads the body of a response that refuses the stream for good.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use http::{Response, response::Parts};
use http_body::Body as _;

use super::{GaveUp, connect::Body, timers::Limit};

/// The limits for the body of a refusal, in bytes, frames and time. The body is only meant to tell a human what is
/// wrong.
const READ: usize = 16 << 10;
const FRAMES: usize = 1024;
const WAIT: Duration = Duration::from_secs(5);

/// The head of a refusing response, and as much of its body as was read.
pub(super) struct Refusal {
    head: Parts,
    body: Body,
    read: BytesMut,
    frames: usize,
    limit: Limit,
}

impl Refusal {
    pub(super) fn new(head: Parts, body: Body) -> Self {
        Self { head, body, read: BytesMut::new(), frames: 0, limit: Limit::of(Some(WAIT)) }
    }

    /// Reads the body. Ready with the refusal once the body has ended or failed, or a limit is reached.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<GaveUp> {
        while self.read.len() < READ && self.frames < FRAMES {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.frames += 1;
                    let data = frame.into_data().unwrap_or_default();
                    self.read.extend_from_slice(&data[..data.len().min(READ - self.read.len())]);
                }
                Poll::Pending if self.limit.poll(cx).is_pending() => return Poll::Pending,
                Poll::Ready(None | Some(Err(_))) | Poll::Pending => break,
            }
        }
        let read = self.read.split().freeze();
        Poll::Ready(GaveUp::Refused(Box::new(Response::from_parts(self.head.clone(), read))))
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.head.status).finish_non_exhaustive()
    }
}
