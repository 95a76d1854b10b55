//! Server CPU per event and rate over a loopback socket: a handler behind the layer, recorded on
//! memory, beside the same handler behind plain axum `Sse` with `KeepAlive`.
//!
//! `cargo bench --bench throughput -- [rounds] [events]`
//!
//! One thread serves, another reads, both in this process; all variants take turns in every round,
//! and a round's figure is divided by that of the plain server in the same round. Only ratios mean
//! anything. CPU time is the server thread's own, from `/proc` (Linux), system calls included.
//!
//! `ready`: the handler always has the next event. `trickle`: a task makes one event at a time for it,
//! so that each is a frame, a chunk and a write of its own for either server: nothing can be joined.
//! There a reader that has to wait for the slower server falls asleep, and waking it counts as the
//! server's time: about two fifths of what the layer seems to add are the kernel's.

use std::{
    convert::Infallible,
    error::Error,
    fs,
    net::SocketAddr,
    pin::Pin,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Path,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use futures_util::{Stream, stream};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use memchr::memmem::Finder;
use resilient_sse::{MemoryStore, ResilientSse, StreamId, Voice};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc::channel, oneshot},
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Clone, Copy)]
enum Server {
    /// No layer.
    Plain,
    /// The client names the stream: short event ids.
    Named,
    /// The layer makes up the stream's name, which then stands in every event id: 37 bytes more an event.
    Generated,
    /// Like `Named`, with logs of 256 events instead of 10,000: without what it costs to touch that much memory.
    ShortLog,
}

#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    size: usize,
    /// Of each stream.
    events: usize,
    trickle: bool,
}

/// What one run took, per event.
struct Cost {
    cpu: f64,
    wall: f64,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let rounds: usize = args.next().unwrap_or(7);
    let total: usize = args.next().unwrap_or(500_000);
    println!(
        "{:<24} {:<10} {:>12} {:>12} {:>24} {:>24}",
        "load", "server", "CPU ns/event", "events/s", "CPU against plain", "rate against plain"
    );
    for trickle in [false, true] {
        for streams in [1, 64] {
            for size in [64, 256] {
                let total = if trickle { total / 4 } else { total };
                compare(Load { streams, size, events: total / streams, trickle }, rounds)?;
            }
        }
    }
    Ok(())
}

fn compare(load: Load, rounds: usize) -> Result<()> {
    const SERVERS: [(&str, Server); 4] = [
        ("plain", Server::Plain),
        ("named", Server::Named),
        ("generated", Server::Generated),
        ("short log", Server::ShortLog),
    ];
    let mut costs: [Vec<Cost>; SERVERS.len()] = Default::default();
    for round in 0..=rounds {
        for turn in 0..SERVERS.len() {
            let which = (turn + round) % SERVERS.len();
            let cost = run(SERVERS[which].1, load)?;
            // The first round warms up.
            if round > 0 {
                costs[which].push(cost);
            }
        }
    }
    let source = if load.trickle { "trickle" } else { "ready" };
    let name = format!("{source}, N={}, {} B", load.streams, load.size);
    for ((server, _), own) in SERVERS.iter().zip(&costs) {
        let ratio = |of: fn(&Cost) -> f64| summary(own.iter().zip(&costs[0]).map(|(own, plain)| of(own) / of(plain)));
        println!(
            "{name:<24} {server:<10} {:>12.0} {:>12.0} {:>24} {:>24}",
            median(own.iter().map(|cost| cost.cpu * 1e9)),
            median(own.iter().map(|cost| 1.0 / cost.wall)),
            ratio(|cost| cost.cpu),
            ratio(|cost| 1.0 / cost.wall),
        );
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn summary(values: impl Iterator<Item = f64>) -> String {
    let values = sorted(values);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    format!("{:.2} [{:.2}-{:.2}]", at(values.len() / 2), at(0), at(values.len() - 1))
}

/// Serves all streams once, on fresh threads.
fn run(server: Server, load: Load) -> Result<Cost> {
    let (started, address) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let serving = thread::spawn(move || serve(server, load, &started, stopped));
    let address = address.recv_timeout(Duration::from_secs(10))?;
    let start = Instant::now();
    let read = thread::spawn(move || read_all(address, load)).join().map_err(|_| "the reader panicked")??;
    let wall = start.elapsed();
    let _ = stop.send(());
    let cpu = serving.join().map_err(|_| "the server panicked")??;
    let events = load.streams * load.events;
    // The layer says `connected` and `completed` besides.
    let expected = match server {
        Server::Plain => events,
        Server::Named | Server::Generated | Server::ShortLog => events + 2 * load.streams,
    };
    if read != expected {
        return Err(format!("{read} events came, {expected} were due").into());
    }
    let per_event = |time: Duration| time.as_secs_f64() / events as f64;
    Ok(Cost { cpu: per_event(cpu), wall: per_event(wall) })
}

/// The CPU time of the thread that calls.
fn cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().ok_or("no figures")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// Serves on this thread alone; returns what CPU time that took.
fn serve(
    server: Server,
    load: Load,
    started: &mpsc::Sender<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let log = if matches!(server, Server::ShortLog) { 256 } else { 10_000 };
        let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().max_events(log).build()?;
        let guardian = tokio::spawn(guardian);
        let routes = Router::new().route("/chat/{id}", get(move |Path(id): Path<String>| answer(id, load)));
        let app = match server {
            Server::Plain => routes,
            Server::Named | Server::ShortLog => routes.layer(sse.generation().id(StreamId::path("/chat/{id}"))),
            Server::Generated => routes.layer(sse.generation().voice(Voice::Named)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        started.send(listener.local_addr()?)?;
        let before = cpu()?;
        let accept = async {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let _ = socket.set_nodelay(true);
                let service = TowerToHyperService::new(app.clone());
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
        let after = cpu()?;
        guardian.abort();
        Ok(after - before)
    })
}

type Events = Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>>;

async fn answer(_: String, load: Load) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let data = "x".repeat(load.size - "data: \n\n".len());
    let events = (0..load.events).map(move |_| Event::default().data(&data));
    let events: Events = if load.trickle {
        // Room for one: the next is made once this one is taken.
        let (sender, receiver) = channel(1);
        tokio::spawn(async move {
            for event in events {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(stream::unfold(receiver, async |mut events| Some((Ok(events.recv().await?), events))))
    } else {
        Box::pin(stream::iter(events.map(Ok)))
    };
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Reads all streams on this thread; returns how many events came.
fn read_all(address: SocketAddr, load: Load) -> Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let readers: Vec<_> = (0..load.streams).map(|id| tokio::spawn(read(address, id))).collect();
        let mut events = 0;
        for reader in readers {
            events += reader.await??;
        }
        Ok(events)
    })
}

/// Counts blank lines: no event here has one inside, and no frame ends within one.
async fn read(address: SocketAddr, id: usize) -> Result<usize> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET /chat/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let blank = Finder::new("\n\n");
    let mut buffer = vec![0; 256 << 10];
    let (mut events, mut split) = (0, false);
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Ok(events);
        }
        let bytes = &buffer[..read];
        events += usize::from(split && bytes[0] == b'\n') + blank.find_iter(bytes).count();
        split = bytes[read - 1] == b'\n' && !bytes.ends_with(b"\n\n");
    }
}
