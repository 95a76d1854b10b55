//! The hub: makes layers and services.

use std::sync::Arc;

use super::handles::{CompletionStore, StreamRegistry, Streams};
use crate::{
    layer::ResilientSseLayer,
    model::id::NodeId,
    node::Node,
    publish::{Publisher, Relay},
    recover::Recover,
    resume::{Resume, Stop},
    route::settings::Route,
    telemetry::Health,
};

/// The hub: makes layers and services that share one store, one recorder and one guardian.
///
/// Cheap to clone.
///
/// ```
/// use resilient_sse::{MemoryStore, Owner, ResilientSse};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sse, guardian) = ResilientSse::builder(MemoryStore::new())
///     // Authentication in a layer around this one sets the extension. Never trust a header that a client can set.
///     .owner(|request| request.extensions.get::<Owner>().cloned())
///     .build()?;
/// tokio::spawn(guardian);
/// let generation = sse.generation(); // a tower layer
/// let recover = sse.recover(); // a tower service
/// # let _ = (generation, recover);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResilientSse(pub(crate) Arc<Node>);

impl ResilientSse {
    /// Returns a layer for work that ends when its clients leave, as with plain server-sent events
    /// ([`Disconnect::Interrupt`](crate::Disconnect::Interrupt), without a grace). It makes up a stream id for each
    /// request.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use resilient_sse::ResilientSse;
    ///
    /// fn app(sse: &ResilientSse) -> Router {
    ///     Router::new().route("/progress", get(|| async { "…" }).layer(sse.layer()))
    /// }
    /// ```
    pub fn layer(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::new(&self.0.settings))
    }

    /// Returns a layer for work that goes on when its clients leave
    /// ([`Disconnect::DETACH`](crate::Disconnect::DETACH)). The kind of its streams is `generation`.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use resilient_sse::{ResilientSse, StreamId};
    ///
    /// fn app(sse: &ResilientSse) -> Router {
    ///     // The client makes up an id for each question, and asks again with the same one after a cut.
    ///     let layer = sse.generation().id(StreamId::path("/answers/{id}"));
    ///     Router::new().route("/answers/{id}", get(|| async { "…" }).layer(layer))
    /// }
    /// ```
    pub fn generation(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::generation(&self.0.settings))
    }

    /// Returns a layer for streams without an end. The kind of its streams is `feed`.
    ///
    /// All clients that ask for the same stream share one body. The body runs as long as one of them reads, and for 2 s
    /// more. If the body ends, the stream is interrupted, and the next request runs the handler again.
    ///
    /// A client that comes back with a cursor of an earlier run gets `restart` before the events of the new run, in voices that say
    /// so. If the handler continues where it was, as below, the page has nothing to discard.
    ///
    /// Events that occur while no body runs are not recorded. A handler that can look the missed events up gives its
    /// events ids of its own, and continues after
    /// [`StreamContext::last_inner_id`](crate::StreamContext::last_inner_id) when it runs again. For events that come from
    /// elsewhere, such as a user's notifications, use [`Publisher::send`](crate::Publisher::send) and
    /// [`relay`](Self::relay): those are recorded whether anybody reads or not.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use resilient_sse::{ResilientSse, StreamId};
    ///
    /// fn app(sse: &ResilientSse) -> Router {
    ///     // All clients of a room share one run of the handler.
    ///     let layer = sse.feed().id(StreamId::path("/rooms/{id}"));
    ///     Router::new().route("/rooms/{id}", get(|| async { "…" }).layer(layer))
    /// }
    /// ```
    pub fn feed(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::feed(&self.0.settings))
    }

    /// Returns the recovery service, for clients that were away. It answers with a stream's state, its end, and its
    /// events page by page, as JSON.
    ///
    /// It never runs an inner service. A client that wants to watch a published stream uses a [relay](Self::relay).
    #[must_use]
    pub fn recover(&self) -> Recover {
        Recover::new(Arc::clone(&self.0))
    }

    /// Returns the resume service of conversations. A page that is loaded again asks it for the conversation's running
    /// stream, and follows that stream from its first event or after the client's cursor.
    ///
    /// It never runs an inner service. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume::new(Arc::clone(&self.0))
    }

    /// Returns a service that stops the running stream of a conversation. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::new(Arc::clone(&self.0))
    }

    /// Returns a service that follows [published](Self::publisher) streams, and waits for streams that are not opened
    /// yet.
    ///
    /// A stream that an inner service produces is followed on its own route instead.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.0))
    }

    /// Returns a handle that publishes streams from background jobs.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.0))
    }

    /// Returns a handle that lists and stops streams.
    ///
    /// ```
    /// # use resilient_sse::{Owner, ResilientSse, StreamId};
    /// // `owner` comes from the application's own authentication.
    /// async fn stop(sse: &ResilientSse, owner: &Owner, id: &StreamId) -> Result<bool, resilient_sse::StoreError> {
    ///     for stream in sse.streams().list(owner).await? {
    ///         println!("{} is {}", stream.key.id, stream.state);
    ///     }
    ///     // Stops the stream on whatever node it runs. `None`: there is no such stream.
    ///     Ok(sse.streams().stop(owner, id).await?.is_some())
    /// }
    /// ```
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(Arc::clone(&self.0))
    }

    /// Returns a handle that reads the store's records of streams, and deletes streams.
    ///
    /// ```
    /// use resilient_sse::{ResilientSse, StoreError, StreamKey};
    ///
    /// async fn is_running(sse: &ResilientSse, key: &StreamKey) -> Result<bool, StoreError> {
    ///     let info = sse.registry().stream(key).await?;
    ///     Ok(info.is_some_and(|info| !info.state.is_terminal()))
    /// }
    /// ```
    #[must_use]
    pub fn registry(&self) -> StreamRegistry {
        StreamRegistry::new(Arc::clone(&self.0))
    }

    /// Returns a handle that reads the ends and events of streams, and deletes streams.
    ///
    /// ```
    /// use resilient_sse::{Reason, ResilientSse, StoreError, StreamKey};
    ///
    /// async fn why_it_ended(sse: &ResilientSse, key: &StreamKey) -> Result<Option<Reason>, StoreError> {
    ///     Ok(sse.completions().completion(key).await?.and_then(|ended| ended.ending.reason))
    /// }
    /// ```
    #[must_use]
    pub fn completions(&self) -> CompletionStore {
        CompletionStore::new(Arc::clone(&self.0))
    }

    /// Returns a future that completes when this process begins to drain, so that the server and the guardian shut down
    /// on one signal.
    ///
    /// The guardian begins the drain when its own signal comes
    /// ([`Guardian::with_graceful_shutdown`](crate::Guardian::with_graceful_shutdown)). A server that stops accepting
    /// connections then still serves its open connections to their end. If the drain has already begun, the future
    /// completes at once.
    ///
    /// `ctrl_c` below waits for SIGINT only. A service manager sends SIGTERM, for which Tokio has `signal::unix`; the
    /// repository's `examples/server/signals.rs` waits for both. `examples/hyper.rs` has the same shutdown without axum.
    ///
    /// ```
    /// use std::io;
    ///
    /// use axum::Router;
    /// use resilient_sse::{Guardian, ResilientSse};
    /// use tokio::net::TcpListener;
    ///
    /// async fn serve(listener: TcpListener, app: Router, sse: ResilientSse, guardian: Guardian) -> io::Result<()> {
    ///     let signal = async { drop(tokio::signal::ctrl_c().await) };
    ///     let guardian = tokio::spawn(guardian.with_graceful_shutdown(signal));
    ///     axum::serve(listener, app).with_graceful_shutdown(sse.draining()).await?;
    ///     guardian.await.map(drop).map_err(io::Error::other)
    /// }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.draining()
    }

    /// Returns this node's health figures.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use resilient_sse::ResilientSse;
    ///
    /// fn metrics(sse: ResilientSse) -> Router {
    ///     Router::new().route("/metrics", get(async move || sse.health().to_prometheus()))
    /// }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// Returns this node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.name
    }
}
