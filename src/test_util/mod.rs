//! Tools for the tests of hosts and of this crate (feature `test-util`).
//!
//! [`TestHub`] is a hub with a memory store and seeded ids. Tests step its guardian while time is paused. [`collect`]
//! reads a response body to its end, and [`cut_after`] cuts it off. [`FaultStore`] wraps any store and fails on demand.
//!
//! ```
//! use http::{Request, Response};
//! use resilient_sse::test_util::{TestHub, cut_after, collect};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let hub = TestHub::new();
//! let app = ServiceBuilder::new().layer(hub.sse.generation()).service(service_fn(|_: Request<()>| async {
//!     let body = "data: one\n\ndata: two\n\ndata: three\n\n".to_owned();
//!     Ok::<_, std::convert::Infallible>(
//!         Response::builder().header("content-type", "text/event-stream").body(body).unwrap(),
//!     )
//! }));
//! let first = app.clone().oneshot(Request::get("/").body(()).unwrap()).await.unwrap();
//! let seen = cut_after(1, first.into_body()).await;
//! assert_eq!(seen.data(), ["one"]);
//! let again = Request::get("/").header("last-event-id", seen.last_id()).body(()).unwrap();
//! let rest = collect(app.oneshot(again).await.unwrap().into_body()).await;
//! assert_eq!(rest.names(), ["message", "message", "completed"]);
//! # }
//! ```

mod collect;
mod fault;
mod hub;

pub use collect::{Seen, Transcript, collect, cut_after};
pub use fault::{Fault, FaultError, FaultStore};
pub use hub::TestHub;
