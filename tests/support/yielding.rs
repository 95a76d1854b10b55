//! A store whose requests take a number of polls, and that shows when its last clone has been dropped.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use resilient_sse::{
    MemoryStore, NodeId, Store, StreamId, StreamInfo, StreamKey,
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open,
        Opened, Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Tail,
    },
};

/// A memory store. Each request returns `Pending` `times` times before the operation, and `times` times after it.
#[derive(Clone)]
pub(crate) struct Yielding {
    pub(crate) inner: MemoryStore,
    pub(crate) times: usize,
    alive: Arc<()>,
}

impl Yielding {
    pub(crate) fn new(times: usize) -> Self {
        Self { inner: MemoryStore::new(), times, alive: Arc::default() }
    }

    /// Returns a weak reference that is dead once all clones of the store are dropped.
    pub(crate) fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }
}

struct Yield(usize);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Yielding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Yielding")
    }
}

macro_rules! late {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$out, Self::Error>> + Send {
            async move {
                Yield(self.times).await;
                let answer = self.inner.$name($($arg),*).await;
                Yield(self.times).await;
                answer
            }
        })*
    };
}

impl Store for Yielding {
    type Error = std::convert::Infallible;

    late! {
        open(open: Open) -> Opened;
        withdraw(key: StreamKey, token: u128) -> ();
        append(appends: Vec<Append>) -> Vec<Appended>;
        close(close: Close) -> Closed;
        interrupt(interrupt: Interrupt) -> Interrupted;
        reopen(reopen: Reopen) -> Reopened;
        publish(publish: Publish) -> Published;
        read(read: Read) -> Option<Page>;
        info(key: StreamKey) -> Option<StreamInfo>;
        list(list: List) -> Listed;
        active_count() -> u64;
        delete(key: StreamKey) -> ();
        beat(beat: Beat) -> Beaten;
        due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
        stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
        hook_done(key: StreamKey) -> ();
        pointer(conversation: StreamKey) -> Option<Pointer>;
        point(point: Point) -> Pointed;
        unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>;
        give_way(conversation: StreamKey, streams: Vec<StreamId>) -> ();
        renew(renewals: Vec<Renew>) -> Vec<Renewed>;
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
