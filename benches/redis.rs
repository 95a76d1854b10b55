//! What recording to Redis takes, beside what that Redis can do, in one run.
//!
//! `cargo bench --features redis --bench redis -- [rounds]`
//!
//! It starts a `redis-server` of its own, and needs `redis-benchmark` beside it. Three tables:
//! - events recorded per second, 64 streams, 64 B, each event acknowledged before it is delivered (and buffered), against
//!   single `XADD`s of as much from `redis-benchmark -P 64`, which does nothing else;
//! - what `BeforeSend` adds to one event at a time, in round trips (a `PING` on a connection of its own);
//! - reading 10,000 missed events through the layer, against one raw `XRANGE` of 10,000 one-event entries.
//!
//! Variants take turns in every round; only ratios mean anything.

#[path = "../tests/redis_servers/mod.rs"]
mod redis_servers;

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    process::Command,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use redis::aio::MultiplexedConnection;
use redis_servers::RedisServer;
use resilient_sse::{Durability, RedisStore, ResilientSse, StreamId};
use tokio::{sync::mpsc, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const STREAMS: usize = 64;
const EVENTS: usize = 5_000;
const MISSED: usize = 10_000;
const TRICKLED: usize = 300;

/// An event of 64 B, as a handler writes it.
fn event(number: usize) -> String {
    format!("data: {number:056}\n\n")
}

/// How a handler's body makes its events.
#[derive(Clone)]
enum Source {
    /// So many, ready together.
    Ready(usize),
    /// One whenever it is told to.
    Told(Arc<tokio::sync::Mutex<Option<mpsc::Receiver<usize>>>>),
}

struct Events {
    next: usize,
    end: usize,
    told: Option<mpsc::Receiver<usize>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let number = match &mut self.told {
            Some(told) => std::task::ready!(told.poll_recv(cx)),
            None => Some(self.next).filter(|next| *next < self.end),
        };
        self.next += 1;
        Poll::Ready(number.map(|number| Ok(Frame::data(event(number).into()))))
    }
}

type App = tower::util::BoxCloneService<Request<()>, Response<resilient_sse::ResilientSseBody<Events>>, Infallible>;

fn app(sse: &ResilientSse, durability: Durability, source: Source) -> App {
    let layer = sse.generation().durability(durability).id(StreamId::path("/{id}"));
    let inner = service_fn(move |_: Request<()>| {
        let source = source.clone();
        async move {
            let body = match source {
                Source::Ready(end) => Events { next: 0, end, told: None },
                Source::Told(told) => Events { next: 0, end: 0, told: told.lock().await.take() },
            };
            Ok::<_, Infallible>(
                Response::builder()
                    .header("content-type", "text/event-stream")
                    .body(body)
                    .unwrap_or_else(|_| Response::new(Events { next: 0, end: 0, told: None })),
            )
        }
    });
    ServiceBuilder::new().layer(layer).service(inner).boxed_clone()
}

async fn read(app: App, path: String, cursor: Option<String>) -> Result<usize> {
    let mut request = Request::get(path);
    if let Some(cursor) = cursor {
        request = request.header("last-event-id", cursor);
    }
    let mut body = app.oneshot(request.body(())?).await?.into_body();
    let mut events = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let bytes = frame.into_data().unwrap_or_default();
        events += memchr::memmem::find_iter(&bytes, b"data: 0").count();
    }
    Ok(events)
}

/// Events a second, from 64 streams at a time.
async fn record(sse: &ResilientSse, durability: Durability, round: &str) -> Result<f64> {
    let app = app(sse, durability, Source::Ready(EVENTS));
    let start = Instant::now();
    let mut reads = JoinSet::new();
    for stream in 0..STREAMS {
        reads.spawn(read(app.clone(), format!("/{round}-{stream}"), None));
    }
    let mut events = 0;
    while let Some(read) = reads.join_next().await {
        events += read??;
    }
    let health = sse.health();
    if events != STREAMS * EVENTS || health.lost > 0 {
        return Err(format!("{events} events came, {} were lost", health.lost).into());
    }
    Ok(events as f64 / start.elapsed().as_secs_f64())
}

/// Events a second that `redis-benchmark` adds to as many streams.
fn benchmark(server: &RedisServer) -> Result<f64> {
    let value = format!("{:063}", 0);
    let output = Command::new("redis-benchmark")
        .args(["-p", &server.port().to_string(), "-P", "64", "-c", "50", "-n", &(STREAMS * EVENTS).to_string()])
        .args(["-r", &STREAMS.to_string(), "--csv", "XADD", "bench:__rand_int__", "*", "e", &value])
        .output()
        .map_err(|error| format!("redis-benchmark: {error} (apt-get install -y redis-tools)"))?;
    let text = String::from_utf8(output.stdout)?;
    let rate =
        text.lines().nth(1).and_then(|line| line.split("\",\"").nth(1)).map(|rate| rate.trim_matches('"').to_owned());
    Ok(rate.ok_or("redis-benchmark said nothing")?.parse()?)
}

