//! Lets the demo page of one node on this machine read the responses of another node.
//!
//! A real service lists the origins that it trusts, usually with a ready-made CORS layer. A CORS layer belongs outside
//! of the library's layer: for a replay or a 204 the library does not call the inner service, so an inner layer would
//! not run.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

/// The headers of every response to such a page, apart from `Access-Control-Allow-Origin`.
const ALLOWED: [(HeaderName, &str); 5] = [
    (header::VARY, "Origin"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "Last-Event-ID, Idempotency-Key, Authorization, Content-Type, X-User-Id"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "X-Stream-Id, X-Stream-Recorded, X-Stream-Heartbeat, Retry-After"),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Allows pages from loopback addresses to read all responses. For any other page nothing changes.
pub(crate) async fn allow_loopback(request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).filter(|origin| is_loopback(origin)).cloned() else {
        return next.run(request).await;
    };
    let asks_only =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_only { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (name, value) in ALLOWED {
        headers.append(name, HeaderValue::from_static(value));
    }
    response
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]"))
}
