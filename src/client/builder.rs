//! The settings of an event source.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use tower_service::Service;

use super::{
    EventSource,
    connect::{Connector, HeadersHook, Occasion},
    machine::{Machine, Setup},
    policy::{Limits, Policy},
    reader::Reader,
};
use crate::{
    model::{error::BoxError, id::StreamId},
    route::classify::Ends,
};

/// The header with which a repeated POST joins the stream that the first POST began.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The default time limit for the response head of a GET: 2.5 heartbeats of the default interval. The library's servers
/// send the head of a GET within 2 s, whether or not the work has begun.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(37_500);

/// Sets up an [`EventSource`].
#[must_use = "a builder does nothing until it is built"]
pub struct EventSourceBuilder<S, B> {
    service: S,
    request: Request<B>,
    recovery: Option<Request<B>>,
    headers: Option<HeadersHook>,
    last_event_id: String,
    ends: Option<Ends>,
    limits: Limits,
    response_timeout: Option<Duration>,
    max_event_bytes: usize,
}

impl EventSource {
    /// Creates a source with the default settings. The source sends nothing until it is polled.
    ///
    /// The arguments are those of [`builder`](Self::builder).
    pub fn new<S, B, R>(service: S, request: Request<B>) -> Self
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Clone + Send + 'static,
        R: http_body::Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self::builder(service, request).build()
    }

    /// Returns a builder of a source that sends clones of this request, one for each attempt, through clones of this
    /// HTTP client.
    ///
    /// The builder adds `Accept`, `Cache-Control` and, for a POST, a random `Idempotency-Key` where the request has
    /// none.
    pub fn builder<S, B>(service: S, request: Request<B>) -> EventSourceBuilder<S, B> {
        EventSourceBuilder::new(service, request)
    }
}

impl<S, B> EventSourceBuilder<S, B> {
    fn new(service: S, mut request: Request<B>) -> Self {
        let is_post = request.method() == Method::POST;
        let headers = request.headers_mut();
        headers.entry(header::ACCEPT).or_insert(EVENT_STREAM);
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        // A stream's id is always a header value.
        if is_post && let Ok(key) = HeaderValue::try_from(StreamId::random().as_str()) {
            headers.entry(IDEMPOTENCY_KEY).or_insert(key);
        }
        Self {
            service,
            request,
            recovery: None,
            headers: None,
            last_event_id: String::new(),
            ends: None,
            limits: Limits {
                max_attempts: 10,
                min_delay: Duration::from_millis(250),
                max_delay: Duration::from_secs(30),
                heartbeat: None,
            },
            response_timeout: None,
            max_event_bytes: 8 << 20,
        }
    }

    /// Starts after the event with this id, such as the [`EventSource::last_event_id`] of an earlier source. `$` starts
    /// with the events that come from now on. Default: none, so the source starts with the first event of the stream.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.last_event_id = id.into();
        self
    }

    /// Asks the recovery service at this URI first, with the headers of the request. Recovery follows a stream that the
    /// server holds, running or ended, and never runs the work. If recovery answers 404, the source makes the request
    /// itself. Default: recovery is not asked.
    pub fn recover(mut self, uri: Uri) -> Self
    where
        B: Default,
    {
        let mut request = Request::new(B::default());
        *request.uri_mut() = uri;
        *request.version_mut() = self.request.version();
        *request.extensions_mut() = self.request.extensions().clone();
        *request.headers_mut() = self.request.headers().clone();
        let headers = request.headers_mut();
        for of_the_body in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, IDEMPOTENCY_KEY] {
            headers.remove(of_the_body);
        }
        // Recovery answers JSON unless events are preferred.
        headers.insert(header::ACCEPT, EVENT_STREAM);
        self.recovery = Some(request);
        self
    }

    /// Calls a function before each attempt for headers that change, such as a token. The returned headers replace
    /// those of the same name in the request. An error of the function counts as a failed attempt. Default: none.
    ///
    /// After a 401 the source calls the function again, at most once in each attempt. If the function returns different
    /// headers, the source repeats the request at once.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header};
    /// use resilient_sse::client::{EventSourceBuilder, Occasion};
    ///
    /// # async fn token(renewed: bool) -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn with_token<S, B>(builder: EventSourceBuilder<S, B>) -> EventSourceBuilder<S, B> {
    /// builder.headers(|occasion| async move {
    ///     let token = token(occasion == Occasion::Unauthorized).await?;
    ///     let bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
    ///     Ok::<_, resilient_sse::BoxError>(HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]))
    /// })
    /// # }
    /// ```
    pub fn headers<F, Fut, E>(mut self, headers: F) -> Self
    where
        F: Fn(Occasion) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HeaderMap, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.headers = Some(Arc::new(move |occasion| {
            let headers = headers(occasion);
            Box::pin(async move { headers.await.map_err(Into::into) })
        }));
        self
    }

    /// Sets which events are terminal. The library's servers mark a terminal event by its id, so this setting is for
    /// other servers. Default: `completed`, `failed`, `cancelled`, `orphaned` and `expired`, by name or by the JSON's
    /// `type`.
    pub fn ends(mut self, ends: Ends) -> Self {
        self.ends = Some(ends);
        self
    }

    /// Sets after how many attempts in a row without an event the source gives up. Default: 10. The source always makes
    /// at least one attempt.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.limits.max_attempts = attempts;
        self
    }

    /// Sets the shortest wait between two attempts. The wait is longer if the server asks for more. Default: 250 ms.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.limits.min_delay = delay;
        self
    }

    /// Sets the longest wait between two attempts. The wait is longer if the server asks for more. Default: 30 s.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.limits.max_delay = delay;
        self
    }

    /// Sets the heartbeat interval to assume if the response has no `X-Stream-Heartbeat`. The source takes a connection
    /// for dead after 2.5 intervals of silence, at least 1 s. Default: none, so a silent connection without that header
    /// stays open.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.limits.heartbeat = Some(interval);
        self
    }

    /// Sets how long an attempt waits for the response head. The time of the function for headers counts too. Default:
    /// 37.5 s for a GET; no limit for other methods, since their response may have to wait for the work to begin.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = Some(timeout);
        self
    }

    /// Sets the largest size of an event in bytes. The limit holds for the name, data and id together, and for each
    /// line. Default: 8 MiB.
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Creates the source. The source sends nothing until it is polled.
    pub fn build<R>(self) -> EventSource
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Clone + Send + 'static,
        R: http_body::Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let is_get = self.request.method() == Method::GET;
        EventSource(Machine::new(Setup {
            recovers: self.recovery.is_some(),
            is_get,
            policy: Policy::new(self.limits),
            reader: Reader::new(self.ends, &self.last_event_id),
            last_event_id: self.last_event_id,
            max_event_bytes: self.max_event_bytes,
            response_timeout: self.response_timeout.or(is_get.then_some(RESPONSE_TIMEOUT)),
            connect: Box::new(Connector {
                service: self.service,
                stream: self.request,
                recovery: self.recovery,
                headers: self.headers,
            }),
        }))
    }
}

impl<S, B> fmt::Debug for EventSourceBuilder<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourceBuilder")
            .field("method", self.request.method())
            .field("uri", self.request.uri())
            .field("last_event_id", &self.last_event_id)
            .finish_non_exhaustive()
    }
}
