//! First slice.
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use resilient_sse::{
    StreamId,
    test_util::{TestHub, collect, cut_after},
};
use std::{convert::Infallible, time::Duration};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

type Body = BoxBody<Bytes, Infallible>;

fn ticking(n: usize) -> Response<Body> {
    let s = futures_util::stream::unfold(0, move |i| async move {
        if i == n {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(format!("data: {i}\n\n")))), i + 1))
    });
    Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(s).boxed()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn resume_on_generation() {
    let hub = TestHub::new();
    let app = ServiceBuilder::new()
        .layer(hub.sse.generation().id(StreamId::path("/chat/{id}")))
        .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(ticking(10)) }));
    let first = app.clone().oneshot(Request::get("/chat/a").body(()).unwrap()).await.unwrap();
    println!("{:?}", first.headers());
    let seen = cut_after(4, first.into_body()).await;
    assert_eq!(seen.data(), ["0", "1", "2", "3"]);
    let again = Request::get("/chat/a").header("last-event-id", seen.last_id()).body(()).unwrap();
    let rest = collect(app.clone().oneshot(again).await.unwrap().into_body()).await;
    println!("{}", String::from_utf8_lossy(&rest.bytes));
    assert_eq!(rest.names(), ["message", "message", "message", "message", "message", "message", "completed"]);
    let end = Request::get("/chat/a").header("last-event-id", rest.last_id()).body(()).unwrap();
    let end = app.clone().oneshot(end).await.unwrap();
    assert_eq!(end.status(), 204);
    println!("{:?}", hub.sse.health());
}