/// From the making of an event to its delivery, at the median.
async fn trickle(sse: &ResilientSse, durability: Durability, round: &str) -> Result<Duration> {
    let (tell, told) = mpsc::channel(1);
    let source = Source::Told(Arc::new(tokio::sync::Mutex::new(Some(told))));
    let request = Request::get(format!("/trickle-{round}")).body(())?;
    let mut body = app(sse, durability, source).oneshot(request).await?.into_body();
    let mut took = Vec::new();
    let mut next = async || body.frame().await.ok_or("the body ended")?.map_err(|error| error.to_string());
    next().await?;
    for number in 0..TRICKLED {
        let start = Instant::now();
        tell.send(number).await?;
        next().await?;
        took.push(start.elapsed());
        // Not at once, as with events that come one at a time.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took.sort();
    Ok(took[took.len() / 2])
}

/// A round trip, at the median, with the same pause in between.
async fn round_trip(connection: &mut MultiplexedConnection) -> Result<Duration> {
    let mut took = Vec::new();
    for _ in 0..TRICKLED {
        let start = Instant::now();
        redis::cmd("PING").exec_async(connection).await?;
        took.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took.sort();
    Ok(took[took.len() / 2])
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn report(what: &str, figures: &[f64], unit: &str) {
    let values = sorted(figures);
    println!("{what:<58} {:>10.2} {unit} [{:.2}-{:.2}]", values[values.len() / 2], values[0], values[values.len() - 1]);
}

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: usize = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(7);
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await?;
    let (sse, guardian) = ResilientSse::builder(store).anonymous().recovery_window(Duration::from_secs(20)).build()?;
    let guardian = tokio::spawn(guardian);
    let client = redis::Client::open(server.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;

    let (mut rates, mut recorded, mut buffered) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let before = record(&sse, Durability::BeforeSend, &format!("before-{round}")).await?;
        let rate = benchmark(&server)?;
        let after = record(&sse, Durability::Buffered, &format!("buffered-{round}")).await?;
        // The first round warms up.
        if round > 0 {
            rates.push(rate);
            recorded.push(before / rate);
            buffered.push(after / rate);
        }
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
    }
    println!("64 streams, 64 B");
    report("redis-benchmark -P 64, single XADD", &rates, "events/s");
    report("recorded, BeforeSend, against that", &recorded, "times");
    report("recorded, Buffered, against that", &buffered, "times");

    let (mut trips, mut added, mut added_buffered) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let trip = round_trip(&mut connection).await?;
        let before = trickle(&sse, Durability::BeforeSend, &format!("before-{round}")).await?;
        let after = trickle(&sse, Durability::Buffered, &format!("buffered-{round}")).await?;
        if round > 0 {
            trips.push(trip.as_secs_f64() * 1e6);
            added.push((before.as_secs_f64() - after.as_secs_f64()) / trip.as_secs_f64());
            added_buffered.push(after.as_secs_f64() * 1e6);
        }
    }
    println!("one event at a time");
    report("a round trip (PING)", &trips, "us");
    report("delivery, Buffered", &added_buffered, "us");
    report("BeforeSend adds", &added, "round trips");

    let missed = app(&sse, Durability::BeforeSend, Source::Ready(MISSED));
    let (mut raws, mut resumed) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let path = format!("/missed-{round}");
        read(missed.clone(), path.clone(), None).await?;
        let raw = format!("raw-{round}");
        let mut fill = redis::pipe();
        for number in 0..MISSED {
            fill.cmd("XADD").arg(&raw).arg(format!("1-{}", number + 1)).arg("e").arg(event(number)).ignore();
        }
        fill.exec_async(&mut connection).await?;
        let start = Instant::now();
        let entries: redis::Value =
            redis::cmd("XRANGE").arg(&raw).arg("-").arg("+").query_async(&mut connection).await?;
        let took = start.elapsed();
        if !matches!(&entries, redis::Value::Array(entries) if entries.len() == MISSED) {
            return Err("the raw stream is not whole".into());
        }
        let info = sse.registry().user_streams(&resilient_sse::Owner::ANONYMOUS).await?;
        let epoch = info.iter().find(|info| path.ends_with(info.key.id.as_str())).map(|info| info.epoch);
        let start = Instant::now();
        let events = read(missed.clone(), path, Some(format!("{}-0", epoch.unwrap_or(0)))).await?;
        let own = start.elapsed();
        if events != MISSED {
            return Err(format!("{events} events were read again").into());
        }
        if round > 0 {
            raws.push(took.as_secs_f64() * 1e3);
            resumed.push(own.as_secs_f64() / took.as_secs_f64());
        }
    }
    println!("10,000 missed events, 64 B");
    report("raw XRANGE of one-event entries", &raws, "ms");
    report("resume through the layer, against that", &resumed, "times");
    guardian.abort();
    Ok(())
}
