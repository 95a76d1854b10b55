//! The requests that a source sends: headers, cursors and targets.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_get_asks_for_an_event_stream() {
    let server = Server::with([Answer::status(204)]);
    all(&mut server.get().build()).await;
    let asked = &server.asked()[0];
    assert_eq!((asked.header("accept"), asked.header("cache-control")), ("text/event-stream", "no-store"));
    assert_eq!((asked.header("last-event-id"), asked.header("idempotency-key")), ("", ""));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_of_a_post_are_the_same_request() {
    let server = Server::with([Answer::Unreachable, Answer::status(503), Answer::status(204)]);
    all(&mut server.post().build()).await;
    let keys: Vec<_> = server.asked().iter().map(|asked| asked.header("idempotency-key").to_owned()).collect();
    assert_eq!((keys.len(), keys[0].len()), (3, 36));
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    for asked in server.asked() {
        assert_eq!(asked.request.into_body().collect().await.unwrap().to_bytes(), "question");
    }
    all(&mut server.post().build()).await;
    assert_ne!(server.asked()[3].header("idempotency-key"), keys[0], "another source is another request");

    let own = Request::post("/").header("idempotency-key", "mine").header("accept", "application/json");
    all(&mut EventSource::new(server.clone(), own.body(Full::default()).unwrap())).await;
    let asked = &server.asked()[4];
    assert_eq!((asked.header("idempotency-key"), asked.header("accept")), ("mine", "application/json"));
}

#[tokio::test(start_paused = true)]
async fn headers_are_made_for_each_attempt() {
    let server = Server::with([
        Answer::events(["id: 1\ndata: a\n\n"]).then(Part::Break),
        Answer::status(500),
        Answer::status(401),
        Answer::status(204),
    ]);
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let hook = move |occasion| {
        // This hook cannot renew a refused token: it returns the same token again.
        let call = match occasion {
            Occasion::Attempt => count.fetch_add(1, Ordering::Relaxed),
            Occasion::Unauthorized => count.load(Ordering::Relaxed) - 1,
        };
        async move {
            tokio::task::yield_now().await;
            if call == 1 {
                return Err("the token server is away");
            }
            let token = (header::AUTHORIZATION, HeaderValue::from(call));
            Ok(HeaderMap::from_iter([token, (header::ACCEPT_LANGUAGE, HeaderValue::from_static("la"))]))
        }
    };
    let request = Request::get("/").header("accept-language", "en").body(Full::<Bytes>::default()).unwrap();
    let mut source = EventSource::builder(server.clone(), request).headers(hook).build();
    let told = all(&mut source).await;
    assert_eq!(told[3], "cut: the function for headers failed");
    assert_eq!(told.last().unwrap(), "gave up: the server refused the stream: 401 Unauthorized");
    // The next attempt gets a new token, and the same source goes on.
    source.reconnect();
    assert_eq!(all(&mut source).await, ["ended: -"]);
    let asked = server.asked();
    let tokens: Vec<_> = asked.iter().map(|asked| asked.header("authorization")).collect();
    assert_eq!(tokens, ["0", "2", "3", "4"]);
    assert!(asked.iter().all(|asked| asked.header("accept-language") == "la"));
    assert_eq!(server.cursors(), ["", "1", "1", "1"]);
}

/// The source renews a refused token within the attempt, once per attempt.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_renewed() {
    let server = Server::with([
        Answer::status(401),
        Answer::events(["id: 1\ndata: a\n\n"]).then(Part::Break),
        Answer::status(401),
    ]);
    let renewals = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&renewals);
    let hook = move |occasion| {
        let renewal = u32::from(occasion == Occasion::Unauthorized);
        let token = count.fetch_add(renewal, Ordering::Relaxed) + renewal;
        std::future::ready(Ok::<_, std::io::Error>(HeaderMap::from_iter([(header::AUTHORIZATION, token.into())])))
    };
    let mut source = server.get().headers(hook).build();
    let told = all(&mut source).await;
    let refused = "gave up: the server refused the stream: 401 Unauthorized";
    assert_eq!(told, ["connected", "a", "cut: the response broke off", refused]);
    let asked = server.asked();
    let tokens: Vec<_> = asked.iter().map(|asked| asked.header("authorization")).collect();
    assert_eq!(
        (tokens, server.cursors()),
        (vec!["0", "1", "1", "2"], vec!["".into(), "".into(), "1".into(), "1".into()])
    );
    assert_eq!(server.waits()[0], std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_no_header_can_carry_is_final() {
    let server = Server::with([Answer::events(["id: a\u{1}b\ndata: a\n\n"]).then(Part::Break)]);
    let told = all(&mut server.get().build()).await;
    assert_eq!(told.last().unwrap(), "gave up: the last event id cannot be sent in a header: \"a\\u{1}b\"");
    let server = Server::with([Answer::events(["id: ä\ndata: a\n\n"]).then(Part::Break), Answer::status(204)]);
    all(&mut server.get().build()).await;
    assert_eq!(server.asked()[1].request.headers()["last-event-id"].as_bytes(), "ä".as_bytes());
}

#[tokio::test(start_paused = true)]
async fn recovery_is_asked_first_and_once_it_answers_no_more() {
    let server = Server::with([
        Answer::status(503),
        Answer::events(["id: e1-1\ndata: a\n\n"]).then(Part::Break),
        Answer::events(["id: e2-0\nevent: completed\ndata: b\n\n"]),
    ]);
    let recover = || "http://test/recover".parse().unwrap();
    let mut source = server.post().recover(recover()).build();
    let told = all(&mut source).await;
    assert_eq!((told[2].as_str(), told.last().unwrap().as_str()), ("a", "ended: b"));
    let asked = server.asked();
    let targets: Vec<_> =
        asked.iter().map(|asked| (asked.request.method().clone(), asked.request.uri().path())).collect();
    assert_eq!(targets, [(Method::GET, "/recover"), (Method::GET, "/recover"), (Method::POST, "/stream")]);
    assert_eq!((asked[0].header("idempotency-key"), asked[0].header("accept")), ("", "text/event-stream"));
    assert_eq!(server.cursors(), ["", "", "e1-1"]);

    // If recovery does not know the stream, the source makes the request itself at once.
    let server = Server::with([Answer::status(404), Answer::events(["event: completed\ndata: b\n\n"])]);
    let mut source = server.get().recover(recover()).build();
    assert_eq!(all(&mut source).await, ["connected", "ended: b"]);
    assert_eq!(server.waits(), [std::time::Duration::ZERO]);
    // A 404 from the stream itself is final. So is a refusal by recovery with any other status.
    let server = Server::with([Answer::status(404)]);
    assert_eq!(all(&mut server.get().recover(recover()).build()).await.len(), 1);
    assert_eq!(server.asked().len(), 2);
    let server = Server::with([Answer::status(401)]);
    all(&mut server.get().recover(recover()).build()).await;
    assert_eq!(server.asked().len(), 1);
}
