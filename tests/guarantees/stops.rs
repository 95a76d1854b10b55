//! A stop reaches the work, wherever it stands.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use resilient_sse::{Disconnect, Owner, ResilientSseLayer, StreamContext, StreamId, StreamState, test_util::collect};
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};

use crate::{
    common::{App, Body},
    stage::Stage,
};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that waits for its upstream for ever.
#[derive(Clone, Default)]
struct Waiting {
    context: Arc<Mutex<Option<StreamContext>>>,
    dropped: Arc<AtomicBool>,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Waiting {
    fn behind(&self, layer: ResilientSseLayer) -> App {
        let waiting = self.clone();
        let inner = service_fn(move |request: Request<()>| {
            *waiting.context.lock().unwrap() = request.extensions().get().cloned();
            let work = SetOnDrop(Arc::clone(&waiting.dropped));
            async move {
                let _work = work;
                std::future::pending::<Result<http::Response<Body>, Infallible>>().await
            }
        });
        BoxCloneService::new(ServiceBuilder::new().layer(layer).service(inner))
    }
}

/// The handler has not answered: it is told, it is dropped, and whoever waits for it is told how the stream ended.
#[tokio::test(start_paused = true)]
async fn a_stop_reaches_a_handler_that_has_not_answered() {
    for disconnect in [Disconnect::Interrupt, Disconnect::Cancel, Disconnect::DETACH] {
        for stopping in [0, 1] {
            let mut stage = Stage::nodes(2, |hub| hub);
            let handler = Waiting::default();
            let app = handler.behind(stage.sse().layer().id(StreamId::path("/{id}")).on_disconnect(disconnect));
            let request = app.oneshot(Request::get("/a").body(()).unwrap());
            let answer = tokio::spawn(async move { collect_answer(request.await.unwrap()).await });
            stage.advance(SECOND).await;
            let stopped =
                stage.hubs[stopping].sse.streams().stop(&Owner::ANONYMOUS, &StreamId::new("a").unwrap()).await;
            assert_eq!(stopped.unwrap().unwrap().ending.state, StreamState::Cancelled);
            stage.advance(SECOND).await;
            let context = handler.context.lock().unwrap().take().unwrap();
            assert!(context.is_stopped(), "{disconnect:?}, from node {stopping}: the handler is not told");
            assert!(handler.dropped.load(Ordering::SeqCst), "{disconnect:?}, from node {stopping}: it works on");
            assert_eq!(answer.await.unwrap(), (StatusCode::OK, vec!["cancelled".to_owned()]));
            stage.verdict().await;
        }
    }
}

async fn collect_answer<B: http_body::Body + Unpin>(response: http::Response<B>) -> (StatusCode, Vec<String>) {
    let status = response.status();
    let seen = collect(response.into_body()).await;
    (status, seen.names().into_iter().map(str::to_owned).collect())
}
