//! Identifiers: they find the stream that a request means.

use std::borrow::Cow;

use http::request::Parts;

use crate::model::{
    id::{InvalidStreamId, StreamId},
    metadata::Metadata,
};

/// The stream that a request means, with its kind and metadata.
///
/// An id names one answer, one export or one feed: one run of the inner service. Do not use a conversation's id, since
/// a conversation has many answers.
///
/// ```
/// use resilient_sse::{Identity, ResilientSse, StreamId};
///
/// fn exports(sse: &ResilientSse) -> resilient_sse::ResilientSseLayer {
///     sse.generation().id(|request: &http::request::Parts| {
///         let Some(name) = request.uri.path().strip_prefix("/exports/") else { return Identity::bypass() };
///         Identity::from(StreamId::new(name)) // a malformed name is answered with 400
///             .kind("export")
///             .metadata("plan", "paid") // for the job probe and the `on_end` hook
///     })
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(crate) name: Name,
    pub(crate) kind: Option<Cow<'static, str>>,
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Bypass,
    /// The same as `Bypass`, because a path template does not match the request's path.
    OtherPath,
    Generate,
    Id(StreamId),
    Malformed(InvalidStreamId),
}

impl Identity {
    /// Lets the request pass untouched, without a call to the store.
    #[must_use]
    pub fn bypass() -> Self {
        Name::Bypass.into()
    }

    /// Makes each request a new stream whose id the library makes up. The stream is registered once the inner service
    /// has answered with an event stream.
    #[must_use]
    pub fn generate() -> Self {
        Name::Generate.into()
    }

    /// Names the stream.
    #[must_use]
    pub fn id(id: StreamId) -> Self {
        Name::Id(id).into()
    }

    /// Names the stream by a text that a client has sent. A malformed name is answered with 400.
    #[must_use]
    pub fn parse(id: &str) -> Self {
        StreamId::new(id).into()
    }

    /// Sets the stream's kind, in place of the route's. For a turn the kind of the stream's identifier comes before that
    /// of the conversation's.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Keeps a key and a value with the stream. A stream keeps up to 4 KiB of keys and values. For a turn the limit covers
    /// the metadata of both identifiers, the stream's and the conversation's. If both set a key, the stream's value is
    /// kept.
    ///
    /// A request that exceeds the limit is answered with 400, and nothing is stored. A request with a cursor is served
    /// without its metadata instead, since an `EventSource` would give up for good at a 400.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }
}

impl From<Name> for Identity {
    fn from(name: Name) -> Self {
        Self { name, kind: None, metadata: Metadata::new() }
    }
}

impl From<StreamId> for Identity {
    fn from(id: StreamId) -> Self {
        Self::id(id)
    }
}

/// An error is answered with 400. The answer names the rule that the name breaks.
impl From<Result<StreamId, InvalidStreamId>> for Identity {
    fn from(id: Result<StreamId, InvalidStreamId>) -> Self {
        match id {
            Ok(id) => Self::id(id),
            Err(error) => Name::Malformed(error).into(),
        }
    }
}

/// `None` becomes [`Identity::bypass`].
impl<I: Into<Identity>> From<Option<I>> for Identity {
    fn from(identity: Option<I>) -> Self {
        identity.map_or_else(Self::bypass, Into::into)
    }
}

/// Finds the stream that a request means.
///
/// Ready-made identifiers are [`StreamId::path`], [`StreamId::query`], [`StreamId::header`] and
/// [`StreamId::extension`]. A closure is an identifier too, if it returns an [`Identity`], a `StreamId`, or an `Option`
/// or `Result` of one. The closure's parameter type must be written out: `|request: &http::request::Parts| …`.
///
/// An identifier is asked about GET and POST requests alike. If only one of them begins streams, limit a ready-made identifier to
/// it ([`PathTemplate::only`](crate::PathTemplate::only)), or let the closure look at the request's method.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which stream a request means",
    label = "expected `StreamId::path(\"/answers/{{id}}\")`, another ready-made identifier, or a closure",
    note = "a path template is made by `StreamId::path(\"/answers/{{id}}\")`; others are `StreamId::header`, `StreamId::query` and `StreamId::extension`",
    note = "a closure takes the request's head, and its parameter's type must be written out: `|request: &http::request::Parts| …`"
)]
pub trait Identify: Send + Sync + 'static {
    /// Returns the stream that the request with this head means.
    fn identify(&self, request: &Parts) -> Identity;
}

#[diagnostic::do_not_recommend]
impl<F, I> Identify for F
where
    F: Fn(&Parts) -> I + Send + Sync + 'static,
    I: Into<Identity>,
{
    fn identify(&self, request: &Parts) -> Identity {
        self(request).into()
    }
}
