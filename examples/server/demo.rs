//! The demo page at `/`, its files, and the route that cuts its connections.
//!
//! The files are compiled into the server, so it needs neither Node nor the source folder at run time. The files of the
//! browser module come from `web/` unchanged, without a build step.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use resilient_sse::StreamKey;
use serde_json::json;

use crate::{
    control::{self, Caller},
    routes::{App, Refused},
};

/// The `Content-Security-Policy` of the page. It may load its own files, and send requests to nodes on this machine.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self' http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that is compiled into the server.
struct File {
    route: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! files {
    ($($route:literal, $kind:ident, $path:literal;)*) => {
        [$(File { route: $route, kind: $kind, content: include_str!($path) }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static FILES: &[File] = &files! {
    "/", HTML, "page/index.html";
    "/demo/icon.svg", SVG, "page/icon.svg";
    "/demo/page.css", CSS, "page/page.css";
    "/demo/parts.css", CSS, "page/parts.css";
    "/demo/widths.css", CSS, "page/widths.css";
    "/demo/page.js", SCRIPT, "page/page.js";
    "/demo/follow.js", SCRIPT, "page/follow.js";
    "/demo/health.js", SCRIPT, "page/health.js";
    "/demo/nodes.js", SCRIPT, "page/nodes.js";
    "/demo/run.js", SCRIPT, "page/run.js";
    "/demo/timeline.js", SCRIPT, "page/timeline.js";
    "/demo/transcript.js", SCRIPT, "page/transcript.js";
    "/resilient-sse.js", SCRIPT, "../../web/resilient-sse.js";
    "/react.js", SCRIPT, "../../web/react.js";
};

impl File {
    /// Answers with the file, or with 304 if the client has it. The client must ask each time (`no-cache`): after an
    /// update of the server an old script must not run in a new page.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let headers = [
            (header::ETAG, &*tag),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_TYPE, self.kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // The URL of the page contains the id of its stream, and the id of an anonymous stream is a secret.
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        if known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.content).into_response()
    }
}

pub(crate) fn routes() -> Router<App> {
    let cut = Router::new().route("/demo/cut/{id}", post(cut));
    FILES.iter().fold(cut, |router, file| router.route(file.route, get(async |asked: HeaderMap| file.answer(&asked))))
}

/// Serves `POST /demo/cut/{id}`: drops every connection of the caller to this node that reads the stream. It drops them
/// in the middle of an event if one comes in time. The response has the number of connections.
async fn cut(State(app): State<App>, Caller(owner): Caller, Path(id): Path<String>) -> Result<Response, Refused> {
    let stream = StreamKey::new(owner, control::stream_id(&id)?);
    Ok(control::json(StatusCode::OK, &json!({ "cut": app.readers.cut(&stream) })))
}
