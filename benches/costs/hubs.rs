//! Hubs within this process. Their bodies are polled directly, without sockets.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    BoxError,
    body::Body as AxumBody,
    response::{
        IntoResponse as _,
        sse::{KeepAlive, Sse},
    },
};
use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::BodyExt as _;
use resilient_sse::{Builder, Durability, RedisStore, ResilientSse, StreamId};
use tokio::{runtime::Runtime, task::JoinHandle};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use crate::{
    Result,
    source::{Check, Source},
};

/// Runs a future on a runtime like a server's.
pub(crate) fn on_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    Runtime::new()?.block_on(future)
}

/// A node and its guardian.
pub(crate) struct Hub {
    pub(crate) sse: ResilientSse,
    guardian: JoinHandle<()>,
}

impl Hub {
    /// Makes a hub on this Redis. Its recovery window is 20 s, so that its streams do not fill Redis.
    pub(crate) async fn on_redis(url: &str) -> Result<Self> {
        Self::with(url, |builder| builder).await
    }

    pub(crate) async fn with(url: &str, set: impl FnOnce(Builder) -> Builder) -> Result<Self> {
        let builder = ResilientSse::builder(RedisStore::connect(url).await?).anonymous();
        let (sse, guardian) = set(builder.recovery_window(Duration::from_secs(20))).build()?;
        Ok(Self { sse, guardian: tokio::spawn(async move { _ = guardian.await }) })
    }

    /// Opens a stream with this handler, or continues it after a cursor.
    pub(crate) async fn open(
        &self,
        durability: Durability,
        id: &str,
        cursor: Option<&str>,
        source: Source,
    ) -> Result<Reading> {
        let answer = Sse::new(source).keep_alive(KeepAlive::default()).into_response();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let inner = service_fn(move |_: Request<AxumBody>| {
            let answer = answer.lock().ok().and_then(|mut answer| answer.take());
            async move { Ok::<_, Infallible>(answer.unwrap_or_default()) }
        });
        let layer = self.sse.generation().durability(durability).id(StreamId::path("/{id}"));
        let mut request = Request::get(format!("/{id}"));
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let app = ServiceBuilder::new().layer(layer).service(inner);
        Ok(Reading::of(app.oneshot(request.body(AxumBody::empty())?).await?.into_body()))
    }

    /// Follows a stream that another node produces.
    pub(crate) async fn follow(&self, id: &str) -> Result<Reading> {
        let answer = self.sse.relay().oneshot(Request::get(format!("/{id}")).body(())?).await?;
        Ok(Reading::of(answer.into_body()))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.guardian.abort();
    }
}

/// The reader of a body.
pub(crate) struct Reading {
    body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    pub(crate) check: Check,
}

impl Reading {
    pub(crate) fn of(body: impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static) -> Self {
        Self { body: Box::pin(body.map_err(Into::into)), check: Check::default() }
    }

    /// Reads the body of the same handler without the layer.
    pub(crate) fn plain(source: Source) -> Self {
        Self::of(Sse::new(source).keep_alive(KeepAlive::default()).into_response().into_body())
    }

    /// Reads a frame. Returns false at the end.
    pub(crate) async fn frame(&mut self) -> Result<bool> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        if let Ok(data) = frame?.into_data() {
            self.check.push(&data)?;
        }
        Ok(true)
    }

    /// Reads until the event with this number has arrived.
    pub(crate) async fn until(&mut self, number: u64) -> Result<()> {
        while self.check.next() <= number {
            if !self.frame().await? {
                return Err(format!("the body ended before event {number}").into());
            }
        }
        Ok(())
    }

    /// Reads to the end and checks the number of events.
    pub(crate) async fn finish(mut self, events: u64) -> Result<()> {
        while self.frame().await? {}
        match self.check.next() {
            came if came == events => Ok(()),
            came => Err(format!("{came} events came, {events} were due").into()),
        }
    }
}
