//! What is asked of a store, and what it answers.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::model::{
    id::{EventId, NodeId, Owner, StreamId, StreamKey},
    kept::KeptHeaders,
    metadata::Metadata,
    stream::{Ended, Ending, Frame, Origin, Record, StreamInfo, StreamState},
    turn::Turn,
    voice::Voice,
};

/// How long and how much a store keeps of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long after its last beat a stream is overdue.
    pub stale: Duration,
    /// How long a stream lives on after its producer was last heard of.
    pub lifetime: Duration,
    /// How long an ended stream is kept.
    pub recovery_window: Duration,
    /// How many events its log holds; what marks the start of a run counts as one, unless the run before made nothing.
    pub max_events: usize,
    /// How many bytes of events its log holds.
    pub max_bytes: usize,
}

impl Retention {
    /// How long a stream's keys live after its producer was last heard of, unless somebody ends it: long enough that a
    /// guardian finds it when its lifetime is over. A pointer that names it lives as long.
    pub(crate) fn kept(&self) -> Duration {
        self.lifetime.saturating_add(self.recovery_window).saturating_add(self.stale)
    }
}

/// A request to register a producer.
#[derive(Clone, Debug)]
pub struct Open {
    /// Which stream.
    pub key: StreamKey,
    /// What it is for.
    pub kind: Cow<'static, str>,
    /// The origin of the stream: who produces it, and who named it.
    ///
    /// A request with [`Origin::Named`] for a stream that an inner body of another kind produces, or produced, is refused
    /// with [`Opened::OtherKind`]. A request with [`Origin::Generated`] comes with a cursor that names the stream: it opens
    /// only a stream of that origin and kind, and any other is [`Opened::Missing`], also with `create`. A request with
    /// [`Origin::Published`] compares nothing, and so does one that names a published stream.
    ///
    /// A new run takes the origin and kind of its request, except that a stream whose id the library made up stays
    /// [`Origin::Generated`] while inner bodies produce it: the cursors of its clients begin with that id.
    pub origin: Origin,
    /// The producer's node.
    pub node: NodeId,
    /// Makes the request repeatable: random, the same in each repeat. A repeat may say more than the first request did,
    /// and that is kept then: a `turn`, `headers`, that the producer has `started`.
    pub token: u128,
    /// Whether a stream that is not held may be created.
    pub create: bool,
    /// Whether the stream may be run again once its producer is gone.
    pub reruns: bool,
    /// Whether the producer has begun to answer: see [`StreamInfo::started`].
    pub started: bool,
    /// The fingerprint of the request. A request with another one under the same id is refused with [`Opened::OtherFingerprint`]. Without
    /// one nothing is compared, and the stream keeps the one it has.
    pub fingerprint: Option<String>,
    /// How many active streams the owner may have, this one included. A store may admit more while it cannot count them.
    pub limit: Option<usize>,
    /// The metadata that the host keeps with the stream, up to 4 KiB of keys and values.
    ///
    /// A new run's metadata replaces that of the runs before: a job probe must find the job of this run, not of an earlier
    /// one, and a stream that runs again for ever keeps only one run's (guarantee G6). A withdrawal restores the metadata
    /// from before.
    pub metadata: Metadata,
    /// The voice of the producer's route.
    pub voice: Voice,
    /// The conversation that the stream is a turn of. A request without one leaves what the stream has. Where a
    /// conversation points is said apart, by [`Store::point`](crate::Store::point).
    pub turn: Option<Turn>,
    /// The headers of the producer's response, or that they are to come. Those of a new run replace what the run before had.
    pub headers: KeptHeaders,
    /// How long and how much to keep.
    pub retention: Retention,
}

impl Append {
    /// The seq of the last event, or the one before the first where there is none.
    pub(crate) fn last(&self) -> u64 {
        (self.first + self.events.count).saturating_sub(1)
    }
}

