//! G1 from one run to the next: in every voice, and for a follower that missed the end of the last run.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use resilient_sse::{Disconnect, StreamId, Voice};
use tower::ServiceExt as _;

use crate::{
    stage::Stage,
    support::handlers::{App, Finish, Handler, Script, app},
};

const SECOND: Duration = Duration::from_secs(1);

/// Ids show a new run where the voice has no notice for it.
#[tokio::test(start_paused = true)]
async fn g1_a_silent_route_is_resumed_with_the_new_run() {
    let mut stage = Stage::new();
    let handler = Handler::plays(Script::events(3).then(Finish::Never));
    let app = app(stage.sse().layer().id(StreamId::path("/{id}")).voice(Voice::Silent), &handler);
    let mut client = stage.client(&app, "/a").voice(Voice::Silent);
    for runs in 1..=4 {
        client.cut(3).await;
        assert_eq!(handler.calls(), runs);
        stage.advance(SECOND).await;
    }
    assert!(client.witness.data[9].ends_with("#4:1"), "{:?}", client.witness.data);
    stage.verdict().await;
}

/// No run begins for a client that can only be told that it cannot continue.
#[tokio::test(start_paused = true)]
async fn g1_no_run_is_begun_that_its_client_does_not_get() {
    for voice in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent] {
        let mut stage = Stage::new();
        let (script, gate) = Script::events(3).then(Finish::Never).gated();
        gate.send_replace(3);
        let handler = Handler::plays(script);
        let app = app(stage.sse().layer().id(StreamId::path("/{id}")).voice(voice), &handler);
        let first = visit(&app, None).await;
        let cursor = first.lines().rfind(|line| line.starts_with("id: ")).unwrap()[4..].to_owned();
        for _ in 0..5 {
            stage.advance(SECOND).await;
            let calls = handler.calls();
            let came = visit(&app, Some(&cursor)).await;
            let run = format!("#{}:1", calls + 1);
            assert!(handler.calls() == calls || came.contains(&run), "{voice:?}: nobody gets {run}: {came}");
        }
        stage.verdict().await;
    }
}

/// Connects, reads everything that is ready, and leaves.
async fn visit(app: &App, cursor: Option<&str>) -> String {
    let request = cursor.iter().fold(Request::get("/a"), |request, cursor| request.header("last-event-id", *cursor));
    let mut body = app.clone().oneshot(request.body(()).unwrap()).await.unwrap().into_body();
    let mut came = Vec::new();
    while let Some(Some(Ok(frame))) = body.frame().now_or_never() {
        came.extend_from_slice(&frame.into_data().unwrap());
    }
    String::from_utf8(came).unwrap()
}

/// The store was emptied, and a new run began, before the follower of the old run read again.
#[tokio::test(start_paused = true)]
async fn g1_a_follower_of_an_emptied_store_enters_the_new_run_behind_a_restart() {
    let mut stage = Stage::nodes(2, |hub| hub);
    let handler = Handler::plays(Script::events(2).then(Finish::Never));
    let apps = [0, 1].map(|node: usize| {
        let layer = stage.hubs[node].sse.layer().id(StreamId::path("/{id}"));
        app(layer.on_disconnect(Disconnect::Interrupt), &handler)
    });
    let mut producer = stage.client(&apps[0], "/a");
    producer.connect().await;
    producer.read(2).await;
    let mut follower = stage.client(&apps[1], "/a").apart();
    follower.connect().await;
    follower.read(2).await;
    producer.dies_with_its_node();
    stage.forget();
    let mut other = stage.client(&apps[1], "/a");
    other.connect().await;
    other.read(2).await;
    assert_eq!(handler.calls(), 2, "the second node knows of no other producer");
    stage.advance_only(&[1], SECOND * 2).await;
    // The checker requires the restart, with nothing but the gap before it.
    follower.read_ready().await;
    let names = &follower.witness.names;
    assert!(names.len() == 2 || names[2..] == ["gap", "restart", "message", "message"], "{names:?}");
}
