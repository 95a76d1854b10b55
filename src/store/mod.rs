//! Where streams live: the [`Store`] trait, whose methods are the atomic transitions of a stream.
//!
//! A store keeps, for each stream, what is known of it, its log and its ending, and orders what
//! several nodes do to it. [`MemoryStore`] ships with the crate;
//! `store::conformance` (feature `test-util`) states in tests what any other
//! store must do.

#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod gate;
pub(crate) mod handle;
mod memory;
mod notify;
mod ops;
pub(crate) mod pointer;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod slots;

use std::{error::Error, future::Future};

pub(crate) use handle::StoreHandle;
pub use memory::MemoryStore;
pub use notify::{Notices, NoticesSender, Post, Tail, TailCell};
pub use ops::{
    Append, Appended, Beat, Beaten, Close, Closed, Due, DueReason, Fence, Interrupt, Interrupted, List, Listed, Open,
    Opened, Page, Publish, Published, Read, ReadFrom, Reopen, Reopened,
};
pub use pointer::{Expected, Place, Point, Pointed, Pointer, Renew, Renewed};

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
/// - Each may be repeated after a lost reply with the same outcome: [`open`](Self::open) by its
///   token, [`append`](Self::append) by its ids, [`publish`](Self::publish) by the caller's key,
///   the others because a state that is reached already is no error.
/// - Each may be cancelled: dropped while it waits, it has either happened or not.
/// - Time is the store's own clock, the same for all nodes, in unix milliseconds.
/// - Everything expires: an ended stream one recovery window after its end, an interrupted one
///   after its lifetime, an active one when nobody beats it and a guardian has looked.
///
/// An error says that the store could not be asked, never that a stream is not as expected: that
/// is in each method's outcome.
pub trait Store: Send + Sync + 'static {
    /// What goes wrong when the store cannot be asked.
    type Error: Error + Send + Sync + 'static;

    /// Whether [`append`](Self::append) answers at its first poll.
    ///
    /// The recorder then appends where events are made, instead of gathering batches of many
    /// streams for one flight. Default: `false`.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Which part of the store a stream is in. Parts fail each on its own: one that does not answer is not waited for, and
    /// the streams of the others do not pay for that. A flight of [`append`](Self::append) has streams of one part only.
    ///
    /// Asked in passing: it must be cheap, and must not wait. A stream may move to another part. Default: there is one, 0.
    fn part(&self, key: &StreamKey) -> u64 {
        let _ = key;
        0
    }

    /// How many parts the store has now. Default: 1.
    fn parts(&self) -> usize {
        1
    }

    /// Registers a producer, or says why there is none to register.
    ///
    /// A new run's epoch is `max(previous + 1, now in unix ms)`, where `previous` is the highest that any
    /// id of the stream was given, a terminal event's included, also of a stream that was withdrawn,
    /// deleted or has expired.
    fn open(&self, open: Open) -> impl Future<Output = Result<Opened, Self::Error>> + Send;

    /// Takes back an [`open`](Self::open) whose producer never started: as if it had not been, but for the epoch.
    fn withdraw(&self, key: StreamKey, token: u128) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Appends to logs; one outcome for each element, in order.
    ///
    /// A batch is stored whole or not at all. A repeat of one that is held, or was, is `Stored`. One in whose place something
    /// else stands, or behind which the log has gone on without it, is [`Appended::Refused`]. An error says that none of the streams
    /// can be written now; where only some cannot, those are [`Appended::Refused`].
    fn append(&self, appends: Vec<Append>) -> impl Future<Output = Result<Vec<Appended>, Self::Error>> + Send;

    /// Appends one batch at once, if the store can: the outcome is the one that [`append`](Self::append) would have.
    ///
    /// Asked on the hot path of a store that [is immediate](Self::is_immediate), so that nothing is allocated for a question
    /// that needs no waiting. `None`: [`append`](Self::append) is to be asked. Default: that.
    fn append_now(&self, append: &Append) -> Option<Appended> {
        let _ = append;
        None
    }

    /// Ends a stream; the first to do so wins, and everyone learns that end.
    fn close(&self, close: Close) -> impl Future<Output = Result<Closed, Self::Error>> + Send;

    /// Ends many streams, each as [`close`](Self::close) does. `None`: the store does not say what became of that one. An error
    /// says so of all.
    ///
    /// With this a guardian ends the streams of a node that died. Default: [`close`](Self::close) for each, all at the same
    /// time.
    fn close_all(&self, closes: Vec<Close>) -> impl Future<Output = Result<Vec<Option<Closed>>, Self::Error>> + Send {
        async move { Ok(all(closes.into_iter().map(|close| self.close(close))).await.into_iter().map(Result::ok).collect()) }
    }

    /// Says that a stream has no producer now, but may have one again.
    fn interrupt(&self, interrupt: Interrupt) -> impl Future<Output = Result<Interrupted, Self::Error>> + Send;

    /// Registers a running producer again, with its own epoch, after the store forgot it.
    ///
    /// Epochs only rise, so a store that holds an older run than the request's has lost this run's registration (to a failover,
    /// say). The run is then registered over the older one: the events of a run that had not ended are kept, with a gap after
    /// them, since nobody knows how many of them were lost; one that had ended is replaced.
    fn reopen(&self, reopen: Reopen) -> impl Future<Output = Result<Reopened, Self::Error>> + Send;

    /// Appends one event without a standing producer, taking the next seq; opens the stream if it is new.
    fn publish(&self, publish: Publish) -> impl Future<Output = Result<Published, Self::Error>> + Send;

    /// Reads a page of a log; `None` if there is no such stream.
    fn read(&self, read: Read) -> impl Future<Output = Result<Option<Page>, Self::Error>> + Send;

    /// What is known of a stream.
    fn info(&self, key: StreamKey) -> impl Future<Output = Result<Option<StreamInfo>, Self::Error>> + Send;

    /// A page of the streams of an owner that are held, ended ones included. The cost depends on the page, not on how many
    /// streams the owner has. A stream that changes its state between two pages may be on both, or on neither.
    fn list(&self, list: List) -> impl Future<Output = Result<Listed, Self::Error>> + Send;

    /// How many streams are active, whose ever.
    fn active_count(&self) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Removes a stream and all that is held of it. A producer that runs all the same is fenced, as by
    /// an end: it must not take this for forgetfulness, and register again. The node of its newest run is told
    /// ([`NoticesSender::deleted`]), so that it does not bring back an end of it should the store lose everything.
    fn delete(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Says that a node lives, and with it its streams: pushes their deadlines.
    ///
    /// An error says that no part of the store took it. Where only some did not, the streams whose deadlines were not pushed
    /// are named ([`Beaten::missed`]).
    fn beat(&self, beat: Beat) -> impl Future<Output = Result<Beaten, Self::Error>> + Send;

    /// Streams that somebody must look at, at most `limit`; each is leased: nobody else is given it
    /// for `lease`, and its deadline is what the lease wrote.
    ///
    /// `claim`: active streams that were overdue, or had outlived their lifetime, at this time of the
    /// store's clock, as far as the caller trusts that clock; `None`: no active stream at all. The store
    /// takes the lower of that time and its own clock, so that one which jumps ahead makes no orphans
    /// (guarantee G5). Hooks, and interrupted streams whose lifetime is over, are given regardless.
    ///
    /// Also removes what has expired. With nothing due, the cost does not depend on how many
    /// streams there are.
    fn due(
        &self,
        limit: usize,
        lease: std::time::Duration,
        claim: Option<u64>,
    ) -> impl Future<Output = Result<Vec<Due>, Self::Error>> + Send;

    /// Active streams whose producer was last heard of longer ago than `threshold`, at most `limit`.
    fn stale(
        &self,
        threshold: std::time::Duration,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StreamInfo>, Self::Error>> + Send;

    /// Where a conversation points; `None`: nowhere. A conversation is named by a [`StreamKey`] of its own: its owner, and
    /// the owner's name for it.
    ///
    /// A pointer and the streams that it names need not lie in one place: each method changes the one or the other, and
    /// what a stream's change means for its pointer may follow a moment later. So:
    ///
    /// - [`withdraw`](Self::withdraw) and [`delete`](Self::delete), where nothing of the stream is left, do what
    ///   [`unpoint`](Self::unpoint) does.
    /// - [`close`](Self::close) and [`interrupt`](Self::interrupt) have the pointer expire when the stream does, if that is
    ///   what it names. A repeat does so again.
    /// - [`reopen`](Self::reopen) puts back a pointer that is lost.
    ///
    /// A store that dies in between leaves a pointer that [`unpoint`](Self::unpoint) or its time sets right.
    fn pointer(&self, conversation: StreamKey) -> impl Future<Output = Result<Option<Pointer>, Self::Error>> + Send;

    /// Moves a conversation's pointer, if it stands where that is expected. A turn that began a while ago ([`Place::since`]) goes
    /// behind those that the pointer was moved to after that, by the pointer's own clock.
    fn point(&self, point: Point) -> impl Future<Output = Result<Pointed, Self::Error>> + Send;

    /// Takes a stream out of a conversation's pointer, unless it stands there for a newer run than `epoch`. If the pointer names it, it names again what it named before, or
    /// nothing; if it stands behind the one that is named, it does so no more. Otherwise nothing changes. Answers where the pointer
    /// stands then. A pointer that goes back expires when the stream does that it names again; one that is not held is taken out, too.
    fn unpoint(
        &self,
        conversation: StreamKey,
        stream: StreamId,
        epoch: Option<u64>,
    ) -> impl Future<Output = Result<Option<Pointer>, Self::Error>> + Send;

    /// Streams that have given way to a newer turn do not stand behind it any more. The one that is named stays.
    fn give_way(
        &self,
        conversation: StreamKey,
        streams: Vec<StreamId>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Renews pointers, each if it names the stream that it is renewed for. Answers where each stands then, in order. An error says
    /// that none can be renewed now; where only some cannot, those are [`Renewed::Refused`].
    fn renew(&self, renewals: Vec<Renew>) -> impl Future<Output = Result<Vec<Renewed>, Self::Error>> + Send;

    /// The end of a stream was taken note of: its `on_end` hook is not to run again.
    fn hook_done(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Wakes whoever follows a stream, whether or not it exists yet.
    fn tail(&self, key: &StreamKey) -> Tail;

    /// Whether somebody on another node follows the stream, as far as is known here.
    ///
    /// Asked in passing: it must be cheap, and must not wait. Default: `false`.
    fn is_followed(&self, _key: &StreamKey) -> bool {
        false
    }

    /// The same for a node on which this many follow the stream, each with a [`tail`](Self::tail): for a store that
    /// cannot tell whose tails it holds, and so has to know how many are not meant.
    ///
    /// Default: [`is_followed`](Self::is_followed).
    fn is_followed_beside(&self, key: &StreamKey, here: usize) -> bool {
        let _ = here;
        self.is_followed(key)
    }

    /// The streams that [`is_followed`](Self::is_followed) says `true` of, for a store that knows them without being asked for
    /// each: so a node does not ask for each of its streams, time and again, who follows it.
    ///
    /// `None`, the default: each stream is asked for.
    fn followed(&self) -> Option<Vec<StreamKey>> {
        None
    }

    /// Tells the producing node that this node has a reader of the stream.
    ///
    /// Once this is answered, and a message has had its time to arrive, [`is_followed`](Self::is_followed) says `true` on
    /// the producing node, for as long as somebody here holds a [`tail`](Self::tail) of the stream (it may be taken right
    /// after the answer), and `false` at most 10 s after nobody does. Nothing is done for a stream that nobody produces, or a node of this process. A store whose nodes
    /// are one process has nothing to do. Default: nothing is done.
    fn announce(&self, key: StreamKey) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = key;
        std::future::ready(Ok(()))
    }

    /// Tells a node which of its streams somebody else changed, and when the store itself was away
    /// ([`NoticesSender::reconnected`]).
    fn notices(&self, node: &NodeId) -> Notices;
}
