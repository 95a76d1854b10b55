//! Bare hyper, without a router.

use std::convert::Infallible;

use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use resilient_sse::StreamId;
use tower::{ServiceBuilder, service_fn};

use crate::{Work, hub, listener, survives_a_cut};

#[tokio::test]
async fn on_bare_hyper() {
    let (sse, work) = (hub(), Work::default());
    let inner = work.clone();
    let inner = service_fn(move |_: Request<Incoming>| {
        let inner = inner.clone();
        async move { Ok::<_, Infallible>(inner.response()) }
    });
    let layer = sse.generation().id(StreamId::path("/chat/{id}")).recover_suffix("/recover");
    let service = TowerToHyperService::new(ServiceBuilder::new().layer(layer).service(inner));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(connection), service).await);
            });
        }
    });
    survives_a_cut(address, "/chat/42", &work).await;
}
