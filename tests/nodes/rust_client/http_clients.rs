//! The event source with several HTTP clients.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use resilient_sse::{StreamState, client::EventSource};
use tower::{ServiceBuilder, service_fn};

use crate::{
    rust_client::{
        Nodes,
        front::{Front, Plan},
        reader::Reader,
    },
    support::redis::{End, Proxy},
};

/// Starts a proxy that cuts the first two connections, to one node, and leads the third to the other node.
async fn front(nodes: &Nodes) -> Front {
    let cut = |bytes, end| Plan { node: nodes.a.address, cut: Some((bytes, end)) };
    Front::start([cut(1500, End::Finish), cut(2000, End::Reset), Plan { node: nodes.b.address, cut: None }]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reqwest_by_an_adapter() {
    let nodes = Nodes::start(&[]);
    let front = front(&nodes).await;
    let client = reqwest::Client::new();
    let service = service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move { client.execute(request.try_into()?).await.map(http::Response::from) }
    });
    let request = Request::get(front.url("/api/stream/reqwest?n=100&rate=200")).body(Bytes::new()).unwrap();
    let mut reader = Reader::of(EventSource::builder(service, request)).without_delays();
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert_eq!((reader.cuts.len(), front.connections()), (2, 3));
}

/// The event source sends its requests through a tower layer to a client with a connection pool.
#[tokio::test(flavor = "multi_thread")]
async fn hyper_util_behind_a_stack_of_layers() {
    let nodes = Nodes::start(&[]);
    let front = front(&nodes).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let service = ServiceBuilder::new().concurrency_limit(1).service(client);
    let request = Request::get(front.url("/api/stream/stack?n=100&rate=200")).body(Full::default()).unwrap();
    let mut reader = Reader::of(EventSource::builder(service, request)).without_delays();
    reader.until_end().await;
    reader.assert_has_all(100, StreamState::Completed);
    assert_eq!((reader.cuts.len(), front.connections()), (2, 3));
}

/// Over HTTP/2 a broken response is a stream reset, not a broken connection.
#[tokio::test(flavor = "multi_thread")]
async fn http_2() {
    let Nodes { a, b, redis: _redis } = Nodes::start(&["--drain", "8"]);
    let proxy = Proxy::start(a.address);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let url = format!("http://{}/api/stream/second?n=200&rate=50", proxy.address());
    let source = EventSource::builder(client, Request::get(url).body(Full::default()).unwrap());
    let mut reader = Reader::of(source).without_delays();
    reader.until(20).await;
    proxy.cut(End::Reset);
    reader.until(60).await;
    a.signal("TERM");
    proxy.point_at(b.address);
    reader.until_end().await;
    reader.assert_has_all(200, StreamState::Completed);
    assert!(reader.cuts.len() >= 2, "{:?}", reader.cuts);
}
