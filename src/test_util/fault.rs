//! A store that fails on demand.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt,
    future::{Future, pending},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    model::{
        id::{NodeId, StreamId, StreamKey},
        stream::StreamInfo,
    },
    runtime::sync::lock,
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, MemoryStore, Notices,
        Open, Opened, Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Store,
        Tail,
    },
};

/// A fault of a request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is carried out after this delay.
    Delay(Duration),
    /// The request is never answered, and not carried out.
    Hang,
    /// The request is answered with an error, and not carried out.
    Refuse,
    /// The request is carried out, and answered with an error.
    LoseReply,
    /// The request panics, and is not carried out.
    Panic,
}

/// A store that wraps another one, counts its requests, and fails on demand. Clones share one state.
///
/// ```
/// use resilient_sse::{
///     MemoryStore, ResilientSse,
///     test_util::{Fault, FaultStore},
/// };
///
/// let store = FaultStore::new(MemoryStore::new()).batched();
/// let (sse, guardian) = ResilientSse::builder(store.clone()).anonymous().build()?;
/// store.fail(Fault::Hang); // from now on no request is answered
/// store.heal();
/// # let _ = (sse, guardian);
/// # Ok::<(), resilient_sse::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    immediate: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    all: Option<Fault>,
    by_operation: HashMap<&'static str, Fault>,
    refused: HashSet<StreamKey>,
    calls: HashMap<&'static str, u64>,
    nodes: u64,
    ahead: i64,
    /// How many more requests are answered before all hang; `None` without a limit.
    left: Option<u64>,
}

impl State {
    /// Counts a request towards [`FaultStore::die_after`].
    fn dies(&mut self, operation: &str) -> Option<Fault> {
        match &mut self.left {
            None => None,
            Some(0) => Some(Fault::Hang),
            Some(_) if matches!(operation, "beat" | "due") => None,
            Some(left) => {
                *left -= 1;
                None
            }
        }
    }
}

impl<S: Clone> Clone for FaultStore<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), immediate: self.immediate, state: Arc::clone(&self.state) }
    }
}

impl<S: Store> FaultStore<S> {
    /// Wraps a store. No request fails yet.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { immediate: inner.is_immediate(), inner, state: Arc::default() }
    }

    /// Makes the store report that it is not immediate, so that the recorder gathers batches as for a store over a
    /// network.
    #[must_use]
    pub fn batched(mut self) -> Self {
        self.immediate = false;
        self
    }

    /// Returns the wrapped store.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Makes every request fail with this fault from now on.
    pub fn fail(&self, fault: Fault) {
        lock(&self.state).all = Some(fault);
    }

    /// Makes requests of this name (a method of [`Store`]) fail with this fault from now on.
    pub fn fail_on(&self, operation: &'static str, fault: Fault) {
        lock(&self.state).by_operation.insert(operation, fault);
    }

    /// Makes a single stream unwritable from now on. Appends to it are [`Refused`](Appended::Refused), and any other
    /// change of it is answered with an error and not carried out. A conversation of this name is not renewed
    /// ([`Renewed::Refused`]).
    pub fn refuse_stream(&self, key: StreamKey) {
        lock(&self.state).refused.insert(key);
    }

    /// Makes every request hang after this many more, not counting beats and sweeps, as if the node died between two
    /// steps. Requests that hang are not carried out.
    pub fn die_after(&self, requests: u64) {
        lock(&self.state).left = Some(requests);
    }

    /// Answers beats, from now on, with a clock that is this many milliseconds ahead of the store's (behind it if
    /// negative).
    pub fn answer_ahead(&self, by: i64) {
        lock(&self.state).ahead = by;
    }

    /// Removes all faults. A request that already hangs continues to hang.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.all = None;
        state.by_operation.clear();
        state.refused.clear();
        state.left = None;
        state.ahead = 0;
    }

    /// Returns the number of requests of this name (a method of [`Store`]).
    #[must_use]
    pub fn calls(&self, operation: &'static str) -> u64 {
        lock(&self.state).calls.get(operation).copied().unwrap_or(0)
    }

    /// Returns the number of requests other than beats and sweeps.
    #[must_use]
    pub fn stream_calls(&self) -> u64 {
        lock(&self.state).calls.iter().filter(|(name, _)| !matches!(**name, "beat" | "due")).map(|(_, n)| n).sum()
    }

    /// Returns the number of the next hub on this store. It seeds the hub, so that no two hubs generate the same ids
    /// and tokens.
    pub(super) fn next_node(&self) -> u64 {
        let mut state = lock(&self.state);
        state.nodes += 1;
        state.nodes
    }

    fn is_refused(&self, key: &StreamKey) -> bool {
        lock(&self.state).refused.contains(key)
    }

    /// Appends to the streams that are not refused.
    async fn append_others(&self, appends: Vec<Append>) -> Result<Vec<Appended>, S::Error> {
        let refused: Vec<_> = appends.iter().map(|append| self.is_refused(&append.key)).collect();
        let others = appends.into_iter().zip(&refused).filter(|(_, refused)| !**refused);
        let mut written = self.inner.append(others.map(|(append, _)| append).collect()).await?.into_iter();
        let outcome = |refused| if refused { Some(Appended::Refused) } else { written.next() };
        Ok(refused.into_iter().filter_map(outcome).collect())
    }

    /// Renews the pointers that are not refused.
    async fn renew_others(&self, renewals: Vec<Renew>) -> Result<Vec<Renewed>, S::Error> {
        let refused: Vec<_> = renewals.iter().map(|renew| self.is_refused(&renew.conversation)).collect();
        let others = renewals.into_iter().zip(&refused).filter(|(_, refused)| !**refused);
        let mut renewed = self.inner.renew(others.map(|(renew, _)| renew).collect()).await?.into_iter();
        let outcome = |refused| if refused { Some(Renewed::Refused) } else { renewed.next() };
        Ok(refused.into_iter().filter_map(outcome).collect())
    }

    /// Counts a request and applies the fault that is set for it. `refused`: its stream is refused.
    #[expect(clippy::panic, reason = "a store of a host's own may panic")]
    async fn through<T>(
        &self,
        operation: &'static str,
        refused: bool,
        request: impl Future<Output = Result<T, S::Error>> + Send,
    ) -> Result<T, FaultError<S::Error>> {
        let fault = {
            let mut state = lock(&self.state);
            *state.calls.entry(operation).or_insert(0) += 1;
            let fault = state.by_operation.get(operation).copied().or(state.all).or(state.dies(operation));
            if refused { Some(Fault::Refuse) } else { fault }
        };
        match fault {
            None => {}
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Hang) => pending().await,
            Some(Fault::Refuse) => return Err(FaultError::Injected(operation)),
            Some(Fault::Panic) => panic!("`{operation}` was told to panic"),
            Some(Fault::LoseReply) => {
                request.await.map_err(FaultError::Store)?;
                return Err(FaultError::Injected(operation));
            }
        }
        request.await.map_err(FaultError::Store)
    }
}

