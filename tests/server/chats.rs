//! Conversations: a turn, the next turn, a page that is loaded again, a stop.

use http::{Request, Response, StatusCode, request};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::json;

use crate::support::example::{Server, event_source, eventually, numbers, some, until, whole};

const CHAT: &str = "/api/chat/c1";
const STREAM: &str = "/api/chat/c1/stream";

fn by(user: &str, request: request::Builder) -> request::Builder {
    request.header("host", "test").header("x-user-id", user)
}

/// Begins a turn of the conversation, as the user `u`.
async fn turn(server: &Server, body: &str) -> Response<Incoming> {
    server.send(by("u", Request::post(CHAT)).body(Full::from(body.to_owned())).unwrap()).await
}

async fn ask(server: &Server, user: &str, request: request::Builder) -> Response<Incoming> {
    server.send(by(user, request).body(Full::<Bytes>::default()).unwrap()).await
}

fn id(response: &Response<Incoming>) -> String {
    response.headers()["x-stream-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_turns_within_five_minutes_give_two_answers() {
    let server = Server::start(&[]);
    let first = turn(&server, r#"{"n":3,"rate":0}"#).await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let first = (id(&first), whole(first).await);
    let second = turn(&server, "").await;
    let second = (id(&second), some(5, &mut second.into_body()).await);
    assert_ne!(first.0, second.0);
    assert_eq!((numbers(&first.1), first.1.names().last().copied()), (vec![0, 1, 2], Some("completed")));
    assert_eq!(numbers(&second.1), Vec::from_iter(0..5));
    let bad = turn(&server, r#"{"n":-1}"#).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    let bad = ask(&server, "u", Request::post("/api/chat/a%20b")).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_page_that_is_loaded_again_resumes() {
    let server = Server::start(&[]);
    let nothing = async |user| ask(&server, user, Request::get(STREAM)).await.status();
    assert_eq!(nothing("u").await, StatusCode::NO_CONTENT);
    let response = turn(&server, r#"{"n":60,"rate":100}"#).await;
    let named = id(&response);
    let seen = some(5, &mut response.into_body()).await;
    assert_eq!(nothing("mallory").await, StatusCode::NO_CONTENT, "another's conversation has no stream");

    let plain = by("u", Request::get(STREAM)).header("accept", "application/json");
    let mut from_the_start = server.send(plain.body(Full::default()).unwrap()).await;
    assert_eq!((from_the_start.status(), id(&from_the_start)), (StatusCode::OK, named.clone()));
    assert_eq!(numbers(&some(8, from_the_start.body_mut()).await), Vec::from_iter(0..8));

    let rest = server.ask(event_source(STREAM).header("last-event-id", seen.last_id())).await;
    let rest = whole(rest).await;
    assert_eq!(numbers(&rest), Vec::from_iter(5..60));
    let before_the_end = &rest.events[rest.events.len() - 2].id;
    let again = async |cursor: &str| server.ask(event_source(STREAM).header("last-event-id", cursor)).await;
    assert_eq!(again(rest.last_id()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(nothing("u").await, StatusCode::NO_CONTENT, "it has ended");
    let end = again(before_the_end).await;
    assert_eq!(end.status(), StatusCode::OK);
    assert_eq!(whole(end).await.names(), ["completed"]);
}

#[tokio::test]
async fn the_same_key_is_the_same_turn() {
    let server = Server::start(&[]);
    let post = async || {
        let request = by("u", Request::post(CHAT)).header("idempotency-key", "k1");
        server.send(request.body(Full::from(r#"{"n":20,"rate":100}"#)).unwrap()).await
    };
    let first = post().await;
    assert_eq!(id(&first), "k1");
    drop(first);
    let second = whole(post().await).await;
    assert_eq!(numbers(&second), Vec::from_iter(0..20));
    assert_eq!(server.figure("started").await, 1);
}

#[tokio::test]
async fn a_new_turn_replaces_the_running_one() {
    let server = Server::start(&[]);
    let mut old = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    some(2, old.body_mut()).await;
    let new = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    let named = id(&new);
    let told = until("event: cancelled", old.body_mut()).await;
    assert!(told.contains(r#""reason":"replaced""#), "{told}");
    let resumed = ask(&server, "u", Request::get(STREAM)).await;
    assert_eq!(id(&resumed), named);
    eventually(async || (server.figure("active").await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_new_turn_is_refused_or_runs_beside() {
    let server = Server::start(&["--overlap", "refuse"]);
    let mut first = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    some(1, first.body_mut()).await;
    let refused = turn(&server, "{}").await;
    assert_eq!((refused.status(), id(&refused)), (StatusCode::CONFLICT, id(&first)));
    assert_eq!(ask(&server, "u", Request::delete(STREAM)).await.status(), StatusCode::ACCEPTED);
    assert_eq!(whole(turn(&server, r#"{"n":1,"rate":0}"#).await).await.names().last(), Some(&"completed"));

    let server = Server::start(&["--overlap", "allow"]);
    let mut first = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    some(1, first.body_mut()).await;
    let second = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    some(30, first.body_mut()).await;
    assert_eq!(server.figure("active").await, 2);
    assert_eq!(id(&ask(&server, "u", Request::get(STREAM)).await), id(&second));
    let output = crate::support::example::command(&["--overlap", "both"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("replace, refuse, allow"));
}

#[tokio::test]
async fn a_stop_stops_what_it_means() {
    let server = Server::start(&[]);
    let stop = async |user: &str, query: &str| ask(&server, user, Request::delete(format!("{STREAM}{query}"))).await;
    assert_eq!(stop("u", "").await.status(), StatusCode::NOT_FOUND);
    let mut old = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    let stale = id(&old);
    let new = turn(&server, r#"{"n":100000,"rate":50}"#).await;
    until("event: cancelled", old.body_mut()).await;
    assert_eq!(stop("u", &format!("?stream={stale}")).await.status(), StatusCode::NOT_FOUND, "a stale stop");
    assert_eq!(stop("mallory", "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(stop("mallory", &format!("?stream={}", id(&new))).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.figure("active").await, 1);
    let stopped = stop("u", &format!("?stream={}", id(&new))).await;
    assert_eq!((stopped.status(), id(&stopped)), (StatusCode::ACCEPTED, id(&new)));
    let named = id(&new);
    let last = whole(new).await;
    assert_eq!(
        last.events.last().map(|event| (&*event.name, &*event.data)),
        Some(("cancelled", r#"{"reason":"stopped"}"#))
    );
    assert_eq!(stop("u", "").await.status(), StatusCode::NOT_FOUND, "none runs");
    let told = crate::support::example::answer(
        server.ask(by("u", Request::get(format!("/api/stream/{named}/recover")))).await,
    )
    .await;
    assert_eq!((&told.1["status"], &told.1["reason"]), (&json!("cancelled"), &json!("stopped")));
}
