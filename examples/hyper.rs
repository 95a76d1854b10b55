//! Resilient streams without a router, on bare hyper: `cargo run --example hyper`, then
//!
//! ```text
//! curl -N localhost:3000/stream/42
//! curl localhost:3000/stream/42/recover
//! ```
//!
//! An id stands for one answer. For another answer, use another id.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use resilient_sse::{MemoryStore, ResilientSse, StreamId};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // There is no login here, so anyone who knows a stream's id may read the stream. `anonymous()` states that this is
    // intended.
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
    // There is no router, so the layer also serves recovery, at a path below the stream's.
    let layer = sse.generation().id(StreamId::path("/stream/{id}")).recover_suffix("/recover");
    let service = TowerToHyperService::new(ServiceBuilder::new().layer(layer).service(service_fn(answer)));

    // At ctrl-c the guardian ends the streams within its time limit, and each connection ends with its response.
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    let guardian = tokio::spawn(guardian.with_graceful_shutdown(ctrl_c));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    let connections = GracefulShutdown::new();
    let mut draining = std::pin::pin!(sse.draining());
    loop {
        let connection = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => break,
        };
        let Ok((connection, _)) = connection else {
            // The process has most likely run out of file descriptors. Wait until some connections have closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Disable Nagle's algorithm, which would delay a small packet such as an event.
        let _ = connection.set_nodelay(true);
        let server = auto::Builder::new(TokioExecutor::new());
        let serving = server.serve_connection(TokioIo::new(connection), service.clone()).into_owned();
        let serving = connections.watch(serving);
        tokio::spawn(async move {
            // A client that disconnects is not an error of the server.
            let _ = serving.await;
        });
    }
    let (report, ()) = tokio::join!(guardian, connections.shutdown());
    println!("{:?}", report?);
    Ok(())
}

/// Answers every path under `/stream/` with a stream.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    if !request.uri().path().starts_with("/stream/") {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    Ok(response.map(|_| count_down()))
}

fn count_down() -> Body {
    let events = unfold(10_u32, async |number| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let frame = Frame::data(Bytes::from(format!("data: {number}\n\n")));
        number.checked_sub(1).map(|next| (Ok(frame), next))
    });
    StreamBody::new(events).boxed_unsync()
}
