//! The library's own error answers.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};

use crate::{
    model::{
        id::{InvalidStreamId, StreamId},
        metadata::MetadataTooLarge,
    },
    node::{
        head::Head,
        headers::{no_store, stream_id},
    },
};

/// The reason for an error answer of the library's own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// 400: the stream's name breaks the rule for names.
    MalformedId(InvalidStreamId),
    /// 400: the conversation's name breaks the rule for names, which is the same as for streams.
    MalformedConversation(InvalidStreamId),
    /// 400: the metadata that the route's identifier returned exceeds the limit of 4 KiB.
    MetadataTooLarge(MetadataTooLarge),
    /// 400: a query parameter breaks its rule. The text names the parameter and the rule.
    BadQuery(&'static str),
    /// 401: the owner rule found no owner. The answer carries the challenge of
    /// [`Builder::challenge`](crate::Builder::challenge).
    Unauthorized,
    /// 404: there is no such stream, the stream is another owner's, or access was denied. A client cannot tell which.
    NotFound,
    /// 405: the service does not answer this method. Recovery, relays and resumes answer GET, HEAD and OPTIONS. Stops
    /// answer DELETE, POST and OPTIONS.
    MethodNotAllowed,
    /// 409: a stream of the conversation runs and the route refuses new turns meanwhile
    /// ([`Overlap::Refuse`](crate::Overlap::Refuse)), or 64 turns of the conversation wait for their handlers to
    /// answer. `X-Stream-Id` names the running stream.
    Running {
        /// The id of the running stream.
        stream: StreamId,
    },
    /// 409: the stream is a turn of another conversation. The handler has named a second conversation, or the request
    /// names a stream of another conversation than its own.
    OtherConversation,
    /// 409: a route of another kind produces this stream. Two routes share ids by mistake.
    OtherKind {
        /// The kind of the stream.
        kind: Cow<'static, str>,
    },
    /// 422: a request with another fingerprint has opened the stream.
    OtherRequest,
    /// 429: the owner has too many active streams.
    TooManyStreams {
        /// How many active streams an owner may have.
        limit: usize,
    },
    /// 503: the store does not answer. Recovery, and routes with
    /// [`OnUnavailable::Status`](crate::OnUnavailable::Status), give this answer even to an `EventSource`, if it has no
    /// cursor.
    Unavailable,
    /// 503: the stream cannot be served now, and the client should try again. The process shuts down, the store does
    /// not answer or was emptied, or the owner has too many active streams. A GET that asks for `text/event-stream` by
    /// name gets 200, `retry:` and a body that breaks instead.
    ComeAgain,
}

impl Rejection {
    /// Returns the status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MalformedId(_) | Self::MalformedConversation(_) | Self::MetadataTooLarge(_) | Self::BadQuery(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OtherKind { .. } | Self::Running { .. } | Self::OtherConversation => StatusCode::CONFLICT,
            Self::OtherRequest => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::ComeAgain => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the library's answer, before the application shapes it.
    pub(crate) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        no_store(headers);
        match self {
            Self::TooManyStreams { .. } | Self::Unavailable | Self::ComeAgain => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::MethodNotAllowed => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            }
            Self::Running { stream } => stream_id(headers, stream),
            _ => {}
        }
        response
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedId(error) => error.fmt(f),
            Self::MalformedConversation(error) => write!(f, "a conversation is named like a stream, and {error}"),
            Self::MetadataTooLarge(error) => error.fmt(f),
            Self::BadQuery(rule) => f.write_str(rule),
            Self::Unauthorized => f.write_str("nobody is signed in"),
            Self::NotFound => f.write_str("there is no such stream"),
            Self::MethodNotAllowed => f.write_str("this method is not answered here"),
            Self::Running { stream } => write!(f, "the stream {stream} of this conversation runs"),
            Self::OtherConversation => f.write_str("the stream is a turn of another conversation"),
            Self::OtherKind { kind } => write!(f, "a route of another kind, `{kind}`, produces this stream"),
            Self::OtherRequest => f.write_str("this stream was opened by another request"),
            Self::TooManyStreams { limit } => write!(f, "{limit} streams are running, and no more are allowed"),
            Self::Unavailable => f.write_str("the store of streams does not answer"),
            Self::ComeAgain => f.write_str("this stream cannot be served now: try again"),
        }
    }
}

impl std::error::Error for Rejection {}

pub(crate) type OnReject = dyn Fn(&Rejection, &Parts, Response<Bytes>) -> Response<Bytes> + Send + Sync;

/// Makes the error answers. The application may shape them ([`Builder::on_reject`](crate::Builder::on_reject)).
#[derive(Clone, Default)]
pub(crate) struct Rejecter {
    pub(crate) on_reject: Option<Arc<OnReject>>,
    /// The `WWW-Authenticate` of a 401.
    pub(crate) challenge: Option<HeaderValue>,
}

impl Rejecter {
    /// Adds the challenge to a 401, and lets the application shape the answer.
    pub(crate) fn shape(&self, rejection: &Rejection, head: &Head, mut response: Response<Bytes>) -> Response<Bytes> {
        if let (Rejection::Unauthorized, Some(challenge)) = (rejection, &self.challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        match (&self.on_reject, head.parts()) {
            (Some(shape), Some(request)) => shape(rejection, request, response),
            _ => response,
        }
    }
}