impl Open {
    /// The outcome if the request may have nothing to do with a stream that is held, whatever state that is in. A repeat
    /// of the request that registered the producer is told apart before this is asked.
    pub(crate) fn refused_by(&self, origin: Origin, kind: &str, fingerprint: Option<&str>) -> Option<Opened> {
        let same_kind = self.kind == kind;
        match self.origin {
            Origin::Named if origin != Origin::Published && !same_kind => {
                return Some(Opened::OtherKind { kind: Cow::Owned(kind.to_owned()) });
            }
            Origin::Generated if origin != Origin::Generated || !same_kind => return Some(Opened::Missing),
            Origin::Named | Origin::Generated | Origin::Published => {}
        }
        let others = matches!((fingerprint, self.fingerprint.as_deref()), (Some(own), Some(other)) if own != other);
        others.then_some(Opened::OtherFingerprint)
    }
}

/// The outcome of [`Open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The caller is the producer.
    New {
        /// The epoch of its run.
        epoch: u64,
        /// Where the run before ended, if there was one.
        previous: Option<EventId>,
        /// The last id that the inner service gave an event of its own.
        inner_id: Option<String>,
        /// The stream's origin, which may be another one than the request's: see [`Open::origin`].
        origin: Origin,
    },
    /// Another producer runs.
    Active {
        /// Whether it has begun to answer.
        started: bool,
    },
    /// The stream has ended.
    Ended(Ended),
    /// The stream is not held, and was not to be created.
    Missing,
    /// The owner has too many active streams already.
    OverLimit,
    /// The stream was opened by a request with another fingerprint.
    OtherFingerprint,
    /// The inner body of a route of another kind produces the stream, or did.
    OtherKind {
        /// That kind.
        kind: Cow<'static, str>,
    },
}

/// A batch of events of one producer, contiguous, that becomes one entry of the log. It may be empty: then it only says the
/// rest.
///
/// A producer makes its batches as small as a log can be cut where it must be: no more than a sixteenth of the events and
/// bytes that the log may hold, unless one event is larger.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which stream.
    pub key: StreamKey,
    /// The producer's run.
    pub epoch: u64,
    /// Whether the producer has begun to answer: see [`StreamInfo::started`]. Without it, and without events, the stream
    /// is no more started than before: metadata alone does not keep a registration from being withdrawn.
    pub starts: bool,
    /// The seq of the first event.
    pub first: u64,
    /// The events.
    pub events: Frame,
    /// The last id in the batch that the inner service gave an event of its own.
    pub inner_id: Option<String>,
    /// The last reconnect delay, in milliseconds, that the inner service set in or before the batch.
    pub inner_retry: Option<u64>,
    /// Metadata that the host keeps with the stream from now on; a key that is there already is replaced. A pair that would
    /// take keys and values beyond 4 KiB is left out.
    pub metadata: Metadata,
}

/// The outcome of one [`Append`]. Any outcome but `Stored` has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All of it is held.
    Stored,
    /// The producer is not the stream's producer any more.
    Fenced(Fence),
    /// The stream is not held, or only an older run of it: the producer is to [`reopen`](crate::Store::reopen) it.
    Gone,
    /// This stream's part cannot be written now, for a reason that is this stream's own (a key of another
    /// type is in the way, the node of a cluster that holds it is away, the log holds a part of the batch); the others' can.
    /// It is sent again, unchanged.
    Refused,
}

/// Why a producer's word counts no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// A newer run was opened, or this one was interrupted.
    Newer,
    /// The stream has ended.
    Ended(Ended),
}

/// A request to end a stream.
#[derive(Clone, Debug)]
pub struct Close {
    /// Which stream.
    pub key: StreamKey,
    /// Which run; `None` for whichever runs.
    pub epoch: Option<u64>,
    /// How it ends.
    pub ending: Ending,
    /// The seq of the last event made, recorded or not; `None` for the last one recorded.
    pub last: Option<u64>,
    /// Only if the stream's deadline is still this one.
    pub if_deadline: Option<u64>,
    /// Whether an `on_end` hook is to run, and for how long it is the caller's to run.
    pub hook: Option<Duration>,
}

