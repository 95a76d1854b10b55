//! Catches panics of the host's code, so that they harm no connection, guardian or other stream (guarantee G11).

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

/// The error of host code that panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the code panicked")
    }
}

impl std::error::Error for Panicked {}

/// Runs host code and catches its panic.
///
/// Values that the code may have left inconsistent must not be used again: the caller drops them.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| Panicked)
}

/// Drops a value of the host and catches a panic of its destructor.
pub(crate) fn drop_guarded<T>(value: T) {
    let _ = guarded(|| drop(value));
}

pin_project_lite::pin_project! {
    /// A future of the host. A panic in it becomes an [`Err`] output.
    pub(crate) struct Guarded<F> {
        #[pin]
        future: F,
    }
}

impl<F> Guarded<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        match guarded(|| future.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}
