//! Where streams live: the [`Store`] trait, whose methods are the atomic transitions of a stream.
//!
//! A store keeps each stream's state, log and ending, and orders what several nodes do to the stream. [`MemoryStore`] ships
//! with the crate. `store::conformance` (feature `test-util`) has the tests that any other store must pass.

#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod gate;
pub(crate) mod handle;
mod limits;
mod memory;
mod notices;
mod ops;
pub(crate) mod pointer;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod slots;
mod tail;

use std::{error::Error, future::Future};

pub(crate) use handle::StoreHandle;
pub use memory::MemoryStore;
pub use notices::{Notices, NoticesSender, Post};
pub use ops::{
    Append, Appended, Beat, Beaten, Close, Closed, Due, DueReason, Fence, Interrupt, Interrupted, List, Listed, Open,
    Opened, Page, Publish, Published, Read, ReadFrom, Reopen, Reopened,
};
pub use pointer::{Expected, Place, Point, Pointed, Pointer, Renew, Renewed};
pub use tail::{Tail, TailCell};

pub use crate::model::retention::Retention;
use crate::{
    model::{
        id::{NodeId, StreamId, StreamKey},
        stream::StreamInfo,
    },
    runtime::sync::all,
};

/// The atomic transitions of streams, and the questions about them.
///
/// # Contract
///
/// - Each method is atomic for each stream it names, also against other nodes.
/// - Each may be repeated after a lost reply, and has the same outcome then. A repeat of [`open`](Self::open) is recognised
///   by its token, of [`append`](Self::append) by its ids, of [`publish`](Self::publish) by the caller's key. For the other
///   methods it is no error if the state is reached already.
/// - Each may be cancelled: if its future is dropped, the transition has either happened or not.
/// - Time is the store's own clock, the same for all nodes, in unix milliseconds.
/// - Everything expires: an ended stream one recovery window after its end, an interrupted one after its lifetime, and an
///   active one once its beats have stopped and a guardian has closed it.
///
/// An error means that the store could not be asked. That a stream is not as expected is no error: the outcome of each
/// method says so.
pub trait Store: Send + Sync + 'static {
    /// The error of a store that cannot be asked.
    type Error: Error + Send + Sync + 'static;

    /// Whether [`append`](Self::append) answers at its first poll.
    ///
    /// The recorder then appends within the poll of the response body that made the events, instead of gathering batches of
    /// many streams for one request. Default: `false`.
    fn is_immediate(&self) -> bool {
        false
    }

    /// The part of the store that a stream is in, such as one master of a Redis Cluster.
    ///
    /// Each part fails on its own: while one does not answer, the streams of the others are served as before. All streams of
    /// one call of [`append`](Self::append) are in the same part. A stream may move to another part.
    ///
    /// This is called often: it must be cheap and must not block. Default: 0, the only part.
    fn part(&self, key: &StreamKey) -> u64 {
        let _ = key;
        0
    }

    /// The number of parts that the store has now. Default: 1.
    fn parts(&self) -> usize {
        1
    }

    /// Registers a producer, or answers why it is not registered.
    ///
    /// The epoch of a new run is `max(previous + 1, now in unix ms)`. `previous` is the highest epoch of any id that the
    /// stream ever had, its terminal events included, even if the stream was withdrawn or deleted or has expired since.
    fn open(&self, open: Open) -> impl Future<Output = Result<Opened, Self::Error>> + Send;

    /// Takes back an [`open`](Self::open) whose producer never started. The stream is as before, except that the epoch stays
    /// used.
    fn withdraw(&self, key: StreamKey, token: u128) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Appends batches to the logs of several streams. Returns one outcome for each batch, in order.
    ///
    /// A batch is stored whole or not at all. A repeat of a batch that the store holds, or held before it was trimmed, is
    /// [`Appended::Stored`]. A batch whose ids are taken by other events, or that the log has gone past without it, is
    /// [`Appended::Refused`]. An error means that none of the streams can be written now. If only some cannot be written, the
    /// outcome of those is [`Appended::Refused`].
    fn append(&self, appends: Vec<Append>) -> impl Future<Output = Result<Vec<Appended>, Self::Error>> + Send;

    /// Appends one batch without waiting, with the outcome that [`append`](Self::append) would have.
    ///
    /// The recorder calls this on the hot path of a store that [is immediate](Self::is_immediate): it saves the allocations
    /// of a future. `None`, the default, makes the recorder call [`append`](Self::append) instead.
    fn append_now(&self, append: &Append) -> Option<Appended> {
        let _ = append;
        None
    }

    /// Ends a stream. The first request wins; any later one is answered with the end that was stored.
    fn close(&self, close: Close) -> impl Future<Output = Result<Closed, Self::Error>> + Send;

    /// Ends many streams, each as [`close`](Self::close) does. `None` stands for a stream whose outcome is unknown; an error
    /// means that all are unknown.
    ///
    /// A guardian uses this to end the streams of a node that died. Default: [`close`](Self::close) for each, concurrently.
    fn close_all(&self, closes: Vec<Close>) -> impl Future<Output = Result<Vec<Option<Closed>>, Self::Error>> + Send {
        async move { Ok(all(closes.into_iter().map(|close| self.close(close))).await.into_iter().map(Result::ok).collect()) }
    }

    /// Notes that a stream has no producer now. A later request may register one again.
    fn interrupt(&self, interrupt: Interrupt) -> impl Future<Output = Result<Interrupted, Self::Error>> + Send;

    /// Registers a running producer again, with its own epoch, after the store forgot it.
    ///
    /// Epochs only rise. So if the store holds an older run than the request's, it has lost the registration of this run, for
    /// example in a failover, and registers it over the older one. If the older run had not ended, its events are kept, with
    /// a gap after them, since nobody knows how many were lost. If it had ended, it is replaced.
    fn reopen(&self, reopen: Reopen) -> impl Future<Output = Result<Reopened, Self::Error>> + Send;

    /// Appends one event to a stream without a registered producer, under the next seq. Opens the stream if it is new.
    fn publish(&self, publish: Publish) -> impl Future<Output = Result<Published, Self::Error>> + Send;

    /// Reads a page of a log. `None`: the store does not hold the stream.
    fn read(&self, read: Read) -> impl Future<Output = Result<Option<Page>, Self::Error>> + Send;

    /// The state of a stream. `None`: the store does not hold it.
    fn info(&self, key: StreamKey) -> impl Future<Output = Result<Option<StreamInfo>, Self::Error>> + Send;

    /// A page of the streams that the store holds of an owner, ended ones included. The cost depends on the size of the page,
    /// not on how many streams the owner has. A stream whose state changes between two pages may be on both or on neither.
    fn list(&self, list: List) -> impl Future<Output = Result<Listed, Self::Error>> + Send;

    /// The number of active streams of all owners.
    fn active_count(&self) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Removes a stream and everything the store holds of it.
    ///
    /// A producer that still runs is fenced as by an end. It must not conclude that the store forgot the stream, and register
    /// again. The node of the newest run gets a notice ([`NoticesSender::deleted`]): if the store loses everything later, that
    /// node must not bring back the stream's end.
    fn delete(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Notes that a node and its streams live, and moves the streams' deadlines.
    ///
    /// An error means that no part of the store took the beat. If only some parts did not, [`Beaten::missed`] lists the
    /// streams whose deadlines were not moved.
    fn beat(&self, beat: Beat) -> impl Future<Output = Result<Beaten, Self::Error>> + Send;

    /// Leases at most `limit` streams that a guardian must look at. For the time of `lease` no other caller gets them, and
    /// their deadline is the one that the lease wrote.
    ///
    /// `claim` is the latest time, by the store's clock, up to which the caller trusts that clock. Active streams are returned
    /// if they were overdue, or had outlived their lifetime, at that time. With `None` no active stream is returned. The store
    /// takes the earlier of `claim` and its own clock, so that a clock which jumps ahead makes no orphans (guarantee G5).
    /// Streams whose hook is due, and interrupted streams whose lifetime is over, are returned in any case.
    ///
    /// This also removes what has expired. If nothing is due, the cost does not depend on how many streams there are.
    fn due(
        &self,
        limit: usize,
        lease: std::time::Duration,
        claim: Option<u64>,
    ) -> impl Future<Output = Result<Vec<Due>, Self::Error>> + Send;

    /// At most `limit` active streams whose producer was last heard of longer ago than `threshold`.
    fn stale(
        &self,
        threshold: std::time::Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StreamInfo>, Self::Error>> + Send;

    /// The pointer of a conversation, or `None`. A conversation is named by a [`StreamKey`] of its own: its owner, and the
    /// owner's name for it.
    ///
    /// A pointer and the streams that it names need not lie on the same server. So each method changes one of them, and the
    /// store changes the other a moment later:
    ///
    /// - After [`withdraw`](Self::withdraw) and [`delete`](Self::delete), if nothing is left of the stream, it does what
    ///   [`unpoint`](Self::unpoint) does.
    /// - After [`close`](Self::close) and [`interrupt`](Self::interrupt), it sets the pointer to expire with the stream, if
    ///   the pointer names that stream. A repeat does so again.
    /// - After [`reopen`](Self::reopen), it puts back a lost pointer.
    ///
    /// If the store dies in between, the pointer is wrong until somebody calls [`unpoint`](Self::unpoint) or it expires.
    fn pointer(&self, conversation: StreamKey) -> impl Future<Output = Result<Option<Pointer>, Self::Error>> + Send;

    /// Moves a conversation's pointer to a stream, if the pointer names what the request expects.
    ///
    /// A turn that began a while ago ([`Place::since`]) is put behind the turns that the pointer was moved to since then, by
    /// the pointer's own clock.
    fn point(&self, point: Point) -> impl Future<Output = Result<Pointed, Self::Error>> + Send;

    /// Takes a stream out of a conversation's pointer, unless it is there for a newer run than `epoch`. Returns the pointer as
    /// it is then.
    ///
    /// If the pointer names the stream, it goes back to the stream that it named before, and expires when that stream does. If
    /// the store does not hold that stream, it is taken out as well. If there is no stream to go back to, the pointer is
    /// removed. If the stream stands behind the one that is named, only its place is given up.
    fn unpoint(
        &self,
        conversation: StreamKey,
        stream: StreamId,
        epoch: Option<u64>,
    ) -> impl Future<Output = Result<Option<Pointer>, Self::Error>> + Send;

    /// Takes streams that have given way to a newer turn out of the places behind it. The stream that the pointer names stays.
    fn give_way(
        &self,
        conversation: StreamKey,
        streams: Vec<StreamId>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Renews pointers, each only if it names the stream of its request. Returns each pointer as it is then, in order.
    ///
    /// An error means that no pointer can be renewed now. If only some cannot, the outcome of those is [`Renewed::Refused`].
    fn renew(&self, renewals: Vec<Renew>) -> impl Future<Output = Result<Vec<Renewed>, Self::Error>> + Send;

    /// Notes that the `on_end` hook of a stream has run and must not run again.
    fn hook_done(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns what wakes a follower of the stream. The stream need not exist yet.
    fn tail(&self, key: &StreamKey) -> Tail;

    /// Whether a reader on another node follows the stream, as far as this node knows.
    ///
    /// This is called often: it must be cheap and must not block. Default: `false`.
    fn is_followed(&self, _key: &StreamKey) -> bool {
        false
    }

    /// Like [`is_followed`](Self::is_followed), for a node that itself holds `here` tails of the stream.
    ///
    /// A store whose nodes are one process cannot tell whose tails it holds, and so must know how many are the caller's own.
    /// Default: [`is_followed`](Self::is_followed).
    fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        let _ = here;
        self.is_followed(key)
    }

    /// All streams for which [`is_followed`](Self::is_followed) is `true`, if the store has such a list. A node then need not
    /// ask about each of its streams in each round of beats.
    ///
    /// `None`, the default, makes the node ask about each stream.
    fn followed(&self) -> Option<Vec<StreamKey>> {
        None
    }

    /// Tells the producing node that this node has a reader of the stream.
    ///
    /// Soon after this is answered, [`is_followed`](Self::is_followed) is `true` on the producing node. It stays so as long as
    /// anybody here holds a [`tail`](Self::tail) of the stream, which may be taken right after the answer. It is `false` at the
    /// latest 10 s after the last tail was dropped.
    ///
    /// Nothing happens if nobody produces the stream, or a node of this process does. The default does nothing, which fits a
    /// store whose nodes are one process.
    fn announce(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = key;
        std::future::ready(Ok(()))
    }

    /// Returns the notices for a node: which of its streams others have changed, and that the store was away
    /// ([`NoticesSender::reconnected`]).
    ///
    /// A store may begin to listen some time after it has returned them. A change from before reaches the producer with its next
    /// write or beat.
    fn notices(&self, node: &NodeId) -> Notices;
}
