//! Which stream a request means.

use std::borrow::Cow;

use http::request::Parts;

use crate::model::{
    id::{InvalidStreamId, StreamId},
    metadata::Metadata,
};

/// What a request is to the layer.
///
/// An id names one answer, one export, one feed: one run of the inner service. Do not use a conversation's id: a
/// conversation has many answers.
///
/// ```
/// use resilient_sse::{Identity, ResilientSse, StreamId};
///
/// fn exports(sse: &ResilientSse) -> resilient_sse::ResilientSseLayer {
///     sse.generation().id(|request: &http::request::Parts| {
///         let Some(name) = request.uri.path().strip_prefix("/exports/") else { return Identity::bypass() };
///         Identity::from(StreamId::new(name)) // 400 where the name breaks the rule for names
///             .kind("export")
///             .metadata("plan", "paid") // a job probe and the `on_end` hook get it
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
    Generate,
    Id(StreamId),
    Malformed(InvalidStreamId),
}

impl Identity {
    /// Not the layer's business: passes untouched, with no call to the store.
    #[must_use]
    pub fn bypass() -> Self {
        Name::Bypass.into()
    }

    /// A new stream each time, whose id the library makes up once the inner service has answered
    /// with an event stream.
    #[must_use]
    pub fn generate() -> Self {
        Name::Generate.into()
    }

    /// This stream.
    #[must_use]
    pub fn id(id: StreamId) -> Self {
        Name::Id(id).into()
    }

    /// The stream of this name, which a client has sent; answered with 400 if it is malformed.
    #[must_use]
    pub fn parse(id: &str) -> Self {
        StreamId::new(id).into()
    }

    /// What the stream is for, in place of the route's kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Keeps something with the stream: up to 4 KiB of keys and values in all.
    ///
    /// Beyond that the request is answered with 400, which names the limit, and nothing is stored. A request with a
    /// cursor goes on without its metadata, since an `EventSource` would give up for good at a 400.
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

/// A malformed name is answered with 400, which names the rule.
impl From<Result<StreamId, InvalidStreamId>> for Identity {
    fn from(id: Result<StreamId, InvalidStreamId>) -> Self {
        match id {
            Ok(id) => Self::id(id),
            Err(error) => Name::Malformed(error).into(),
        }
    }
}

/// `None` is [`Identity::bypass`].
impl<I: Into<Identity>> From<Option<I>> for Identity {
    fn from(identity: Option<I>) -> Self {
        identity.map_or_else(Self::bypass, Into::into)
    }
}

/// Says which stream a request means.
///
/// Ready-made ones are [`StreamId::path`], [`StreamId::query`], [`StreamId::header`] and [`StreamId::extension`]. Any
/// closure that returns an [`Identity`], or what becomes one (a `StreamId`, an `Option` or a `Result` of it), is one too; its
/// parameter's type must be written out: `|request: &http::request::Parts| …`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which stream a request means",
    label = "expected `StreamId::path(\"/answers/{{id}}\")`, another ready-made identifier, or a closure",
    note = "a path template is made by `StreamId::path(\"/answers/{{id}}\")`; others are `StreamId::header`, `StreamId::query` and `StreamId::extension`",
    note = "a closure takes the request's head, and its parameter's type must be written out: `|request: &http::request::Parts| …`"
)]
pub trait Identify: Send + Sync + 'static {
    /// Looks at a request's head.
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
