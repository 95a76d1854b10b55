//! axum: the layer on a router, around a service, in a nested router.

use std::convert::Infallible;

use axum::{Router, body::Body, routing::get};
use http::Request;
use http_body_util::BodyExt as _;
use resilient_sse::StreamId;
use tower::{ServiceBuilder, service_fn};

use crate::{Work, hub, listener, send, survives_a_cut};

async fn serve(app: Router) -> std::net::SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn on_a_router() {
    let (sse, work) = (hub(), Work::default());
    let handler = work.clone();
    let app = Router::new()
        .route("/chat/{id}", get(async move || handler.response()))
        .route("/chat/{id}/text", get(async || "as it is"))
        .layer(sse.generation().id(StreamId::path("/chat/{id}")))
        .route_service("/chat/{id}/recover", sse.recover());
    let address = serve(app).await;
    survives_a_cut(address, "/chat/42", &work).await;

    let text = send(address, crate::get("/chat/42/text")).await;
    assert_eq!(text.headers()["content-length"], "8", "what is not ours passes with its hints");
    assert!(!text.headers().contains_key("x-stream-id"));
    assert_eq!(text.into_body().collect().await.unwrap().to_bytes(), "as it is");
}

#[tokio::test]
async fn around_a_service() {
    let (sse, work) = (hub(), Work::default());
    let inner = work.clone();
    let inner = service_fn(move |_: Request<Body>| {
        let inner = inner.clone();
        async move { Ok::<_, Infallible>(inner.response()) }
    });
    let service = ServiceBuilder::new().layer(sse.generation().id(StreamId::path("/chat/{id}"))).service(inner);
    let app = Router::new().route_service("/chat/{id}", service).route_service("/chat/{id}/recover", sse.recover());
    survives_a_cut(serve(app).await, "/chat/42", &work).await;
}

#[tokio::test]
async fn in_a_nested_router() {
    let (sse, work) = (hub(), Work::default());
    let handler = work.clone();
    let chat = Router::new()
        // The template matches the path after the prefix.
        .route("/{id}", get(async move || handler.response()).layer(sse.generation().id(StreamId::path("/{id}"))))
        .route_service("/{id}/recover", sse.recover());
    survives_a_cut(serve(Router::new().nest("/api/v1/chat", chat)).await, "/api/v1/chat/42", &work).await;
}

#[tokio::test]
async fn around_a_nested_router() {
    let (sse, work) = (hub(), Work::default());
    let handler = work.clone();
    let chat = Router::new()
        .route("/chat/{id}", get(async move || handler.response()))
        .route_service("/chat/{id}/recover", sse.recover().id(StreamId::path("/chat/{id}/recover")));
    let app = Router::new().nest("/api/v1", chat).layer(sse.generation().id(StreamId::path("/chat/{id}")));
    survives_a_cut(serve(app).await, "/api/v1/chat/42", &work).await;
}

/// A template that names the prefix of a nested router does not match inside it, which must be noticed.
#[tokio::test]
async fn a_stream_that_no_template_matches_is_marked() {
    let (sse, work) = (hub(), Work::default());
    let layer = sse.generation().id(StreamId::path("/chat/{id}"));
    let chat = Router::new().route("/{id}", get(async move || work.response()).layer(layer));
    let address = serve(Router::new().nest("/chat", chat)).await;
    let response = send(address, crate::get("/chat/42")).await;
    assert_eq!(response.headers()["x-stream-recorded"], "false");
    assert_eq!(sse.health().bypassed_by["bypass"], 1);
}

#[tokio::test]
async fn a_stream_id_is_an_extractor_s_path() {
    let app = Router::new()
        .route("/s/{id}", get(|axum::extract::Path(id): axum::extract::Path<StreamId>| async move { id.to_string() }));
    let address = serve(app).await;
    let read = |path: &'static str| async move {
        let response = send(address, Request::get(path)).await;
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    };
    assert_eq!(read("/s/a%7Eb").await, (http::StatusCode::OK, "a~b".into()));
    let (status, text) = read("/s/a%2Fb").await;
    assert_eq!(status, http::StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&text).contains("[A-Za-z0-9._~-]"), "{text:?}");
}