/// The outcome of [`Close`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It ended by this request.
    Now {
        /// Its end.
        ended: Ended,
        /// The node that produced it.
        node: Option<NodeId>,
    },
    /// It had ended before.
    Before(Ended),
    /// Another run than the one named is the newest.
    Newer,
    /// Its deadline has moved: its producer lives.
    Moved,
    /// It is not held, or only an older run than the one named.
    Missing,
}

/// A request to say that a stream has no producer now.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// Which stream.
    pub key: StreamKey,
    /// Which run.
    pub epoch: u64,
    /// The seq of the last event made, recorded or not; `None` for the last one recorded.
    pub last: Option<u64>,
    /// Only if the stream's deadline is still this one.
    pub if_deadline: Option<u64>,
}

/// The outcome of [`Interrupt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It is interrupted, by this request or before.
    Done,
    /// Another run is the newest, or the stream has ended.
    Fenced(Fence),
    /// Its deadline has moved: its producer lives.
    Moved,
    /// It is not held, or only an older run.
    Missing,
}

/// A request to register a running producer again.
#[derive(Clone, Debug)]
pub struct Reopen {
    /// The producer's registration; `create` and `limit` do not matter, and the fingerprint is kept, not compared. What the
    /// store had acknowledged events of has begun to answer, whatever `started` says.
    pub open: Open,
    /// Its run.
    pub epoch: u64,
    /// The seq of the last event that the store had acknowledged before it forgot.
    pub acknowledged: u64,
    /// The last id that the inner service gave an event of its own, whether or not the store had acknowledged it.
    pub inner_id: Option<String>,
    /// The last reconnect delay that the inner service set, in milliseconds.
    pub inner_retry: Option<u64>,
    /// How long ago the run began: the place of a turn whose pointer is put back (see [`Place`](super::Place)).
    pub since: Duration,
}

/// The outcome of [`Reopen`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// It is the stream's producer.
    Registered,
    /// It is not any more.
    Fenced(Fence),
}

/// An event from a publisher that holds no registration.
///
/// It opens the stream if that is not held, and begins a new run of one that ended as [`StreamState::Expired`] without ever
/// having had a producer: nobody said that it is over, only nothing was published for its lifetime. Readers go on with that
/// run after a restart, the expired end is taken back, and so is its `on_end` hook, should that not be done yet. Any other
/// end stays: a stream with a producer, a publication among them, is not opened again under the same id.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Which stream.
    pub key: StreamKey,
    /// What it is for, if this opens it.
    pub kind: Cow<'static, str>,
    /// The event as it goes over the wire, up to its id, which the store gives it; or the terminal event's block, if `ends`
    /// says that it is one.
    pub block: Bytes,
    /// What follows the event's id on the wire.
    pub after_id: Bytes,
    /// The state in which the event ends the stream.
    pub ends: Option<StreamState>,
    /// Makes the request repeatable: a second one with the same key gets the first one's id. Keys are remembered among the
    /// stream's newest 1024, also over a new run.
    pub idempotency_key: Option<String>,
    /// Whether an `on_end` hook is to run, and for how long it is the caller's to run.
    pub hook: Option<Duration>,
    /// How long and how much to keep.
    pub retention: Retention,
}

/// The outcome of [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is held, under this id.
    Stored(EventId),
    /// It is held and ended the stream.
    Ended(Ended),
    /// The stream has a standing producer, which alone may append.
    Conflict,
    /// The stream had ended before.
    EndedBefore(Ended),
}

/// From where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the first entry held of the newest run.
    Newest,
    /// From the first entry held.
    Start,
    /// From the entry that has the first event after this one, or that is the first thing after it.
    After(EventId),
}

