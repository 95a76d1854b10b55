//! A handler that has not answered yet: a stop reaches it from any node.

use http::Request;
use resilient_sse::{Owner, StreamId, StreamState, test_util::collect};
use tower::ServiceExt as _;

use crate::{
    servers::stage::{Stage, until},
    support::{handlers::Waiting, redis::RedisServer},
};

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_stop_reaches_a_handler_that_has_not_answered_from_another_node() {
    let server = RedisServer::start();
    let stage = Stage::new();
    let nodes = [stage.node(&server.url(), |hub| hub).await, stage.node(&server.url(), |hub| hub).await];
    let handler = Waiting::default();
    let app = handler.behind(nodes[0].sse.generation().id(StreamId::path("/{id}")));
    let asking = tokio::spawn(app.oneshot(Request::get("/a").body(()).unwrap()));
    nodes[0].until_state("a", StreamState::Active).await;
    let stopped = nodes[1].sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await.unwrap();
    assert_eq!(stopped.unwrap().ending.state, StreamState::Cancelled);
    until("the handler is stopped and dropped", async || handler.is_stopped() && handler.is_dropped()).await;
    let seen = collect(asking.await.unwrap().unwrap().into_body()).await;
    assert_eq!((seen.names(), seen.ended), (vec!["cancelled"], true));
    stage.verdict(&[&nodes[0], &nodes[1]], false).await;
}
