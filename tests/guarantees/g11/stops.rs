//! A stop reaches the work in every phase.

use std::time::Duration;

use http::{Request, StatusCode};
use resilient_sse::{Disconnect, Owner, StreamId, StreamState, test_util::collect};
use tower::ServiceExt as _;

use crate::{stage::Stage, support::handlers::Waiting};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that has not answered is told and dropped, and waiting clients are told how the stream ended.
#[tokio::test(start_paused = true)]
async fn g11_a_stop_reaches_a_handler_that_has_not_answered() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        for stopping in [0, 1] {
            let mut stage = Stage::nodes(2, |hub| hub);
            let handler = Waiting::default();
            let app = handler.behind(stage.sse().layer().id(StreamId::path("/{id}")).on_disconnect(disconnect));
            let request = app.oneshot(Request::get("/a").body(()).unwrap());
            let answer = tokio::spawn(async move { collect_answer(request.await.unwrap()).await });
            stage.advance(SECOND).await;
            let stopped =
                stage.hubs[stopping].sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await;
            assert_eq!(stopped.unwrap().unwrap().ending.state, StreamState::Cancelled);
            stage.advance(SECOND).await;
            assert!(handler.is_stopped(), "{disconnect:?}, from node {stopping}: the stop token did not fire");
            assert!(handler.is_dropped(), "{disconnect:?}, from node {stopping}: it works on");
            assert_eq!(answer.await.unwrap(), (StatusCode::OK, vec!["cancelled".to_owned()]));
            stage.verdict().await;
        }
    }
}

async fn collect_answer<B: http_body::Body + Unpin>(response: http::Response<B>) -> (StatusCode, Vec<String>) {
    let status = response.status();
    let seen = collect(response.into_body()).await;
    (status, seen.names().into_iter().map(str::to_owned).collect())
}
