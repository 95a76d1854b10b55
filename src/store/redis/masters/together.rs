//! Asking several masters at the same time.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long one of several masters has at least, and how long all have if none answers.
pub(super) const EACH: Duration = Duration::from_millis(300);
const ALONE: Duration = Duration::from_secs(5);

/// Waits for the answers of several masters. `None`: that master did not answer in time.
///
/// One master that hangs must not hold back the answers of the others until the caller gives up. So once one has answered, the
/// others have three times as long as that took, and at least `EACH`.
pub(super) async fn together<T, E>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, E>>>,
) -> Vec<Option<Result<T, E>>> {
    let mut asked: Vec<_> = asked.map(Box::pin).collect();
    let mut answers: Vec<Option<Result<T, E>>> = asked.iter().map(|_| None).collect();
    let begun = Instant::now();
    let mut limit = Box::pin(sleep_until(begun + ALONE));
    let (mut answered, mut warned) = (false, false);
    poll_fn(|cx| {
        let mut pending = false;
        for (asked, answer) in asked.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            match asked.as_mut().poll(cx) {
                Poll::Ready(ready) => *answer = Some(ready),
                Poll::Pending => pending = true,
            }
        }
        if !pending {
            return Poll::Ready(());
        }
        if !answered && answers.iter().flatten().any(Result::is_ok) {
            answered = true;
            limit.as_mut().reset(begun + EACH.max(begun.elapsed() * 3));
        }
        while limit.as_mut().poll(cx).is_ready() {
            if warned {
                return Poll::Ready(());
            }
            // This process may not have run for a while, and so may not have read answers that have arrived: wait once more.
            warned = true;
            limit.as_mut().reset(Instant::now() + EACH / 6);
        }
        Poll::Pending
    })
    .await;
    answers
}
