//! The client's requests: tokens, cursors, POSTs and recovery, and what the client does when they are refused.

use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{self, InvalidHeaderValue},
};
use http_body_util::Full;
use resilient_sse::{
    StreamState,
    client::{CutCause, EventSource, GaveUp, Occasion},
};
use serde_json::Value;

use crate::{
    rust_client::{
        Nodes,
        front::{Front, Plan},
        reader::{Reader, get, http},
    },
    support::redis::End,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_is_refused_for_good() {
    let nodes = Nodes::start(&[]);
    let url = format!("http://{}/api/stream/gone", nodes.a.address);
    let mut reader = Reader::of(get(&url).last_event_id("e1700000000000-5"));
    let GaveUp::Refused(response) = reader.until_failure().await else { panic!("404 is final") };
    assert_eq!((response.status(), reader.connected, reader.cuts.len()), (StatusCode::NOT_FOUND, 0, 0));
    let mut reader = Reader::of(get(&format!("http://{}/api/stream/not%20an%20id", nodes.a.address)));
    let GaveUp::Refused(response) = reader.until_failure().await else { panic!("400 is final") };
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.body().starts_with(b"a stream id is 1 to 128 characters"), "{:?}", response.body());
}

/// Returns a header function that reads the token at each attempt.
fn bearer(
    token: &Arc<Mutex<String>>,
) -> impl Fn(Occasion) -> Ready<Result<HeaderMap, InvalidHeaderValue>> + Send + Sync + use<> {
    let token = Arc::clone(token);
    move |_| {
        let value = HeaderValue::try_from(format!("Bearer {}", token.lock().unwrap()));
        ready(value.map(|value| HeaderMap::from_iter([(header::AUTHORIZATION, value)])))
    }
}

/// The token expires in the middle of the stream. The source gives up after 401, and continues once the owner has a new
/// token and calls `reconnect`.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced() {
    let nodes = Nodes::start(&[]);
    let cut = |bytes| Plan { node: nodes.a.address, cut: Some((bytes, End::Finish)) };
    let front = Front::start([cut(1500), cut(1500), Plan { node: nodes.b.address, cut: None }]).await;
    front.require_token("old");
    let token = Arc::new(Mutex::new("old".to_owned()));
    let mut reader =
        Reader::of(get(&front.url("/api/stream/mine?n=100&rate=100")).headers(bearer(&token))).without_delays();
    reader.until(3).await;
    front.require_token("new");
    let GaveUp::Refused(response) = reader.until_failure().await else { panic!("401 is final") };
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::UNAUTHORIZED, &b"sign in"[..]));
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");

    "new".clone_into(&mut token.lock().unwrap());
    reader.source.reconnect();
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert_eq!((front.connections(), reader.cuts.len()), (3, 1), "one was cut, one refused");
}

/// The header function renews the token when the source reports a 401.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_renewed() {
    let nodes = Nodes::start(&[]);
    let cut = Plan { node: nodes.a.address, cut: Some((1500, End::Finish)) };
    let front = Front::start([cut, cut, Plan { node: nodes.b.address, cut: None }]).await;
    front.require_token("old");
    let token = Arc::new(Mutex::new("old".to_owned()));
    let (renewed, headers) = (Arc::clone(&token), bearer(&token));
    let hook = move |occasion| {
        if occasion == Occasion::Unauthorized {
            "new".clone_into(&mut renewed.lock().unwrap());
        }
        headers(occasion)
    };
    let mut reader = Reader::of(get(&front.url("/api/stream/mine?n=100&rate=100")).headers(hook)).without_delays();
    reader.until(3).await;
    front.require_token("new");
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert_eq!((front.connections(), reader.cuts.len()), (3, 1), "one was cut, one refused");
}

