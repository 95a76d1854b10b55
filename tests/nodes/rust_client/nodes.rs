//! Nodes that are killed, drained or cut off from Redis while a client reads.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{StreamState, client::CutCause};

use crate::{
    QUICK,
    rust_client::{
        Nodes, node,
        reader::{Reader, get},
    },
    support::{
        example::{PATIENCE, eventually},
        redis::{End, Proxy},
    },
    trusting,
};

/// Returns a reader of this path through a proxy.
fn reader_at(proxy: &Proxy, path: &str) -> Reader {
    Reader::of(get(&format!("http://{}{path}", proxy.address())))
}

/// The restarted node does not run the stream's work again. The stream ends as orphaned.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed_and_started_again() {
    let nodes = Nodes::trusting(&QUICK).await;
    let proxy = Proxy::start(nodes.a.address);
    let mut reader = reader_at(&proxy, "/api/stream/killed?n=100000&rate=100");
    reader.until(20).await;
    let Nodes { a, redis, b: _b } = nodes;
    a.kill();
    let again = node(&redis, &QUICK);
    trusting(&again).await;
    proxy.point_at(again.address);
    reader.until_end().await;
    reader.assert_no_loss();
    assert_eq!(reader.ending(), (Some(StreamState::Orphaned), Some("node_lost")));
    assert!(reader.numbers().len() >= 20 && !reader.cuts.is_empty());
}

/// On an `Interrupt` route the work runs again, and the client gets a restart.
#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_node_begins_anew_where_its_route_allows_that() {
    let options = [&QUICK[..], &["--on-disconnect", "interrupt"]].concat();
    let nodes = Nodes::trusting(&options).await;
    let proxy = Proxy::start(nodes.a.address);
    let mut reader = reader_at(&proxy, "/api/stream/again?n=150&rate=50");
    reader.until(20).await;
    let Nodes { a, b, redis: _redis } = nodes;
    a.kill();
    proxy.point_at(b.address);
    reader.until_end().await;
    reader.assert_no_loss();
    let lengths: Vec<_> = reader.runs.iter().map(Vec::len).collect();
    assert!(lengths.len() == 2 && lengths[0] >= 20 && lengths[1] == 150, "{lengths:?}");
    assert_eq!(reader.ending().0, Some(StreamState::Completed));
}

/// The client reads from the other node. Its connection stays, and the end comes over it.
#[tokio::test(flavor = "multi_thread")]
async fn the_producer_s_node_is_killed_while_another_one_serves() {
    let nodes = Nodes::trusting(&QUICK).await;
    let Nodes { a, b, redis: _redis } = nodes;
    let path = "/api/stream/orphan?n=100000&rate=100";
    let mut producing = Reader::of(get(&format!("http://{}{path}", a.address)).max_attempts(1));
    producing.until(5).await;
    let mut reader = Reader::of(get(&format!("http://{}{path}", b.address)));
    reader.until(20).await;
    a.kill();
    reader.until_end().await;
    reader.assert_no_loss();
    assert_eq!(reader.ending(), (Some(StreamState::Orphaned), Some("node_lost")));
    assert_eq!((reader.cuts.len(), reader.connected), (0, 1));
    let gave_up = producing.until_failure().await;
    assert!(gave_up.to_string().contains("brought no event"), "{gave_up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_hands_its_client_to_another_one() {
    let nodes = Nodes::start(&["--drain", "10"]);
    let Nodes { a, b, redis: _redis } = nodes;
    let proxy = Proxy::start(a.address);
    let mut reader = reader_at(&proxy, "/api/stream/drained?n=200&rate=50");
    reader.until(20).await;
    a.signal("TERM");
    // A load balancer sends new connections to the node that is ready.
    proxy.point_at(b.address);
    reader.until_end().await;
    reader.assert_has_all(200, StreamState::Completed);
    assert!(matches!(reader.cuts[..], [CutCause::Body(_)]), "{:?}", reader.cuts);
    let status = tokio::time::timeout(PATIENCE, a.exit()).await.expect("the node exits in time");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_another_node_ends_the_stream() {
    let nodes = Nodes::start(&[]);
    let mut reader = Reader::of(get(&format!("http://{}/api/stream/stopped?n=100000&rate=100", nodes.a.address)));
    reader.until(10).await;
    assert_eq!(nodes.b.delete("/api/stream/stopped").await, StatusCode::ACCEPTED);
    reader.until_end().await;
    reader.assert_no_loss();
    assert_eq!(reader.ending(), (Some(StreamState::Cancelled), Some("stopped")));
    assert!(reader.cuts.is_empty());
}

/// The client gets the stream's end from the other node, since its own node is dead when it reconnects.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_while_its_client_is_away() {
    let nodes = Nodes::start(&[]);
    let Nodes { a, b, redis: _redis } = nodes;
    let proxy = Proxy::start(a.address);
    let url = format!("http://{}/api/stream/away?n=50&rate=100", proxy.address());
    let mut reader = Reader::of(get(&url).max_delay(Duration::from_secs(1)));
    reader.until(5).await;
    proxy.refuse(true);
    proxy.cut(End::Reset);
    b.until_status("away", "completed").await;
    a.kill();
    // Admit connections again only after the client has been refused.
    let coming_back = async {
        eventually(async || (proxy.connections() > 2).then_some(())).await;
        proxy.point_at(b.address);
        proxy.refuse(false);
    };
    tokio::join!(reader.until_end(), coming_back);
    reader.assert_has_all(50, StreamState::Completed);
    assert!(reader.cuts.len() > 1, "{:?}", reader.cuts);
}

/// Events that are sent while Redis hangs are recorded late, so the reconnecting client misses none.
#[tokio::test(flavor = "multi_thread")]
async fn redis_hangs_while_the_connection_is_cut() {
    let nodes = Nodes::start(&[]);
    let proxy = Proxy::start(nodes.a.address);
    let mut reader = reader_at(&proxy, "/api/stream/hung?n=300&rate=100");
    reader.until(20).await;
    nodes.redis.stop();
    reader.until(120).await;
    proxy.cut(End::Finish);
    let coming_back = async {
        eventually(async || (proxy.connections() > 1).then_some(())).await;
        nodes.redis.cont();
    };
    tokio::join!(reader.until_end(), coming_back);
    reader.assert_has_all(300, StreamState::Completed);
}
