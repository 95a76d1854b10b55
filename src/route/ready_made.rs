//! Ready-made identifiers: a template for the path, a query parameter, a header, an extension.

use http::{HeaderName, Method, request::Parts};

use super::identify::{Identify, Identity, Name};
use crate::{
    model::{
        id::{InvalidStreamId, StreamId},
        percent::decoded,
    },
    node::request::parameter,
};

/// An identifier that makes each request a new stream: see [`Identity::generate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Generate;

impl Generate {
    /// Limits the identifier to requests of this method. Any other request is bypassed.
    #[must_use]
    pub fn only(self, method: Method) -> impl Identify {
        move |request: &Parts| if request.method == method { Identity::generate() } else { Identity::bypass() }
    }
}

impl Identify for Generate {
    fn identify(&self, _: &Parts) -> Identity {
        Identity::generate()
    }
}

/// The method that a ready-made identifier is limited to, and whether it makes up a name for a request without one.
#[derive(Clone, Debug, Default)]
struct Scope {
    only: Option<Method>,
    generates: bool,
}

impl Scope {
    fn identity(&self, request: &Parts, named: impl FnOnce() -> Option<Identity>) -> Identity {
        if self.only.as_ref().is_some_and(|method| *method != request.method) {
            return Identity::bypass();
        }
        named().unwrap_or_else(|| if self.generates { Identity::generate() } else { Identity::bypass() })
    }
}

/// An identifier that reads the stream's id from the path. [`StreamId::path`] makes it.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    segments: Vec<Segment>,
    scope: Scope,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(String),
    Any,
    Id,
}

impl Identify for PathTemplate {
    fn identify(&self, request: &Parts) -> Identity {
        let name = || Some(self.find(request.uri.path()).map_or_else(|| Name::OtherPath.into(), Identity::from));
        self.scope.identity(request, name)
    }
}

impl PathTemplate {
    #[track_caller]
    #[allow(clippy::panic, reason = "a template that protects nothing must not go unnoticed until a client is cut off")]
    fn new(template: &str) -> Self {
        let segment = |text: &str| match text {
            "{id}" => Segment::Id,
            _ if text.starts_with('{') && text.ends_with('}') => Segment::Any,
            _ => Segment::Literal(decoded(text).unwrap_or_else(|_| text.into()).into_owned()),
        };
        let segments: Vec<_> = template.split('/').filter(|text| !text.is_empty()).map(segment).collect();
        if segments.iter().filter(|segment| **segment == Segment::Id).count() != 1 {
            panic!("the path template {template:?} must have exactly one segment `{{id}}`, as `/answers/{{id}}` has");
        }
        Self { segments, scope: Scope::default() }
    }

    /// Returns the stream that the path names, if the end of the path matches the template.
    fn find(&self, path: &str) -> Option<Result<StreamId, InvalidStreamId>> {
        let mut parts = path.rsplit('/');
        let mut id = None;
        for segment in self.segments.iter().rev() {
            let part = parts.next().filter(|part| !part.is_empty())?;
            match segment {
                Segment::Literal(literal) => {
                    decoded(part).ok().filter(|part| part == literal)?;
                }
                Segment::Any => {}
                Segment::Id => id = Some(part),
            }
        }
        Some(decoded(id?).map_err(|_| InvalidStreamId::Encoding).and_then(StreamId::new))
    }
}

/// An identifier that reads the stream's id from a query parameter. [`StreamId::query`] makes it.
#[derive(Clone, Debug)]
pub struct QueryParameter {
    name: &'static str,
    scope: Scope,
}

impl Identify for QueryParameter {
    fn identify(&self, request: &Parts) -> Identity {
        self.scope.identity(request, || Some(Identity::parse(&parameter(request, self.name)?)))
    }
}

/// An identifier that reads the stream's id from a header. [`StreamId::header`] makes it.
#[derive(Clone, Debug)]
pub struct Header {
    name: HeaderName,
    scope: Scope,
}

impl Identify for Header {
    fn identify(&self, request: &Parts) -> Identity {
        // Bytes that are no UTF-8 become U+FFFD, which no id may hold, so they are refused as malformed.
        let name = || Some(Identity::parse(&String::from_utf8_lossy(request.headers.get(&self.name)?.as_bytes())));
        self.scope.identity(request, name)
    }
}