/// No attempt is refused if the token is replaced in time.
#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_the_token_of_its_time() {
    let nodes = Nodes::start(&[]);
    let front = Front::start([
        Plan { node: nodes.a.address, cut: Some((1500, End::Reset)) },
        Plan { node: nodes.b.address, cut: None },
    ]);
    let front = front.await;
    front.require_token("old");
    let token = Arc::new(Mutex::new("old".to_owned()));
    let mut reader =
        Reader::of(get(&front.url("/api/stream/mine?n=100&rate=100")).headers(bearer(&token))).without_delays();
    reader.until(3).await;
    front.require_token("new");
    "new".clone_into(&mut token.lock().unwrap());
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert_eq!(reader.cuts.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_no_stream_has_is_a_gap_and_then_everything() {
    let nodes = Nodes::start(&[]);
    let url = format!("http://{}/api/stream/whole?n=20&rate=0", nodes.a.address);
    let mut whole = Reader::of(get(&url));
    whole.until_end().await;
    whole.assert_has_all(20, StreamState::Completed);
    for (cursor, node) in [("1700000000000-3", &nodes.a), ("0", &nodes.b), ("e17-3", &nodes.b), ("x.e17-3", &nodes.a)] {
        let url = format!("http://{}/api/stream/whole?n=20&rate=0", node.address);
        let mut reader = Reader::of(get(&url).last_event_id(cursor));
        reader.until_end().await;
        assert_eq!(reader.gaps.len(), 1, "{cursor}: {:?}", reader.gaps);
        assert_eq!(reader.numbers(), whole.numbers(), "{cursor}");
        assert_eq!(reader.end, whole.end, "{cursor}");
    }
}

/// The server answers 204 to a client that has the whole stream. The source then reports the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_at_the_end_is_an_end() {
    let nodes = Nodes::start(&[]);
    let mut whole = Reader::of(get(&format!("http://{}/api/stream/over?n=3&rate=0", nodes.a.address)));
    whole.until_end().await;
    let mut again = Reader::of(
        get(&format!("http://{}/api/stream/over", nodes.b.address)).last_event_id(whole.source.last_event_id()),
    );
    again.until_end().await;
    assert_eq!((again.connected, again.end.unwrap().event), (0, None));
}

/// All attempts of a POST join the stream that the first one began.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_a_conversation_is_posted_once_whatever_happens() {
    let nodes = Nodes::start(&[]);
    let plans = [(0, &nodes.a), (100, &nodes.b), (900, &nodes.a), (1500, &nodes.b)];
    let plans = plans.map(|(bytes, node)| Plan { node: node.address, cut: Some((bytes, End::Finish)) });
    let front = Front::start(plans.into_iter().chain([Plan { node: nodes.a.address, cut: None }])).await;
    let turn = Request::post(front.url("/api/chat/talk")).body(Full::<Bytes>::from(r#"{"n":60,"rate":100}"#)).unwrap();
    let mut reader = Reader::of(EventSource::builder(http(), turn)).without_delays();
    reader.until_end().await;
    reader.assert_has_all(60, StreamState::Completed);
    assert_eq!((front.connections(), reader.cuts.len()), (5, 4));
    assert!(matches!(reader.cuts[0], CutCause::Request(_)), "{:?}", reader.cuts);
    assert_eq!(nodes.a.figure("started").await + nodes.b.figure("started").await, 1, "the question was answered once");
}

/// A client asks for the running turn of a conversation. If there is none, it gets the end at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_resumed_or_idle() {
    let nodes = Nodes::start(&[]);
    let resume = |node: &crate::support::example::Server| format!("http://{}/api/chat/talk/stream", node.address);
    let mut idle = Reader::of(get(&resume(&nodes.a)));
    idle.until_end().await;
    assert_eq!((idle.connected, idle.end.unwrap().event), (0, None));

    let turn = Request::post(format!("http://{}/api/chat/talk", nodes.a.address))
        .body(Full::<Bytes>::from(r#"{"n":60,"rate":100}"#));
    let mut posting = Reader::of(EventSource::builder(http(), turn.unwrap()));
    posting.until(5).await;
    let mut resuming = Reader::of(get(&resume(&nodes.b)));
    tokio::join!(posting.until_end(), resuming.until_end());
    for reader in [posting, resuming] {
        reader.assert_has_all(60, StreamState::Completed);
    }
}

/// A source with a recovery URL asks recovery first, so a new client of an ended stream does not run the handler again.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_first_runs_nothing_that_was_run() {
    let nodes = Nodes::start(&[]);
    let [url, recover] = ["", "/recover"].map(|path| format!("http://{}/api/stream/found{path}", nodes.a.address));
    let source = || get(&format!("{url}?n=30&rate=0")).recover(recover.parse().unwrap());
    let mut first = Reader::of(source());
    first.until_end().await;
    first.assert_has_all(30, StreamState::Completed);
    // The stream has ended, so recovery serves it.
    let mut late = Reader::of(source());
    late.until_end().await;
    late.assert_has_all(30, StreamState::Completed);
    let (_, recovered) = nodes.a.json("/api/stream/found/recover").await;
    assert_eq!(recovered["status"], Value::from("completed"));
    assert_eq!(nodes.a.figure("started").await, 1);
}
