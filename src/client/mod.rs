//! The Rust client: an [`EventSource`] that survives what happens to connections.
//!
//! It works over any HTTP client that is a [`tower_service::Service`] of `http` requests and responses: `hyper-util`'s legacy
//! client as it is, `reqwest` by [four lines](#reqwest), an axum router in tests.
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
//!     // An error says that the source gave up: refused for good, or too many attempts without an event.
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
//! # Three things
//!
//! | | | |
//! |---|---|---|
//! | the stream **ended** | [`Update::Ended`] | its terminal event, or status 204: everything was delivered. The last item |
//! | the connection was **cut** | [`Update::Cut`] | the source waits, and tries again after the last event |
//! | the source **gave up** | [`GaveUp`] | an error, the last item. [`reconnect`](EventSource::reconnect) goes on |
//!
//! # What it does
//!
//! | what happens | what follows |
//! |---|---|
//! | 200 with `text/event-stream` | it reads |
//! | 200 with another content type, or a status that is not in this table | it gives up |
//! | 204 | the stream has ended |
//! | 401, with a function for [`headers`](EventSourceBuilder::headers) | it calls that again. If the headers are other ones now it repeats the request, else it gives up |
//! | 429 and 5xx | it tries again, not before `Retry-After` (seconds or a date, up to an hour) |
//! | the request fails, no head comes in time, the function for headers fails | it tries again |
//! | the response breaks off, or ends without a terminal event | it tries again with `Last-Event-ID`. A POST whose events carry no ids has ended if its response ends cleanly |
//! | silence for 2.5 intervals of `X-Stream-Heartbeat` | it tries again |
//! | an event is larger than [`max_event_bytes`](EventSourceBuilder::max_event_bytes) | it gives up; the error names the limit |
//!
//! It waits a random time between attempts: from 250 ms, or what the server asks for (`retry:`), to 30 s, longer after each attempt
//! without an event. After 10 of them in a row it gives up. All attempts of a POST carry one `Idempotency-Key`.
//!
//! # Voices
//!
//! The library's own words in a stream (`connected`, `gap`, `restart`, endings) are told as what they are in each
//! [`Voice`](crate::Voice), and never as events. Where a voice has no word the ids of the events tell the same: another run, a
//! hole, the end. After a restart in the voice `OpenAi`, which breaks off there, the source asks for the new run from its
//! beginning.
//!
//! # Cancel safety
//!
//! Everything happens while the source is polled; nothing is spawned. [`EventSource::next`] may be dropped and called again, in
//! `tokio::select!` too. A source that is dropped is continued by a new one:
//!
//! ```no_run
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
//! The HTTP client must not limit how long a response may take as a whole.

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
