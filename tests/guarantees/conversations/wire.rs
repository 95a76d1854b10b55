//! A store behind a network. Requests arrive although their senders no longer wait for the answer: late, out of order,
//! or never.

use std::{
    error::Error,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use resilient_sse::{
    MemoryStore, NodeId, Store, StreamId, StreamInfo, StreamKey,
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open,
        Opened, Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Tail,
    },
};
use tokio::{sync::oneshot, time::Instant};

use crate::support::random::Random;

/// A node's network to a store. Streams and pointers lie on two servers, with a connection to each.
#[derive(Clone)]
pub struct Wire {
    inner: MemoryStore,
    how: Arc<How>,
}

struct How {
    random: Mutex<Random>,
    /// When the last request of each connection arrives.
    last: Mutex<[Option<Instant>; 2]>,
    /// How many of a hundred requests are lost, and how many answers.
    lost: u64,
    /// Whether a request may overtake another, as happens over a new connection.
    overtakes: bool,
    is_calm: AtomicBool,
}

#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is broken")
    }
}

impl Error for Broken {}

impl Wire {
    pub fn new(inner: &MemoryStore, seed: u64, lost: u64, overtakes: bool) -> Self {
        let (random, last, is_calm) = (Mutex::new(Random(seed)), Mutex::default(), AtomicBool::new(false));
        Self { inner: inner.clone(), how: Arc::new(How { random, last, lost, overtakes, is_calm }) }
    }

    /// Stops all losses.
    pub fn calms(&self) {
        self.how.is_calm.store(true, Ordering::Relaxed);
    }

    fn below(&self, bound: u64) -> u64 {
        self.how.random.lock().unwrap().below(bound)
    }

    /// Returns the time at which a request that is sent now arrives.
    fn arrives(&self, connection: usize) -> Instant {
        let soon = Instant::now() + Duration::from_millis(1 + self.below(4));
        if self.how.overtakes {
            // One in ten is delayed for long.
            return if self.below(10) == 0 { soon + Duration::from_millis(self.below(400)) } else { soon };
        }
        let mut last = self.how.last.lock().unwrap();
        let at = last[connection].map_or(soon, |last| soon.max(last + Duration::from_millis(1)));
        last[connection] = Some(at);
        at
    }

    /// Sends a request. It is executed even if nobody waits for its answer.
    async fn send<T: Send + 'static>(
        &self,
        connection: usize,
        request: impl Future<Output = Result<T, std::convert::Infallible>> + Send + 'static,
    ) -> Result<T, Broken> {
        let luck = if self.how.is_calm.load(Ordering::Relaxed) { 100 } else { self.below(100) };
        let (arrives, back) = (self.arrives(connection), Duration::from_millis(1 + self.below(4)));
        let (answer, answered) = oneshot::channel();
        let lost = self.how.lost;
        tokio::spawn(async move {
            tokio::time::sleep_until(arrives).await;
            if luck < lost {
                return;
            }
            let Ok(done) = request.await;
            tokio::time::sleep(back).await;
            if luck >= 2 * lost {
                let _ = answer.send(done);
            }
        });
        answered.await.map_err(|_| Broken)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

macro_rules! over {
    ($($connection:literal $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Broken> {
            let inner = self.inner.clone();
            self.send($connection, async move { inner.$name($($arg),*).await }).await
        })*
    };
}

impl Store for Wire {
    type Error = Broken;

    over! {
        0 open(open: Open) -> Opened;
        0 withdraw(key: StreamKey, token: u128) -> ();
        0 append(appends: Vec<Append>) -> Vec<Appended>;
        0 close(close: Close) -> Closed;
        0 interrupt(interrupt: Interrupt) -> Interrupted;
        0 reopen(reopen: Reopen) -> Reopened;
        0 publish(publish: Publish) -> Published;
        0 read(read: Read) -> Option<Page>;
        0 info(key: StreamKey) -> Option<StreamInfo>;
        0 list(list: List) -> Listed;
        0 active_count() -> u64;
        0 delete(key: StreamKey) -> ();
        0 beat(beat: Beat) -> Beaten;
        0 due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
        0 stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
        0 hook_done(key: StreamKey) -> ();
        1 pointer(conversation: StreamKey) -> Option<Pointer>;
        1 point(point: Point) -> Pointed;
        1 unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>;
        1 give_way(conversation: StreamKey, streams: Vec<StreamId>) -> ();
        1 renew(renewals: Vec<Renew>) -> Vec<Renewed>;
    }

    fn tail(&self, key: &StreamKey) -> Tail {
        self.inner.tail(key)
    }

    fn is_followed(&self, key: &StreamKey) -> bool {
        self.inner.is_followed(key)
    }

    fn notices(&self, node: &NodeId) -> Notices {
        self.inner.notices(node)
    }
}