/// A request for a page of a log.
///
/// Events that are held together are given together: a page may begin with events up to the cursor, which those after it are
/// held with, and may have more than what is asked for here by the rest of its last entry, and by what was fetched along with
/// that, up to about twice as much. It may have less, where more would take longer: [`Page::more`] says so.
#[derive(Clone, Debug)]
pub struct Read {
    /// Which stream.
    pub key: StreamKey,
    /// From where.
    pub from: From,
    /// About so many events and markers of runs; the end comes on top.
    pub max_events: usize,
    /// About so many bytes of events, but always at least one entry.
    pub max_bytes: usize,
}

/// A page of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the stream stands.
    pub state: StreamState,
    /// The newest run.
    pub epoch: u64,
    /// The newest entry that is known of, or the cursor, if that is higher. Unless there are [`more`](Self::more), no entry
    /// is newer.
    pub top: EventId,
    /// With [`From::After`]: whether the stream ever had a run of that epoch, as far as can be known.
    pub known: bool,
    /// The entries, in order. The end is one of them, once all before it are read.
    pub records: Vec<Record>,
    /// Whether there are more, or may be. There is at least one entry then.
    pub more: bool,
    /// Who named the stream.
    pub origin: Origin,
    /// How the library speaks in the stream.
    pub voice: Voice,
    /// The reconnect delay that the inner service set last, in milliseconds.
    pub inner_retry: Option<u64>,
    /// The headers that are kept of the response of the stream's producer.
    pub headers: KeptHeaders,
}

/// A node's sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Which node.
    pub node: NodeId,
    /// Its streams, and their runs. A stream that is named no more while its node goes on beating may be taken for alive for
    /// up to seven times the stale threshold: a store need not write down each stream each time. Where the streams are the same as
    /// in a beat before, this is the same list, so that a store may keep what it has found out about it.
    pub streams: Arc<[(StreamKey, u64)]>,
    /// How long after this they are overdue.
    pub stale: Duration,
    /// How long a stream lives on after its producer was last heard of: what the streams' keys are renewed
    /// to, where a store has such.
    pub lifetime: Duration,
}

/// The outcome of a [`Beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The store's clock, in unix milliseconds.
    pub now: u64,
    /// Which run of the store answered: another one than before has restarted, or was emptied.
    pub run: u128,
    /// Which of the streams, by index, are not this node's any more.
    pub lost: Vec<usize>,
    /// Which of the streams, by index, it was not said of that they live: their part of the store did not take it. They are
    /// to be named again soon.
    pub missed: Vec<usize>,
    /// The parts of the store ([`Store::part`](super::Store::part)) that did not take all of it.
    pub refused_by: Vec<u64>,
    /// The parts that are known to have taken all of it.
    pub taken_by: Vec<u64>,
}

/// A request to list an owner's streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Whose.
    pub owner: Owner,
    /// The page begins after this stream; `None`: at the beginning. After a stream that is not held any more there is
    /// nothing.
    pub after: Option<StreamId>,
    /// How many streams the page has at most.
    pub limit: usize,
}

/// A page of an owner's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The active ones first, then those that have ended or stand still; of both the newest first, the latter by when they
    /// are forgotten.
    pub streams: Vec<StreamInfo>,
    /// After which stream the next page begins; `None`: there is none.
    pub next: Option<StreamId>,
}

/// A stream that somebody must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What is known of it; its deadline is what the lease wrote.
    pub info: StreamInfo,
    /// Why.
    pub reason: DueReason,
}

/// Why somebody must look at a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueReason {
    /// Its producer was not heard of for longer than the stale threshold.
    Stale,
    /// It outlived its lifetime.
    Lifetime,
    /// Its `on_end` hook has not been acknowledged.
    Hook,
}

/// Where a stream's `on_end` hook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// None is to run.
    None,
    /// One is to run, by whoever finds it due: in unix milliseconds.
    DueAt(u64),
}
