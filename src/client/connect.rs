//! One attempt: the caller's headers, the cursor, and the HTTP client, whose types end here.

use std::{future::poll_fn, pin::Pin};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use tower_service::Service;

use super::CutCause;
use crate::{model::error::BoxError, node::headers::LAST_EVENT_ID};

/// A response's body, of whichever HTTP client.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A future that can be kept beside others in a source that is `Send`.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The caller's function for headers.
pub(super) type HeadersHook = Box<dyn FnMut() -> Boxed<Result<HeaderMap, BoxError>> + Send>;

/// Which resource an attempt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The recovery service, which never runs the work.
    Recovery,
    /// The stream itself.
    Stream,
}

/// Makes attempts.
pub(super) trait Connect: Send {
    /// An attempt at the target, from after the cursor.
    fn connect(&mut self, target: Target, cursor: Option<HeaderValue>) -> Boxed<Result<Response<Body>, CutCause>>;
}

/// Makes attempts with an HTTP client.
pub(super) struct Connector<S, B> {
    pub(super) service: S,
    pub(super) stream: Request<B>,
    pub(super) recovery: Option<Request<B>>,
    pub(super) headers: Option<HeadersHook>,
}

impl<S, B, R> Connect for Connector<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Clone + Send + 'static,
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn connect(&mut self, target: Target, cursor: Option<HeaderValue>) -> Boxed<Result<Response<Body>, CutCause>> {
        let wanted = self.recovery.as_ref().filter(|_| target == Target::Recovery);
        let mut request = wanted.unwrap_or(&self.stream).clone();
        let mut service = self.service.clone();
        let headers = self.headers.as_mut().map(|hook| hook());
        Box::pin(async move {
            if let Some(headers) = headers {
                request.headers_mut().extend(headers.await.map_err(CutCause::Headers)?);
            }
            if let Some(cursor) = cursor {
                request.headers_mut().insert(LAST_EVENT_ID, cursor);
            }
            let failed = |error: S::Error| CutCause::Request(error.into());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            let response = service.call(request).await.map_err(failed)?;
            Ok(response.map(erase))
        })
    }
}

fn erase<R>(body: R) -> Body
where
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    // `Bytes` are passed on, not copied.
    let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    body.map_err(Into::into).boxed_unsync()
}
