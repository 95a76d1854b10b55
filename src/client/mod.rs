//! The Rust client: an [`EventSource`] that reconnects by itself and goes on after the last event.
//!
//! The source works with any HTTP client that is a [`tower_service::Service`] of `http` requests and responses:
//! `hyper-util`'s legacy client as it is, `reqwest` with [four lines](#reqwest) of glue, an axum router in tests.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use resilient_sse::client::{EventSource, Update};
//! # use axum::{Router, routing::get};
//! # use resilient_sse::{MemoryStore, ResilientSse, StreamId};
//!
//! #[derive(serde::Deserialize)]
//! struct Token {
//!     text: String,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let answer = "data: {\"text\":\"Hello, \"}\n\ndata: {\"text\":\"world\"}\n\nevent: completed\ndata: {}\n\n";
//! # let answer = move || async move { ([("content-type", "text/event-stream")], answer) };
//! # let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
//! # tokio::spawn(guardian);
//! # let layer = sse.generation().id(StreamId::path("/answers/{id}"));
//! # let client: Router = Router::new().route("/answers/{id}", get(answer).layer(layer));
//! // let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
//! let request = http::Request::get("http://localhost:3000/answers/42").body(Full::<Bytes>::default())?;
//! let mut source = EventSource::new(client, request);
//! let mut text = String::new();
//! while let Some(update) = source.next().await {
//!     // An error means that the source gave up: the server refused, or too many attempts brought no event.
//!     match update? {
//!         Update::Event(event) => text += &event.json::<Token>()?.text,
//!         Update::Restart(_) => text.clear(),
//!         Update::Gap(gap) => eprintln!("{:?} events are lost", gap.missed),
//!         Update::Cut(cut) => eprintln!("{}; trying again in {:?}", cut.cause, cut.retry_in),
//!         Update::Ended(ended) => println!("{:?}: {text}", ended.state),
//!         _ => {}
//!     }
//! }
//! assert_eq!(text, "Hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! # Ended, cut, gave up
//!
//! | what happened | what the source yields | what it means |
//! |---|---|---|
//! | the stream **ended** | [`Update::Ended`] | the terminal event came, or status 204 (everything was delivered). No item follows |
//! | the connection was **cut** | [`Update::Cut`] | the source waits, connects again, and goes on after the last event |
//! | the source **gave up** | the error [`GaveUp`] | no item follows until [`reconnect`](EventSource::reconnect) is called |
//!
//! # What the source does
//!
//! | what happens | what the source does |
//! |---|---|
//! | 200 with `text/event-stream` | it reads the events |
//! | 200 with another content type, or a status that is not in this table | it gives up |
//! | 204 | it yields the end of the stream |
//! | 401, with a function for [`headers`](EventSourceBuilder::headers) | it calls the function again. If the function returns different headers, the source repeats the request; otherwise it gives up |
//! | 429 and 5xx | it tries again after at least the time in `Retry-After` (seconds or a date, up to an hour) |
//! | the request fails, no response head comes in time, or the function for headers fails | it tries again |
//! | the response breaks off, or ends without a terminal event | it tries again with `Last-Event-ID`. For a POST whose events carry no ids, a clean end of the response is the end of the stream |
//! | silence for 2.5 intervals of `X-Stream-Heartbeat` | it tries again |
//! | an event is larger than [`max_event_bytes`](EventSourceBuilder::max_event_bytes) | it gives up; the error names the limit |
//!
//! Between attempts the source waits a random time of at least 250 ms, or what the server asks for by `retry:`. The
//! upper limit of the wait grows with each attempt that brings no event, up to 30 s. It is higher if the server asks
//! for a longer wait. After 10 attempts in a row without an event the source gives up. All attempts of a POST carry the
//! same `Idempotency-Key`.
//!
//! # Voices
//!
//! The library adds messages of its own to a stream: `connected`, `gap`, `restart` and endings. The source recognizes
//! them in each [`Voice`](crate::Voice) and never yields them as [`Update::Event`]. Where a voice has no such message,
//! the source reads the same facts from the ids of the events: a new run, missing events, the end. The voice `OpenAi`
//! breaks the response off at a restart. The source then requests the new run from its first event.
//!
//! # Cancel safety
//!
//! The source works only while it is polled, and spawns no task. The future of [`EventSource::next`] may be dropped, as
//! in `tokio::select!`, and `next` called again. A new source goes on where a dropped one stopped:
//!
//! ```
//! # use resilient_sse::client::EventSource;
//! # fn resume<S>(client: S, request: http::Request<String>, old: EventSource) -> EventSource
//! # where
//! #     S: tower_service::Service<http::Request<String>, Response = http::Response<axum::body::Body>> + Clone + Send + 'static,
//! #     S::Error: Into<resilient_sse::BoxError>,
//! #     S::Future: Send,
//! # {
//! let source = EventSource::builder(client, request).last_event_id(old.last_event_id()).build();
//! # source
//! # }
//! ```
//!
//! # reqwest
//!
//! ```
//! use bytes::Bytes;
//! use resilient_sse::client::EventSource;
//!
//! # fn source(request: http::Request<Bytes>) -> EventSource {
//! let client = reqwest::Client::new();
//! let service = tower::service_fn(move |request: http::Request<Bytes>| {
//!     let client = client.clone();
//!     async move { client.execute(request.try_into()?).await.map(http::Response::from) }
//! });
//! EventSource::new(service, request)
//! # }
//! ```
//!
//! The HTTP client must not have a time limit for a whole response: a stream may run for longer.

mod builder;
mod connect;
mod error;
mod machine;
mod place;
mod policy;
mod reader;
mod refusal;
mod retry_after;
mod source;
#[cfg(test)]
mod tests;
mod timers;
mod update;
mod words;

pub use builder::EventSourceBuilder;
pub use connect::Occasion;
pub use error::{CutCause, GaveUp};
pub use source::EventSource;
pub use update::{Connected, Cut, Ended, Gap, Restart, State, Update};
