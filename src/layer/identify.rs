//! Which stream a request means.

use std::borrow::Cow;

use http::{HeaderName, request::Parts};

use crate::{error::InvalidStreamId, id::StreamId, request::parameter, stream::Metadata};

/// What a request is to the layer.
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
        match StreamId::new(id) {
            Ok(id) => Self::id(id),
            Err(error) => Name::Malformed(error).into(),
        }
    }

    /// What the stream is for, in place of the route's kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Keeps something with the stream.
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

/// `None` is [`Identity::bypass`].
impl<I: Into<Identity>> From<Option<I>> for Identity {
    fn from(identity: Option<I>) -> Self {
        identity.map_or_else(Self::bypass, Into::into)
    }
}

/// Says which stream a request means. Implemented for closures that return anything that is an [`Identity`].
pub trait Identify: Send + Sync + 'static {
    /// Looks at a request's head.
    fn identify(&self, request: &Parts) -> Identity;
}

impl<F, I> Identify for F
where
    F: Fn(&Parts) -> I + Send + Sync + 'static,
    I: Into<Identity>,
{
    fn identify(&self, request: &Parts) -> Identity {
        self(request).into()
    }
}

/// A new stream for each request: see [`Identity::generate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Generate;

impl Identify for Generate {
    fn identify(&self, _: &Parts) -> Identity {
        Identity::generate()
    }
}

/// The stream that a part of the path names: made by [`StreamId::path`].
#[derive(Clone, Debug)]
pub struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(String),
    Any,
    Id,
}

impl Identify for PathTemplate {
    fn identify(&self, request: &Parts) -> Identity {
        self.find(request.uri.path()).map(Identity::parse).into()
    }
}

impl PathTemplate {
    fn new(template: &str) -> Self {
        let segment = |text: &str| match text {
            "{id}" => Segment::Id,
            _ if text.starts_with('{') && text.ends_with('}') => Segment::Any,
            _ => Segment::Literal(text.to_owned()),
        };
        Self { segments: template.split('/').filter(|text| !text.is_empty()).map(segment).collect() }
    }

    /// The part of the path that stands where the template says `{id}`, if the path's tail matches.
    fn find<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut parts = path.rsplit('/');
        let mut id = None;
        for segment in self.segments.iter().rev() {
            let part = parts.next().filter(|part| !part.is_empty())?;
            match segment {
                Segment::Literal(literal) if literal != part => return None,
                Segment::Literal(_) | Segment::Any => {}
                Segment::Id => id = Some(part),
            }
        }
        id
    }
}

/// The stream that a query parameter names: made by [`StreamId::query`].
#[derive(Clone, Debug)]
pub struct QueryParameter(&'static str);

impl Identify for QueryParameter {
    fn identify(&self, request: &Parts) -> Identity {
        parameter(request, self.0).map(|id| Identity::parse(&id)).into()
    }
}

/// The stream that a header names: made by [`StreamId::header`].
#[derive(Clone, Debug)]
pub struct Header(HeaderName);

impl Identify for Header {
    fn identify(&self, request: &Parts) -> Identity {
        // Bytes that are no text are no id either: the lossy text says so.
        request.headers.get(&self.0).map(|id| Identity::parse(&String::from_utf8_lossy(id.as_bytes()))).into()
    }
}

/// The stream that a request extension names: made by [`StreamId::extension`].
#[derive(Clone, Copy, Debug)]
pub struct Extension(());

impl Identify for Extension {
    fn identify(&self, request: &Parts) -> Identity {
        request.extensions.get::<StreamId>().cloned().into()
    }
}

/// Ready-made ways to say which stream a request means.
impl StreamId {
    /// By the segment `{id}` of the path; any other `{name}` matches any segment.
    ///
    /// The template matches the tail of the path that the layer sees: what stands before it, such as
    /// the prefix of a router around, does not matter. A router that is nested under a prefix sees
    /// only what follows it, so a layer in there must not name the prefix: in axum's
    /// `nest("/chat", …)` the template is `/{id}`. A path that does not match is bypassed.
    #[must_use]
    pub fn path(template: &str) -> PathTemplate {
        PathTemplate::new(template)
    }

    /// By a query parameter; a request without it is bypassed.
    #[must_use]
    pub fn query(name: &'static str) -> QueryParameter {
        QueryParameter(name)
    }

    /// By a header such as `Idempotency-Key`; a request without it is bypassed.
    #[must_use]
    pub fn header(name: HeaderName) -> Header {
        Header(name)
    }

    /// By a `StreamId` in the request's extensions; a request without it is bypassed.
    #[must_use]
    pub fn extension() -> Extension {
        Extension(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Parts {
        http::Request::get(uri).body(()).expect("a request").into_parts().0
    }

    #[test]
    fn templates_match_the_path_s_tail() {
        let template = StreamId::path("/chat/{id}/recover");
        assert_eq!(template.find("/chat/a/recover"), Some("a"));
        assert_eq!(template.find("/v1/api/chat/a/recover"), Some("a"));
        assert_eq!(template.find("/chat/a"), None);
        assert_eq!(template.find("/chat//recover"), None);
        assert_eq!(template.find("/a/recover"), None);
        assert_eq!(StreamId::path("/{tenant}/{id}").find("/t/a"), Some("a"));
        assert_eq!(StreamId::path("/chat/{id}").identify(&parts("/feed")).name, Name::Bypass);
        let malformed = StreamId::path("/chat/{id}").identify(&parts("/chat/a%0d%0aX:y")).name;
        assert_eq!(malformed, Name::Malformed(InvalidStreamId::Character { position: 1 }));
    }

    #[test]
    fn a_query_parameter_names_a_stream() {
        let request = parts("/?x=1&y=a%7Eb");
        assert_eq!(StreamId::query("y").identify(&request).name, Name::Id(StreamId::new("a~b").expect("valid")));
        assert_eq!(StreamId::query("z").identify(&request).name, Name::Bypass);
    }
}