impl FaultStore<MemoryStore> {
    /// Removes all data, like a server that restarts empty.
    pub fn forget(&self) {
        self.inner.forget();
    }

    /// Notifies every node that the store is back after an outage, as a store over a network does.
    pub fn reconnected(&self) {
        self.inner.reconnected();
    }

    /// Moves the store's clock forwards by this many milliseconds (backwards if negative).
    pub fn shift_clock(&self, by: i64) {
        self.inner.shift_clock(by);
    }
}

/// The error of a [`FaultStore`].
#[derive(Debug)]
pub enum FaultError<E> {
    /// The request failed on demand.
    Injected(&'static str),
    /// The wrapped store failed.
    Store(E),
}

impl<E> fmt::Display for FaultError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Injected(operation) => write!(f, "`{operation}` was told to fail"),
            Self::Store(_) => f.write_str("the store inside failed"),
        }
    }
}

impl<E: Error + 'static> Error for FaultError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Injected(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

/// Implements store methods by [`FaultStore::through`]. The wrapped store's request is created at the first poll.
macro_rules! through {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty $(, of $key:expr)?;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$out, Self::Error>> + Send {
            let refused = false $(|| self.is_refused(&$key))?;
            self.through(stringify!($name), refused, async move { self.inner.$name($($arg),*).await })
        })*
    };
}

impl<S: Store> Store for FaultStore<S> {
    type Error = FaultError<S::Error>;

    fn is_immediate(&self) -> bool {
        self.immediate
    }

    through! {
        open(open: Open) -> Opened, of open.key;
        withdraw(key: StreamKey, token: u128) -> ();
        close(close: Close) -> Closed, of close.key;
        interrupt(interrupt: Interrupt) -> Interrupted, of interrupt.key;
        reopen(reopen: Reopen) -> Reopened, of reopen.open.key;
        publish(publish: Publish) -> Published, of publish.key;
        read(read: Read) -> Option<Page>;
        info(key: StreamKey) -> Option<StreamInfo>;
        list(list: List) -> Listed;
        active_count() -> u64;
        delete(key: StreamKey) -> ();
        due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
        stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
        hook_done(key: StreamKey) -> ();
        pointer(conversation: StreamKey) -> Option<Pointer>;
        point(point: Point) -> Pointed;
        unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>;
        give_way(conversation: StreamKey, streams: Vec<StreamId>) -> ();
        announce(key: StreamKey) -> ();
    }

    fn append(&self, appends: Vec<Append>) -> impl Future<Output = Result<Vec<Appended>, Self::Error>> + Send {
        self.through("append", false, self.append_others(appends))
    }

    fn renew(&self, renewals: Vec<Renew>) -> impl Future<Output = Result<Vec<Renewed>, Self::Error>> + Send {
        self.through("renew", false, self.renew_others(renewals))
    }

    async fn beat(&self, beat: Beat) -> Result<Beaten, Self::Error> {
        let beaten = self.through("beat", false, async move { self.inner.beat(beat).await }).await?;
        Ok(Beaten { now: beaten.now.saturating_add_signed(lock(&self.state).ahead), ..beaten })
    }

    fn part(&self, key: &StreamKey) -> u64 {
        self.inner.part(key)
    }

    fn parts(&self) -> usize {
        self.inner.parts()
    }

    fn tail(&self, key: &StreamKey) -> Tail {
        self.inner.tail(key)
    }

    fn is_followed(&self, key: &StreamKey) -> bool {
        self.inner.is_followed(key)
    }

    fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        self.inner.is_followed_beside(key, here)
    }

    fn followed(&self) -> Option<Vec<StreamKey>> {
        self.inner.followed()
    }

    fn notices(&self, node: &NodeId) -> Notices {
        self.inner.notices(node)
    }
}
