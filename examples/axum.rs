//! A chat in an axum service: `cargo run --example axum`, then
//!
//! ```text
//! curl -N -H 'authorization: Bearer ada' localhost:3000/chat/42 -d 'Are you there?'
//! curl -N -H 'authorization: Bearer ada' localhost:3000/chat/42/stream              # from another tab, or after a reload
//! curl -N -H 'authorization: Bearer ada' localhost:3000/chat/42/stream -H 'last-event-id: <an id from above>'
//! curl -X DELETE -H 'authorization: Bearer ada' localhost:3000/chat/42/stream       # stop
//! ```
//!
//! Each POST is a turn of the conversation, with a stream of its own. It stops the turn before if that still runs. The
//! handler finishes its answer even if the client disconnects, and the client may come back for it later.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{
        Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, get_service, post},
    serve::ListenerExt as _,
};
use futures_util::{Stream, stream::unfold};
use resilient_sse::{MemoryStore, Owner, ResilientSse, StreamId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The owner of a stream is the `Owner` in the request's extensions, unless `.owner(…)` says otherwise.
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).build()?;

    let turn = post(answer).layer(sse.generation().conversation(StreamId::path("/chat/{id}")));
    let resume = sse.resume().conversation(StreamId::path("/chat/{id}/stream"));
    let stop = sse.stop().conversation(StreamId::path("/chat/{id}/stream"));
    let health = sse.clone();
    let app = Router::new()
        .route("/chat/{id}", turn)
        .route("/chat/{id}/stream", get_service(resume).delete_service(stop))
        // Tells a client that was away for long how an answer ended. A response names its stream in `X-Stream-Id`.
        .route_service("/streams/{id}/recover", sse.recover().id(StreamId::path("/streams/{id}/recover")))
        .route("/feed", get(feed).layer(sse.feed()))
        // Authenticate outside of the layers above: the handler does not run when a client resumes a stream.
        .layer(from_fn(authenticate))
        .route("/metrics", get(async move || health.health().to_prometheus()));

    // Disable Nagle's algorithm, which would delay a small packet such as an event.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    // At ctrl-c the guardian ends the streams within its time limit, and the server waits for its responses to end.
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    let guardian = tokio::spawn(guardian.with_graceful_shutdown(ctrl_c));
    axum::serve(listener, app).with_graceful_shutdown(sse.draining()).await?;
    println!("{:?}", guardian.await?);
    Ok(())
}

/// Answers a question, word by word. This is an ordinary handler: it does not depend on the layer.
async fn answer(question: String) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let answer = format!("You asked: {question} Whoever comes back gets what came in between, and then the rest.");
    let words: Vec<_> = answer.split_whitespace().map(str::to_owned).collect();
    let words = unfold(words.into_iter(), async |mut words| {
        let word = words.next()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        Some((Ok(Event::default().data(word)), words))
    });
    Sse::new(words)
}

/// Streams numbers without an end. The handler runs as long as there is a reader, and runs again for a client that
/// comes back later. The layer sends heartbeats, so axum's keep-alive is not needed but does no harm.
async fn feed() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = unfold(0_u64, async |tick| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok(Event::default().data(tick.to_string())), tick + 1))
    });
    Sse::new(ticks).keep_alive(KeepAlive::default())
}

/// Identifies the caller. Here the token is the caller's name; a real service must verify the token.
async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let name = token.and_then(|token| token.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    let owner = Owner::new(name).map_err(|_| StatusCode::UNAUTHORIZED)?;
    request.extensions_mut().insert(owner);
    Ok(next.run(request).await)
}
