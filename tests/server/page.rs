//! The demo page, its files, and the button that cuts connections.

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use resilient_sse::test_util::{Transcript, collect};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::example::{
    PATIENCE, Server, answer, by_user, connect_http2, event_source, eventually, get, numbers, some,
};

/// Returns the headers and the text of a file of the page.
async fn file(server: &Server, path: &str) -> (HeaderMap, String) {
    let response = server.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let (parts, body) = response.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (parts.headers, String::from_utf8(text.to_vec()).expect("text"))
}

/// Returns the files that a page or a script loads: the quoted texts after one of these words.
fn loaded(text: &str) -> Vec<&str> {
    let words = [" src=\"", "<link rel=\"icon\" href=\"", "<link rel=\"stylesheet\" href=\"", "} from '"];
    let rests = words.iter().flat_map(|word| text.split(word).skip(1));
    rests.filter_map(|rest| rest.split(['"', '\'']).next()).collect()
}

#[tokio::test]
async fn the_page_is_served_with_all_that_it_names_and_loads_nothing_else() {
    let server = Server::start(&[]);
    let (mut to_look_at, mut seen) = (vec!["/".to_owned()], Vec::new());
    while let Some(path) = to_look_at.pop() {
        let (headers, text) = file(&server, &path).await;
        let kind = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some((_, other)) => panic!("{path}: what is {other}?"),
        };
        assert_eq!(headers[header::CONTENT_TYPE], kind, "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache", "{path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        for link in loaded(&text) {
            let link = link.replace("./", "/demo/");
            if !seen.contains(&link) {
                seen.push(link.clone());
                to_look_at.push(link);
            }
        }
    }
    for path in ["/demo/page.css", "/demo/page.js", "/resilient-sse.js"] {
        assert!(seen.iter().any(|link| link == path), "{path} is not among {seen:?}");
    }
}

