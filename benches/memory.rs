//! Resident memory of an idle stream: a handler behind the layer, on memory, beside the same handler
//! behind plain axum `Sse` with `KeepAlive`.
//!
//! `cargo bench --bench memory -- [streams] [processes]`
//!
//! Every figure comes from fresh processes of this program, one after the other: each opens so many
//! streams without sockets, polls their bodies until they wait, and tells by how much its resident
//! memory grew (`/proc/self/statm`, Linux). What a connection itself takes is the same for either. The
//! events that were recorded are part of the figure: the log holds them.

use std::{convert::Infallible, env, error::Error, fs, future::poll_fn, pin::Pin, process::Command, task::Poll};

use axum::{
    Router,
    body::Body,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use futures_util::{Stream, StreamExt as _, stream};
use http::Request;
use http_body::Body as _;
use resilient_sse::{MemoryStore, ResilientSse, StreamId};
use tower::ServiceExt as _;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const SERVERS: [&str; 2] = ["plain", "layer"];
/// KiB in a page.
const PAGE: f64 = 4.0;

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [child, server, streams, events] = &args[..]
        && child == "child"
    {
        return measure(server == "layer", streams.parse()?, events.parse()?);
    }
    let mut args = args.iter().filter_map(|arg| arg.parse().ok());
    let streams: usize = args.next().unwrap_or(10_000);
    let processes: usize = args.next().unwrap_or(5);
    println!("{streams} idle streams, KiB each: median [min-max] of {processes} processes");
    for events in [0, 1, 64] {
        let mut grown = [Vec::new(), Vec::new()];
        for _ in 0..processes {
            for (server, grown) in SERVERS.iter().zip(&mut grown) {
                grown.push(in_child(server, streams, events)?);
            }
        }
        let added: Vec<_> = grown[1].iter().zip(&grown[0]).map(|(layer, plain)| layer - plain).collect();
        let [plain, layer] = grown.map(summary);
        println!("after {events:>2} events of 64 B: plain {plain}, layer {layer}, added {}", summary(added));
    }
    Ok(())
}

fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    format!("{:.2} [{:.2}-{:.2}]", at(values.len() / 2), at(0), at(values.len() - 1))
}

fn in_child(server: &str, streams: usize, events: usize) -> Result<f64> {
    let args = ["child", server, &streams.to_string(), &events.to_string()];
    let output = Command::new(env::current_exe()?).args(args).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn resident_kib() -> Result<f64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("no figures")?.parse()?;
    Ok(pages * PAGE)
}

/// Opens the streams and prints what each took.
fn measure(layer: bool, streams: usize, events: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
        let guardian = tokio::spawn(guardian);
        let mut app = Router::new().route("/chat/{id}", get(move || async move { answer(events) }));
        if layer {
            app = app.layer(sse.generation().id(StreamId::path("/chat/{id}")));
        }
        let mut bodies = Vec::with_capacity(streams);
        // Whatever is made once is there before the first look.
        drop(open(&app, usize::MAX).await?);
        let before = resident_kib()?;
        for id in 0..streams {
            bodies.push(open(&app, id).await?);
        }
        println!("{}", (resident_kib()? - before) / streams as f64);
        guardian.abort();
        Ok(())
    })
}

fn answer(events: usize) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let event = Event::default().data("x".repeat(64 - "data: \n\n".len()));
    let events = stream::iter((0..events).map(move |_| Ok(event.clone())));
    Sse::new(events.chain(stream::pending())).keep_alive(KeepAlive::default())
}

/// A stream whose client has read all that there is so far.
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
