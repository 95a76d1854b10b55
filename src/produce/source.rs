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

/// An inner body and its scanner. It catches panics of the body's code, also when it drops the body and the chunk that the
/// scanner still holds.
pub(crate) struct Source<B> {
    /// `None` only during the drop.
    body: Option<Pin<Box<B>>>,
    /// `None` only during the drop.
    scanner: Option<Box<dyn Scan>>,
    ended: bool,
}

impl<B> Source<B> {
    pub(crate) fn new(body: B, scanner: Box<dyn Scan>) -> Self {
        Self { body: Some(Box::pin(body)), scanner: Some(scanner), ended: false }
    }

    /// Takes the scanner's next finding. `None` means that the body must be polled for more.
    pub(crate) fn next(&mut self) -> Result<Option<Scanned<'_>>, TooLarge> {
        self.scanner.as_mut().map_or(Ok(None), |scanner| scanner.next())
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
        let Self { body: Some(body), scanner: Some(scanner), ended: false } = self else {
            return Poll::Ready(Fed::Over);
        };
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
                    scanner.push(data);
                }
                return Poll::Ready(Fed::More);
            }
            Ok(Poll::Ready(None)) => {
                scanner.finish();
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
        drop_guarded(self.scanner.take());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;
    use crate::wire::{Framing as _, Sse};

    /// A chunk whose destructor panics.
    struct Panics;

    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            b"data: x\n\n"
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a destructor of the host");
        }
    }

    #[test]
    fn dropping_a_chunk_that_was_not_read_may_panic() {
        let mut source = Source::new(Full::new(Bytes::from_owner(Panics)), Sse.scanner(100));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(source.poll_feed(&mut cx, &mut Spent::default()), Poll::Ready(Fed::More)));
        drop(source);
    }
}