/// An identifier that takes the stream's id from a request extension. [`StreamId::extension`] makes it.
#[derive(Clone, Debug)]
pub struct Extension {
    scope: Scope,
}

impl Identify for Extension {
    fn identify(&self, request: &Parts) -> Identity {
        self.scope.identity(request, || Some(request.extensions.get::<StreamId>()?.clone().into()))
    }
}

/// Ready-made identifiers.
impl StreamId {
    /// Returns an identifier that reads the id from the path segment `{id}`, percent-decoded. Any other `{name}`
    /// matches any segment. A request whose path does not match is bypassed.
    ///
    /// The template matches the end of the path that the layer sees. Segments before it, such as the prefix of an outer
    /// router, do not matter. A router that is nested under a prefix sees only the path after the prefix, so the
    /// template of a layer in it must not name the prefix: in axum's `nest("/answers", …)` the template is `/{id}`.
    ///
    /// # Panics
    ///
    /// If the template does not have exactly one segment `{id}`. Such a template would protect nothing.
    #[must_use]
    #[track_caller]
    pub fn path(template: &str) -> PathTemplate {
        PathTemplate::new(template)
    }

    /// Returns an identifier that reads the id from a query parameter, percent-decoded. A request without the parameter
    /// is bypassed, unless [`or_generate`](QueryParameter::or_generate) is set.
    #[must_use]
    pub fn query(name: &'static str) -> QueryParameter {
        QueryParameter { name, scope: Scope::default() }
    }

    /// Returns an identifier that reads the id from a header such as `Idempotency-Key`. A request without the header is
    /// bypassed, unless [`or_generate`](Header::or_generate) is set.
    #[must_use]
    pub fn header(name: HeaderName) -> Header {
        Header { name, scope: Scope::default() }
    }

    /// Returns an identifier that takes the `StreamId` in the request's extensions. A request without one is bypassed,
    /// unless [`or_generate`](Extension::or_generate) is set.
    #[must_use]
    pub fn extension() -> Extension {
        Extension { scope: Scope::default() }
    }
}

/// Generates `only` for a ready-made identifier.
macro_rules! only {
    ($type:ident) => {
        impl $type {
            /// Limits the identifier to requests of this method. Any other request is bypassed. Without a limit the
            /// identifier is for GET and POST requests.
            ///
            /// Use it around a router in which one path answers GET with a stream and POST with something else.
            /// Otherwise the layer takes the POST for a request for the stream.
            #[must_use]
            pub fn only(mut self, method: Method) -> Self {
                self.scope.only = Some(method);
                self
            }
        }
    };
}

/// Generates `or_generate` for a ready-made identifier whose name a request may lack.
macro_rules! or_generate {
    ($type:ident) => {
        impl $type {
            /// Makes up an id for a request that names no stream, so that it is protected too: see
            /// [`Identity::generate`]. Otherwise such a request is bypassed.
            #[must_use]
            pub fn or_generate(mut self) -> Self {
                self.scope.generates = true;
                self
            }
        }
    };
}

