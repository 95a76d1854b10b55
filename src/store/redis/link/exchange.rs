//! Sends commands, and notices when the server no longer answers.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::pin,
    sync::{Arc, Weak, atomic::Ordering},
    task::{Poll, ready},
    time::Duration,
};

use redis::{Pipeline, RedisError, ServerErrorKind, Value, aio::ConnectionLike as _};
use tokio::{task::coop::unconstrained, time::Instant};

use super::super::error::RedisStoreError;
use super::state::{Inner, Link, Live, State, Watch};
use crate::runtime::sync::lock;

/// How many requests in a row must be dropped without an answer for a connection to count as half open.
const UNANSWERED: u32 = 2;
/// How long a request must have waited to count towards `UNANSWERED`.
const PATIENCE: Duration = Duration::from_millis(200);

impl Link {
    /// Sends commands, and returns a reply for each. The reply to a command that the server refused is
    /// `Value::ServerError`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server may still execute the commands.
    pub(in super::super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        let live = self.live().await?;
        self.exchange(live, commands).await
    }

    /// Sends commands that only read. If the connection is closed meanwhile, they are sent once more, over a new one: a request
    /// may be written before the process notices that the server has closed the connection.
    pub(in super::super) async fn send_read(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        match self.send(commands).await {
            Err(error) if error.is_of_the_connection() => self.send(commands).await,
            replies => replies,
        }
    }

    /// Sends commands that only read over a separate connection, so that large replies do not delay the
    /// acknowledgements of writes. If there is no such connection yet, or it is closed meanwhile, the commands go over the main
    /// connection, as [`send_read`](Self::send_read) sends them.
    pub(in super::super) async fn send_bulk(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        // The main connection decides which server is meant: a connection that only reads does not notice that its server has
        // become a replica.
        let live = self.live().await?;
        let bulk = self.0.bulk.get_or_init(|| {
            Self::with(Arc::clone(&self.0.address), Arc::clone(&self.0.source), Weak::<Unwatched>::new())
        });
        let replies = match bulk.live_now() {
            Some(live) if *bulk.run() == *self.run() => bulk.exchange(live, commands).await,
            _ => self.exchange(live, commands).await,
        };
        match replies {
            Err(error) if error.is_of_the_connection() => self.send_read(commands).await,
            replies => replies,
        }
    }

    async fn exchange(&self, mut live: Live, commands: &Pipeline) -> Result<Vec<Value>, RedisStoreError> {
        let mut unanswered = Unanswered { link: &self.0, number: live.number, since: Instant::now(), answered: false };
        let replies = replies(&mut live, commands).await;
        unanswered.answered = !replies.as_ref().is_err_and(RedisError::is_timeout);
        drop(unanswered);
        match replies {
            Ok(replies) => {
                match replies.iter().find(|reply| is_read_only(reply)) {
                    Some(Value::ServerError(error)) => self.0.demoted(live.number, error.clone()),
                    _ if self.0.unproven.swap(false, Ordering::Relaxed) => lock(&self.0.backoff).succeeded(),
                    _ => {}
                }
                Ok(replies)
            }
            Err(error) => {
                if !error.is_timeout() {
                    self.0.discard(live.number, State::Idle);
                }
                Err(RedisStoreError::redis(&self.0.address, error))
            }
        }
    }
}

/// Waits for the replies, or until the connection is closed.
///
/// The crate's task reads all replies before it says that the connection is closed. A request that reaches its queue at that very
/// moment may stay there, neither sent nor refused, until its time is over.
async fn replies(live: &mut Live, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
    let mut replies = live.connection.req_packed_commands(commands, 0, commands.len());
    let mut closed = pin!(live.closed.cancelled());
    poll_fn(|cx| {
        if let Poll::Ready(replies) = replies.as_mut().poll(cx) {
            return Poll::Ready(replies);
        }
        ready!(closed.as_mut().poll(cx));
        // A reply may have arrived between the two polls, or a task that has used up its budget was not shown it.
        match pin!(unconstrained(replies.as_mut())).poll(cx) {
            Poll::Ready(replies) => Poll::Ready(replies),
            Poll::Pending => Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())),
        }
    })
    .await
}

/// Ignores notices about the connection for bulk reads, since nothing is written on it that could be lost.
struct Unwatched;

impl Watch for Unwatched {
    fn reconnected(&self) {}
}

/// A request in flight. Its caller drops it at a time limit, which is the only sign of a server that does not answer.
struct Unanswered<'a> {
    link: &'a Inner,
    number: u64,
    since: Instant,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.link.unanswered.store(0, Ordering::Relaxed);
        } else if self.since.elapsed() >= PATIENCE
            && self.link.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED
        {
            self.link.discard(self.number, State::Silent { error: RedisStoreError::slow(&self.link.address) });
        }
    }
}

fn is_read_only(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}
