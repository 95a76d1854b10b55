//! The resident memory of an idle stream, without its connection.
//!
//! Every figure comes from fresh processes, one after the other. Each opens streams without sockets, polls their bodies
//! until they are pending, and prints by how much its resident memory grew. That includes the recorded events, which
//! the log holds.

use std::{env, future::poll_fn, pin::Pin, process, process::Command, task::Poll};

use axum::{
    Router,
    body::Body,
    response::sse::{KeepAlive, Sse},
    routing::get,
};
use http::Request;
use http_body::Body as _;
use resilient_sse::{MemoryStore, ResilientSse, StreamId};
use tower::ServiceExt as _;

use crate::{
    Options, Result,
    figure::{Goal, Line},
    proc,
    rows::in_turns,
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "memory added per idle stream";

const STREAMS: usize = 10_000;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (events, goal) in [(0, Goal::AtMost(0.5)), (1, Goal::None), (64, Goal::None)] {
        let [plain, layer]: [Vec<f64>; 2] = in_turns(options, |variant, _| {
            let args = ["child", "idle", ["plain", "layer"][variant], &events.to_string()];
            let output = Command::new(env::current_exe()?).args(args).output()?;
            Ok(String::from_utf8(output.stdout)?.trim().parse()?)
        })?;
        let added = layer.iter().zip(&plain).map(|(layer, plain)| layer - plain).collect();
        let after = if events == 0 { String::new() } else { format!(" after {events} events of 64 B, these included") };
        lines.push(Line::new(WHAT, format!("plain axum, without its connection{after}"), "KiB", Goal::None, plain));
        lines.push(Line::new(WHAT, format!("memory adds{after}"), "KiB", goal, added));
    }
    Ok(lines)
}

/// Opens the streams and prints the memory of each, in KiB.
pub(crate) fn child(args: &[String]) -> Result<()> {
    let [server, events] = args else { return Err("which server, how many events?".into()) };
    let (layered, events) = (server == "layer", events.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
        let guardian = tokio::spawn(guardian);
        let answer = move || async move {
            Sse::new(Source::new(events, 64, Pace::Ready).stays()).keep_alive(KeepAlive::default())
        };
        let mut app = Router::new().route("/chat/{id}", get(answer));
        if layered {
            app = app.layer(sse.generation().id(StreamId::path("/chat/{id}")));
        }
        let mut bodies = Vec::with_capacity(STREAMS);
        // Open one stream before memory is measured, so that one-time allocations do not count.
        drop(open(&app, usize::MAX).await?);
        let before = proc::resident(process::id())?;
        for id in 0..STREAMS {
            bodies.push(open(&app, id).await?);
        }
        println!("{}", (proc::resident(process::id())? - before) / 1024.0 / STREAMS as f64);
        guardian.abort();
        Ok(())
    })
}

/// Opens a stream, and reads everything that is ready.
async fn open(app: &Router, id: usize) -> Result<Body> {
    let request = Request::get(format!("/chat/{id}")).body(Body::empty())?;
    let mut body = app.clone().oneshot(request).await?.into_body();
    poll_fn(|cx| {
        while Pin::new(&mut body).poll_frame(cx).is_ready() {}
        Poll::Ready(())
    })
    .await;
    Ok(body)
}
