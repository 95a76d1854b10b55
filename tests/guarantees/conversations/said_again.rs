//! Facts that are stored after a stream is registered: its conversation and the kept headers.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use resilient_sse::{
    MemoryStore, ResilientSse, StreamId,
    test_util::{Fault, FaultStore},
};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::rig::millis;

/// Requests on two nodes name one stream, whose handler takes a moment. Returns how often the handler ran.
async fn runs_of_two(names_conversation: bool, keeps: bool, delay: Option<Duration>) -> u64 {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, guardian) = ResilientSse::builder(store.clone()).anonymous().build().unwrap();
    let guardian = tokio::spawn(guardian);
    if let Some(delay) = delay {
        store.fail_on("append", Fault::Delay(delay));
    }
    let calls = Arc::new(AtomicU64::new(0));
    let counts = calls.clone();
    let inner = service_fn(move |request: Request<Empty<Bytes>>| {
        let number = counts.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(millis(200)).await;
            if names_conversation {
                let context = request.extensions().get::<resilient_sse::StreamContext>().unwrap();
                context.conversation("c").await.unwrap();
                tokio::time::sleep(millis(500)).await;
            }
            let text = format!("data: of run {number}\n\nevent: completed\ndata: x\n\n");
            let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(text)))]);
            Ok::<_, Infallible>(
                Response::builder()
                    .header("content-type", "text/event-stream")
                    .header("x-link", "one")
                    .body(StreamBody::new(frames))
                    .unwrap(),
            )
        }
    });
    let layer = sse.generation().id(StreamId::path("/chat/{id}"));
    let layer = if keeps { layer.keep_headers([http::HeaderName::from_static("x-link")]) } else { layer };
    let app = ServiceBuilder::new().layer(layer).service(inner.clone());
    let (other, other_guardian) =
        ResilientSse::builder(FaultStore::new(store.inner().clone()).batched()).anonymous().build().unwrap();
    let other_guardian = tokio::spawn(other_guardian);
    let layer = other.generation().id(StreamId::path("/chat/{id}"));
    let layer = if keeps { layer.keep_headers([http::HeaderName::from_static("x-link")]) } else { layer };
    let there = ServiceBuilder::new().layer(layer).service(inner);
    let ask = |is_there: bool| {
        let app = if is_there { there.clone() } else { app.clone() };
        tokio::spawn(async move {
            let request = Request::post("/chat/a").body(Empty::<Bytes>::new()).unwrap();
            let answer = app.oneshot(request).await.unwrap();
            let status = answer.status();
            let text = answer.into_body().collect().await;
            let text = String::from_utf8(text.unwrap().to_bytes().to_vec()).unwrap();
            // The reconnect delay differs for each client.
            (status, text.split_once('\n').unwrap().1.to_owned())
        })
    };
    let first = ask(false);
    tokio::time::sleep(millis(50)).await;
    let second = ask(true);
    assert_eq!(first.await.unwrap(), second.await.unwrap());
    other_guardian.abort();
    guardian.abort();
    calls.load(Ordering::SeqCst)
}

/// A repeated registration takes nothing back, even if the store tells a repeat from a new registration by its epoch
/// alone.
#[tokio::test(start_paused = true)]
async fn g4_a_stream_of_which_more_is_said_keeps_its_one_producer() {
    for (names_conversation, keeps) in [(true, false), (false, true)] {
        for delay in [None, Some(millis(100))] {
            assert_eq!(
                runs_of_two(names_conversation, keeps, delay).await,
                1,
                "{names_conversation} {keeps} {delay:?}"
            );
        }
    }
}
