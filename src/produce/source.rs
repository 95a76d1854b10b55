//! An inner body, cut into blocks.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf;
use http_body::Body;

use crate::{
    model::error::BoxError,
    produce::spent::Spent,
    runtime::panics::{drop_guarded, guarded},
    wire::{Scan, Scanned, TooLarge},
};

/// The result of polling the body.
#[derive(Debug)]
pub(crate) enum Fed {
    /// The scanner may have found more.
    More,
    /// The body has ended, and the scanner has its last chunk.
    Over,
    Failed(BoxError),
    Panicked,
}

/// An inner body and its scanner. It catches panics of the body's code, also when it drops the body.
pub(crate) struct Source<B> {
    /// `None` only during the drop.
    body: Option<Pin<Box<B>>>,
    scanner: Box<dyn Scan>,
    ended: bool,
}

impl<B> Source<B> {
    pub(crate) fn new(body: B, scanner: Box<dyn Scan>) -> Self {
        Self { body: Some(Box::pin(body)), scanner, ended: false }
    }

    /// Takes the scanner's next finding. `None` means that the body must be polled for more.
    pub(crate) fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge> {
        self.scanner.next()
    }

    /// Whether the inner body has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl<B> Source<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Feeds the scanner the body's next frame. Take all findings of the last frame first.
    pub(crate) fn poll_feed(&mut self, cx: &mut Context<'_>, spent: &mut Spent) -> Poll<Fed> {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return Poll::Ready(Fed::Over) };
        // Guarded: the body, its data and its error are the application's code, and may panic.
        let polled = guarded(|| {
            body.as_mut().poll_frame(cx).map_err(Into::into).map_ok(|frame| {
                let data = frame.into_data().ok();
                data.map(|mut data| data.copy_to_bytes(data.remaining()))
            })
        });
        let fed = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(data)))) => {
                if let Some(data) = data {
                    spent.note(&data);
                    self.scanner.push(data);
                }
                return Poll::Ready(Fed::More);
            }
            Ok(Poll::Ready(None)) => {
                self.scanner.finish();
                Fed::More
            }
            Ok(Poll::Ready(Some(Err(error)))) => Fed::Failed(error),
            Err(_) => Fed::Panicked,
        };
        self.ended = true;
        Poll::Ready(fed)
    }
}

impl<B> Drop for Source<B> {
    fn drop(&mut self) {
        drop_guarded(self.body.take());
    }
}
