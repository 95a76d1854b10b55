//! The layer in the stacks of hosts, over real sockets: axum, bare hyper, tonic with tonic-web, in front of an
//! upstream, and with real clients.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod axum_stacks;
mod clients;
mod hyper_stacks;
mod tonic_stacks;
mod upstreams;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response, StatusCode, header, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use resilient_sse::{
    MemoryStore, ResilientSse,
    test_util::{collect, cut_after},
};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// A hub whose guardian is polled.
fn hub() -> ResilientSse {
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build().unwrap();
    tokio::spawn(guardian);
    sse
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A handler's work: ten events, and a count of how often it was done.
#[derive(Clone, Default)]
struct Work(Arc<AtomicUsize>);

impl Work {
    fn response(&self) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let events = unfold(0, async |number: u32| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let event =
                if number < 10 { format!("data: {number}\n\n") } else { "event: completed\ndata: {}\n\n".into() };
            (number <= 10).then(|| (Ok(Frame::data(Bytes::from(event))), number + 1))
        });
        let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
        response.body(StreamBody::new(events).boxed_unsync()).unwrap()
    }

    fn runs(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn get(path: &str) -> request::Builder {
    Request::get(path).header(header::HOST, "test")
}

/// Sends a request over a connection of its own, which ends when the response is dropped.
async fn send(address: SocketAddr, request: request::Builder) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

/// Asserts what every stack must do: a stream that is cut continues at the next event, from one run of the work, then
/// ends, and can be recovered.
async fn survives_a_cut(address: SocketAddr, path: &str, work: &Work) {
    let first = send(address, get(path)).await;
    assert_eq!(first.headers()["x-stream-id"], "42");
    let first = cut_after(4, first.into_body()).await;
    assert_eq!(first.data(), ["0", "1", "2", "3"]);

    let rest = collect(send(address, get(path).header("last-event-id", first.last_id())).await.into_body()).await;
    assert_eq!(rest.data(), ["4", "5", "6", "7", "8", "9", "{}"]);
    assert_eq!(rest.names().last(), Some(&"completed"));
    let over = send(address, get(path).header("last-event-id", rest.last_id())).await;
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
    assert_eq!(work.runs(), 1);

    let recovered = send(address, get(&format!("{path}/recover"))).await;
    assert_eq!(recovered.status(), StatusCode::OK);
    let told: Value = serde_json::from_slice(&recovered.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&told["status"], &told["streamId"]), (&"completed".into(), &"42".into()));
}