#[tokio::test]
async fn the_module_and_the_hook_are_served_as_they_lie_in_their_folder() {
    let server = Server::start(&[]);
    for path in ["/resilient-sse.js", "/react.js"] {
        let (headers, served) = file(&server, path).await;
        assert_eq!(headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        let source = format!("{}/web{path}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(served, std::fs::read_to_string(source).unwrap());
    }
}

#[tokio::test]
async fn a_client_that_has_a_file_is_not_sent_it_again() {
    let server = Server::start(&[]);
    let (headers, _) = file(&server, "/demo/page.js").await;
    let again = async |tag: &str| {
        let response = server.ask(get("/demo/page.js").header(header::IF_NONE_MATCH, tag)).await;
        (response.status(), response.into_body().collect().await.unwrap().to_bytes().is_empty())
    };
    assert_eq!(again(headers[header::ETAG].to_str().unwrap()).await, (StatusCode::NOT_MODIFIED, true));
    assert_eq!(again("\"another\"").await, (StatusCode::OK, false));
}

/// Cuts a stream's readers, and returns the answer.
async fn cut(server: &Server, request: http::request::Builder) -> (StatusCode, Value) {
    answer(server.send(request.header("host", "test").body(Full::default()).unwrap()).await).await
}

/// Reads until the response breaks off.
async fn broken(body: Incoming) -> Transcript {
    let seen = timeout(PATIENCE, collect(body)).await.expect("a break in time");
    assert!(!seen.ended, "it did not break off: {seen:?}");
    seen
}

#[tokio::test]
async fn a_cut_breaks_every_reader_off_within_an_event_and_none_misses_any() {
    let server = Server::start(&[]);
    let path = "/api/stream/cut?n=60&rate=50";
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut response = server.ask(event_source(path)).await;
        let first = some(3, response.body_mut()).await;
        readers.push((first, response.into_body()));
    }
    let asked = cut(&server, Request::post("/demo/cut/cut").header("x-user-id", "u")).await;
    assert_eq!(asked, (StatusCode::OK, json!({ "cut": 2 })));
    for (first, body) in readers {
        let broken = broken(body).await;
        let text = String::from_utf8_lossy(&broken.bytes);
        assert!(!text.is_empty() && !text.ends_with("\n\n"), "it ends within an event: {text:?}");
        let last_id = if broken.last_id().is_empty() { first.last_id() } else { broken.last_id() };
        let rest = server.read(event_source(path).header("last-event-id", last_id)).await;
        assert_eq!([&first, &broken, &rest].map(numbers).concat(), Vec::from_iter(0..60));
    }
}

#[tokio::test]
async fn only_connections_that_read_the_callers_stream_are_cut() {
    let server = Server::start(&[]);
    let mut others = server.ask(get("/api/stream/same?n=40&rate=50").header("x-user-id", "v")).await;
    let mut another = server.ask(by_user("/api/stream/another?n=40&rate=50")).await;
    let first = [some(1, others.body_mut()).await, some(1, another.body_mut()).await];
    for path in ["/demo/cut/same", "/demo/cut/nobody"] {
        let asked = cut(&server, Request::post(path).header("x-user-id", "u")).await;
        assert_eq!(asked, (StatusCode::OK, json!({ "cut": 0 })));
    }
    for (first, response) in first.into_iter().zip([others, another]) {
        let rest = timeout(PATIENCE, collect(response.into_body())).await.expect("an end in time");
        assert_eq!([numbers(&first), numbers(&rest)].concat(), Vec::from_iter(0..40));
    }
    assert_eq!(cut(&server, Request::post("/demo/cut/%20")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_silent_stream_is_cut_without_an_event_and_counted_once() {
    // No heartbeat comes during this test.
    let server = Server::start(&["--heartbeat", "60"]);
    let mut response = server.get("/api/stream?n=1&rate=0&end=never").await;
    // The library has made up its id.
    let path = format!("/demo/cut/{}", response.headers()["x-stream-id"].to_str().unwrap());
    some(1, response.body_mut()).await;
    assert_eq!(cut(&server, Request::post(&path)).await.1, json!({ "cut": 1 }));
    assert_eq!(cut(&server, Request::post(&path)).await.1, json!({ "cut": 0 }));
    assert_eq!(broken(response.into_body()).await.events, []);
}

#[tokio::test]
async fn a_reader_that_has_left_is_not_counted() {
    let server = Server::start(&[]);
    let mut response = server.get("/api/stream/left?n=10000&rate=100").await;
    some(1, response.body_mut()).await;
    drop(response);
    eventually(async || (server.figure("detached").await == 1).then_some(())).await;
    assert_eq!(cut(&server, Request::post("/demo/cut/left")).await.1, json!({ "cut": 0 }));
}

#[tokio::test]
async fn a_cut_over_http2_concerns_one_stream_of_the_connection() {
    let server = Server::start(&[]);
    let mut sender = connect_http2(server.address).await;
    let mut ask = async |id: &str| {
        let uri = format!("http://{}/api/stream/{id}?n=40&rate=50", server.address);
        sender.send_request(Request::get(uri).body(Full::default()).unwrap()).await.expect("an answer").into_body()
    };
    let (first, second) = (ask("first").await, ask("second").await);
    assert_eq!(cut(&server, Request::post("/demo/cut/first")).await.1, json!({ "cut": 1 }));
    broken(first).await;
    let whole = timeout(PATIENCE, collect(second)).await.expect("an end in time");
    assert_eq!(numbers(&whole), Vec::from_iter(0..40));
}

#[tokio::test]
async fn pages_of_other_nodes_on_this_machine_may_read_every_answer_and_no_others() {
    let server = Server::start(&[]);
    let ask = async |method: &str, origin: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "test").header("origin", origin);
        server.ask(request.header("access-control-request-method", "GET")).await
    };
    for origin in ["http://127.0.0.1:3001", "http://localhost:3001", "http://[::1]:3001"] {
        // The stream has ended by the second time, so the library alone answers.
        for path in ["/healthz", "/api/stream/shared?n=1&rate=0", "/api/stream/shared?n=1&rate=0", "/nowhere"] {
            let response = ask("GET", origin, path).await;
            assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin, "{path}");
            let exposed = response.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
            assert!(exposed.contains("X-Stream-Heartbeat") && exposed.contains("Retry-After"), "{exposed}");
            drop(response.into_body().collect().await);
        }
        let asked = ask("OPTIONS", origin, "/api/stream/shared").await;
        assert_eq!(asked.status(), StatusCode::NO_CONTENT);
        let allowed = asked.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert!(allowed.contains("Last-Event-ID"), "{allowed}");
    }
    for origin in ["https://example.com", "http://127.0.0.1.example.com", "http://localhost@example.com", "null"] {
        let response = ask("GET", origin, "/healthz").await;
        assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}");
    }
}
