//! tonic with tonic-web: calls pass untouched, trailers included, and event streams beside them are protected.

use std::{convert::Infallible, future::Ready, net::SocketAddr};

use axum::{Router, routing::get};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use resilient_sse::{
    ResilientSse, StreamId,
    test_util::{collect, cut_after},
};
use tokio::net::TcpStream;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{NamedService, UnaryService},
    service::Routes,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_web::GrpcWebLayer;
use tower::Service;

use crate::{Work, hub, listener};

/// Messages as they are: no protobuf is needed to see bytes pass.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Answers a message with itself, and an empty one with an error.
#[derive(Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        let answer =
            if message.is_empty() { Err(Status::not_found("nothing said")) } else { Ok(tonic::Response::new(message)) };
        std::future::ready(answer)
    }
}

impl Service<Request<tonic::body::Body>> for Echo {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async { Ok(tonic::server::Grpc::new(Raw).unary(Self, request).await) })
    }
}

/// A tonic server with a call, and an event stream beside it, all behind the layer.
async fn serve(sse: &ResilientSse, work: &Work) -> SocketAddr {
    let work = work.clone();
    let events = Router::new().route("/chat/{id}", get(async move || work.response()));
    let layer = sse.generation().id(StreamId::path("/chat/{id}")).recover_suffix("/recover");
    let server = Server::builder()
        .accept_http1(true)
        .layer(GrpcWebLayer::new())
        .layer(layer)
        .add_routes(Routes::from(events))
        .add_service(Echo);
    let (listener, address) = listener().await;
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn echo(address: SocketAddr, message: &'static str) -> Result<tonic::Response<Bytes>, Status> {
    let channel: Channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = tonic::Request::new(Bytes::from_static(message.as_bytes()));
    client.unary(request, PathAndQuery::from_static("/test.Echo/Say"), Raw).await
}

#[tokio::test]
async fn calls_pass_untouched() {
    let sse = hub();
    let address = serve(&sse, &Work::default()).await;
    let answer = echo(address, "hello").await.expect("an answer");
    // tonic puts the trailers beside the headers.
    assert_eq!(answer.metadata().get("grpc-status").map(tonic::metadata::MetadataValue::as_bytes), Some(&b"0"[..]));
    assert!(answer.metadata().get("x-stream-id").is_none());
    assert_eq!(answer.into_inner(), "hello");

    let refused = echo(address, "").await.expect_err("an error");
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "nothing said"));
    let health = sse.health();
    assert_eq!((health.started, health.bypassed), (0, 0), "no event stream, no business of ours");
}

#[tokio::test]
async fn calls_from_browsers_pass_untouched() {
    let address = serve(&hub(), &Work::default()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::post("/test.Echo/Say")
        .header(header::HOST, "test")
        .header(header::CONTENT_TYPE, "application/grpc-web+proto")
        .header(header::ACCEPT, "application/grpc-web+proto")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\x05hello")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    // A message, and then the trailers as a frame of their own.
    assert!(body.starts_with(b"\0\0\0\0\x05hello\x80"), "{body:?}");
    assert!(body.ends_with(b"grpc-status:0\r\n"), "{body:?}");
}

#[tokio::test]
async fn an_event_stream_beside_calls_is_protected() {
    let (sse, work) = (hub(), Work::default());
    let address = serve(&sse, &work).await;
    // Of HTTP/1 requests, tonic-web lets none pass that is not its own.
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let get = async |path: &str, cursor: &str| {
        let uri: Uri = format!("http://{address}{path}").parse().unwrap();
        let mut request = Request::get(uri);
        if !cursor.is_empty() {
            request = request.header("last-event-id", cursor);
        }
        sender.clone().send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
    };
    let first = cut_after(4, get("/chat/42", "").await.into_body()).await;
    let rest = collect(get("/chat/42", first.last_id()).await.into_body()).await;
    assert_eq!([first.data(), rest.data()].concat(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "{}"]);
    assert_eq!(get("/chat/42", rest.last_id()).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(get("/chat/42/recover", "").await.status(), StatusCode::OK);
    assert_eq!(work.runs(), 1);
}
