//! Asking several masters at the same time.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long one of several masters has at least, and how long all of them have where none answers.
pub(super) const EACH: Duration = Duration::from_millis(300);
const ALONE: Duration = Duration::from_secs(5);

/// Waits for the answers of several masters, which are asked at the same time; `None` where one gave none in time. One that
/// hangs must not keep the others' words until whoever asked gives up: once one has answered, the others have three times as
/// long as that took, and `EACH` at least.
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
            // A process that did not run for a while has had no time to read an answer: that is no fault of the server's.
            warned = true;
            limit.as_mut().reset(Instant::now() + EACH / 6);
        }
        Poll::Pending
    })
    .await;
    answers
}
