//! Registering a producer.

use std::borrow::Cow;

use crate::model::{
    id::{EventId, NodeId, StreamKey},
    kept::KeptHeaders,
    metadata::Metadata,
    retention::Retention,
    stream::{Ended, Origin},
    turn::Turn,
    voice::Voice,
};

/// A request to register a producer.
#[derive(Clone, Debug)]
pub struct Open {
    /// The stream to produce.
    pub key: StreamKey,
    /// What the stream is for, in the words of its route (see [`StreamInfo::kind`](crate::StreamInfo::kind)).
    pub kind: Cow<'static, str>,
    /// Who produces the stream, and who named it.
    ///
    /// The store compares it with the origin of a stream that it holds:
    ///
    /// - [`Origin::Named`]: if an inner body of another kind produces the stream, or did, the outcome is
    ///   [`Opened::OtherKind`].
    /// - [`Origin::Generated`]: the request comes with a cursor that names the stream. It opens only a stream of the same
    ///   origin and kind. For any other stream the outcome is [`Opened::Missing`], even with `create`.
    /// - [`Origin::Published`]: nothing is compared. Nor is anything compared if the stream that is held was published.
    ///
    /// A new run takes the origin and kind of its request. There is one exception: a stream whose id the library generated
    /// stays [`Origin::Generated`] while inner bodies produce it, since the cursors of its clients begin with that id.
    pub origin: Origin,
    /// The producer's node.
    pub node: NodeId,
    /// Makes the request repeatable: a random number, the same in each repeat.
    ///
    /// A repeat may add a `turn` or `headers`, or set `started`; the store keeps what is added.
    pub token: u128,
    /// Whether the store may create the stream if it does not hold it.
    pub create: bool,
    /// Whether the stream may be run again once its producer is gone.
    pub reruns: bool,
    /// Whether the producer has begun to answer: see [`StreamInfo::started`](crate::StreamInfo::started).
    pub started: bool,
    /// The fingerprint of the request. If the stream was opened with another one, the outcome is
    /// [`Opened::OtherFingerprint`]. `None` compares nothing, and the stream keeps its fingerprint.
    pub fingerprint: Option<String>,
    /// How many active streams the owner may have, this one included. A store may admit more while it cannot count them.
    pub limit: Option<usize>,
    /// The metadata that the host keeps with the stream, up to 4 KiB of keys and values.
    ///
    /// The metadata of a new run replaces that of the run before: a job probe must find the job of this run, and a stream
    /// that is run again for ever must stay bounded (guarantee G6). A withdrawal restores the metadata of the run before.
    pub metadata: Metadata,
    /// The voice of the producer's route.
    pub voice: Voice,
    /// The conversation that the stream is a turn of. `None` leaves the turn of the stream as it is.
    ///
    /// Opening a stream does not move the conversation's pointer; [`Store::point`](crate::Store::point) does.
    pub turn: Option<Turn>,
    /// The headers of the producer's response, or that they are still to come. They replace those of the run before.
    pub headers: KeptHeaders,
    /// How long and how much the store keeps.
    pub retention: Retention,
}

impl Open {
    /// The outcome for a stream that is held but does not fit this request, whatever its state.
    ///
    /// Callers must have handled a repeat of the request that registered the producer before.
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
#[non_exhaustive]
pub enum Opened {
    /// The caller is the producer.
    New {
        /// The epoch of its run.
        epoch: u64,
        /// The last event of the run before, if there was one.
        previous: Option<EventId>,
        /// The last id that the inner service gave an event of its own.
        inner_id: Option<String>,
        /// The origin of the stream. It may differ from the request's: see [`Open::origin`].
        origin: Origin,
    },
    /// Another producer runs.
    Active {
        /// Whether it has begun to answer.
        started: bool,
    },
    /// The stream has ended.
    Ended(Ended),
    /// The store does not hold the stream and was not to create it, or the request's origin does not fit.
    Missing,
    /// The owner has too many active streams already.
    OverLimit,
    /// The stream was opened by a request with another fingerprint.
    OtherFingerprint,
    /// The inner body of a route of another kind produces the stream, or did.
    OtherKind {
        /// The kind of that route.
        kind: Cow<'static, str>,
    },
}