only!(PathTemplate);
only!(QueryParameter);
only!(Header);
only!(Extension);
or_generate!(QueryParameter);
or_generate!(Header);
or_generate!(Extension);

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Parts {
        http::Request::get(uri).body(()).expect("a request").into_parts().0
    }

    fn found(template: &str, path: &str) -> Option<String> {
        StreamId::path(template).find(path).map(|id| id.map_or_else(|error| format!("{error:?}"), |id| id.to_string()))
    }

    #[test]
    fn templates_match_the_path_s_tail() {
        let template = "/chat/{id}/recover";
        assert_eq!(found(template, "/chat/a/recover").as_deref(), Some("a"));
        assert_eq!(found(template, "/v1/api/chat/a/recover").as_deref(), Some("a"));
        assert_eq!(found(template, "/chat/a"), None);
        assert_eq!(found(template, "/chat//recover"), None);
        assert_eq!(found(template, "/a/recover"), None);
        assert_eq!(found("/{tenant}/{id}", "/t/a").as_deref(), Some("a"));
        assert_eq!(StreamId::path("/chat/{id}").identify(&parts("/feed")).name, Name::OtherPath);
        let malformed = StreamId::path("/chat/{id}").identify(&parts("/chat/a%0d%0aX:y")).name;
        assert_eq!(malformed, Name::Malformed(InvalidStreamId::Character { position: 1 }));
    }

    #[test]
    fn a_path_is_decoded_before_it_is_matched_and_read() {
        assert_eq!(found("/chat/{id}", "/chat/a%7Eb").as_deref(), Some("a~b"));
        assert_eq!(found("/chat/{id}", "/ch%61t/user%2d1").as_deref(), Some("user-1"));
        assert_eq!(found("/caf%C3%A9/{id}", "/caf%c3%a9/1").as_deref(), Some("1"));
        assert_eq!(found("/café/{id}", "/caf%C3%A9/1").as_deref(), Some("1"));
        assert_eq!(found("/chat/{id}", "/chat/a%2Fb").as_deref(), Some("Character { position: 1 }"));
        for malformed in ["/chat/%", "/chat/a%4", "/chat/%zz", "/chat/a%ff"] {
            assert_eq!(found("/chat/{id}", malformed).as_deref(), Some("Encoding"), "{malformed}");
        }
        assert_eq!(found("/chat/{id}", "/ch%/a"), None, "what cannot be read does not match");
    }

    #[test]
    fn a_template_without_exactly_one_id_panics_and_names_itself() {
        for template in
            ["", "/", "/chat", "/chat/{chat_id}", "/chat/:id", "/chat/*id", "/{id}/x/{id}", "/chat/{id}.json", "{ID}"]
        {
            let panic = std::panic::catch_unwind(|| StreamId::path(template)).expect_err(template);
            let message = panic.downcast_ref::<String>().expect("a message");
            assert!(message.contains(&format!("{template:?}")) && message.contains("`{id}`"), "{message}");
        }
    }

    #[test]
    fn a_ready_made_identifier_can_be_limited_to_a_method() {
        let mut post = parts("/chat/a?id=a");
        post.method = Method::POST;
        post.headers.insert("idempotency-key", "a".parse().expect("a value"));
        post.extensions.insert(StreamId::new("a").expect("valid"));
        let mut get = post.clone();
        get.method = Method::GET;
        let key = || StreamId::header(HeaderName::from_static("idempotency-key"));
        let limited: [Box<dyn Identify>; 6] = [
            Box::new(StreamId::path("/chat/{id}").only(Method::POST)),
            Box::new(StreamId::query("id").only(Method::POST)),
            Box::new(key().only(Method::POST)),
            Box::new(key().or_generate().only(Method::POST)),
            Box::new(key().only(Method::POST).or_generate()),
            Box::new(StreamId::extension().only(Method::POST)),
        ];
        for identify in limited {
            assert_eq!(identify.identify(&post).name, Name::Id(StreamId::new("a").expect("valid")));
            assert_eq!(identify.identify(&get).name, Name::Bypass);
        }
        assert_eq!(Generate.only(Method::POST).identify(&post).name, Name::Generate);
        assert_eq!(Generate.only(Method::POST).identify(&get).name, Name::Bypass);
    }

    #[test]
    fn a_request_without_a_name_may_get_one() {
        let bare = parts("/");
        let key = || StreamId::header(HeaderName::from_static("idempotency-key"));
        assert_eq!(key().identify(&bare).name, Name::Bypass);
        assert_eq!(key().or_generate().identify(&bare).name, Name::Generate);
        assert_eq!(StreamId::query("id").or_generate().identify(&bare).name, Name::Generate);
        assert_eq!(StreamId::extension().or_generate().identify(&bare).name, Name::Generate);
        let malformed = StreamId::query("id").or_generate().identify(&parts("/?id=")).name;
        assert_eq!(malformed, Name::Malformed(InvalidStreamId::Empty), "a name that was sent is never ignored");
    }

    #[test]
    fn what_a_host_makes_of_a_name_is_refused_where_it_is_malformed() {
        let identify = |request: &Parts| StreamId::new(request.uri.path().trim_start_matches('/'));
        assert_eq!(identify.identify(&parts("/a")).name, Name::Id(StreamId::new("a").expect("valid")));
        let malformed = identify.identify(&parts("/a/b")).name;
        assert_eq!(malformed, Name::Malformed(InvalidStreamId::Character { position: 1 }));
    }

    #[test]
    fn a_query_parameter_names_a_stream() {
        let request = parts("/?x=1&y=a%7Eb");
        assert_eq!(StreamId::query("y").identify(&request).name, Name::Id(StreamId::new("a~b").expect("valid")));
        assert_eq!(StreamId::query("z").identify(&request).name, Name::Bypass);
    }
}
