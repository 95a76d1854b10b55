//! One attempt: adds the caller's headers and the cursor to the request, and sends it. The types of the HTTP client are
//! erased here.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use tower_service::Service;

use super::CutCause;
use crate::{model::error::BoxError, node::headers::LAST_EVENT_ID};

/// A response body, with the HTTP client's own type erased.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A boxed future. It is `Send`, so that the source is.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The function that the caller gave to [`EventSourceBuilder::headers`](super::EventSourceBuilder::headers).
pub(super) type HeadersHook = Arc<dyn Fn(Occasion) -> Boxed<Result<HeaderMap, BoxError>> + Send + Sync>;

/// Why the source calls the function for [`headers`](super::EventSourceBuilder::headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occasion {
    /// An attempt begins.
    Attempt,
    /// The server answered 401. A function that caches a token must renew it now.
    Unauthorized,
}

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
    /// Requests the events after the cursor from the target.
    fn connect(&mut self, target: Target, cursor: Option<HeaderValue>) -> Boxed<Result<Response<Body>, CutCause>>;
}

/// Makes attempts with the caller's HTTP client.
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
        let (service, hook) = (self.service.clone(), self.headers.clone());
        Box::pin(async move {
            let Some(hook) = hook else {
                prepare(&mut request, cursor.as_ref(), None);
                return send(service, request).await;
            };
            let first = hook(Occasion::Attempt).await.map_err(CutCause::Headers)?;
            let mut again = request.clone();
            prepare(&mut request, cursor.as_ref(), Some(&first));
            let response = send(service.clone(), request).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let renewed = hook(Occasion::Unauthorized).await.map_err(CutCause::Headers)?;
            if renewed == first {
                return Ok(response);
            }
            drop(response);
            prepare(&mut again, cursor.as_ref(), Some(&renewed));
            send(service, again).await
        })
    }
}

/// Adds the caller's headers and the cursor to a request.
fn prepare<B>(request: &mut Request<B>, cursor: Option<&HeaderValue>, headers: Option<&HeaderMap>) {
    request.headers_mut().extend(headers.cloned().unwrap_or_default());
    if let Some(cursor) = cursor {
        request.headers_mut().insert(LAST_EVENT_ID, cursor.clone());
    }
}

async fn send<S, B, R>(mut service: S, request: Request<B>) -> Result<Response<Body>, CutCause>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    let failed = |error: S::Error| CutCause::Request(error.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let response = service.call(request).await.map_err(failed)?;
    Ok(response.map(erase))
}

fn erase<R>(body: R) -> Body
where
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    // `copy_to_bytes` does not copy data that is `Bytes` already.
    let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
    body.map_err(Into::into).boxed_unsync()
}
