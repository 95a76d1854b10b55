//! The hub itself: makes layers and services.

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
///     // Put there by the host's own authentication, in a layer around this one. A header that a client may set is no identity.
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
    /// A layer that behaves like plain server-sent events once nobody reads
    /// ([`Disconnect::Interrupt`](crate::Disconnect::Interrupt), at once), and makes up a stream id for each request.
    pub fn layer(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::new(&self.0.settings))
    }

    /// A layer for work that goes on when its clients leave: [`Disconnect::DETACH`](crate::Disconnect::DETACH), kind `generation`.
    pub fn generation(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::generation(&self.0.settings))
    }

    /// A layer for streams without an end: a body that ends is interrupted, and run again for the
    /// next request; kind `feed`.
    ///
    /// All clients that ask for the same stream share one body, which runs for as long as one of them reads, and for 2 s more.
    /// Events after that are not recorded. A handler that can look them up gives its events ids of its own, and goes on
    /// after [`StreamContext::last_inner_id`](crate::StreamContext::last_inner_id) when it is run again.
    pub fn feed(&self) -> ResilientSseLayer {
        ResilientSseLayer::new(Arc::clone(&self.0), Route::feed(&self.0.settings))
    }

    /// The recovery service: how a stream stands, its end, and its events page by page, as JSON. For a client that was away; a
    /// [relay](Self::relay) is for one that wants to watch. It never runs an inner service.
    #[must_use]
    pub fn recover(&self) -> Recover {
        Recover::new(Arc::clone(&self.0))
    }

    /// The resume service of conversations: a page that is loaded again asks it for the stream that runs, and follows that
    /// from its first event or after its cursor. It never runs an inner service. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume::new(Arc::clone(&self.0))
    }

    /// A service that stops the stream of a conversation that runs. See [`ResilientSseLayer::conversation`].
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop::new(Arc::clone(&self.0))
    }

    /// A service that follows streams which others [publish](Self::publisher), and waits for those that are not opened yet. Streams that an
    /// inner service produces are followed on their own route.
    #[must_use]
    pub fn relay(&self) -> Relay {
        Relay::new(Arc::clone(&self.0))
    }

    /// Publishes streams from background jobs.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.0))
    }

    /// Lists and stops streams.
    ///
    /// ```
    /// # use resilient_sse::{Owner, ResilientSse, StreamId};
    /// // Behind the host's own authentication, which says who `owner` is.
    /// async fn stop(sse: &ResilientSse, owner: &Owner, id: &StreamId) -> Result<bool, resilient_sse::StoreError> {
    ///     for stream in sse.streams().list(owner).await? {
    ///         println!("{} is {}", stream.key.id, stream.state);
    ///     }
    ///     // Wherever it runs; `None` if there is no such stream.
    ///     Ok(sse.streams().stop(owner, id).await?.is_some())
    /// }
    /// ```
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams::new(Arc::clone(&self.0))
    }

    /// Looks into what the store knows of streams.
    #[must_use]
    pub fn registry(&self) -> StreamRegistry {
        StreamRegistry::new(Arc::clone(&self.0))
    }

    /// Looks into what the store keeps of ended streams.
    #[must_use]
    pub fn completions(&self) -> CompletionStore {
        CompletionStore::new(Arc::clone(&self.0))
    }

    /// Ready once this process begins to drain: one signal for the server and the guardian.
    ///
    /// The guardian begins the drain when its own signal comes ([`Guardian::with_graceful_shutdown`](crate::Guardian::with_graceful_shutdown)).
    /// A server that stops to accept connections at this signal serves those that it has to their end. A drain that has begun
    /// before this is called makes it ready at once; one that never begins, never.
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

    /// How this node is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.0.name
    }
}
