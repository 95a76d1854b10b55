//! The delivery of one stream to many readers on one node.
//!
//! The bodies are polled directly, since the cost of hyper and the sockets is the same with and without the layer. The
//! base of comparison is one `write` of an event to a loopback socket.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Instant,
};

use http::Request;
use http_body::Body as _;
use resilient_sse::{AnswerBody, Event, MemoryStore, Owner, ResilientSse, StreamId};
use tokio::{io::AsyncReadExt as _, task::JoinSet};
use tower::ServiceExt as _;

use crate::{
    Options, Result,
    figure::{Goal, Line, over},
    rows::in_turns,
};

pub(crate) const WHAT: &str = "one stream to many readers on one node, per delivery";

const EVENTS: u32 = 20;
/// The number of writes to each socket.
const WRITES: u32 = 20;
const SOCKETS: usize = 500;

/// A waker that does nothing. Each body gets its own, like a body in its own task.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let [writes, some, many]: [Vec<f64>; 3] = in_turns(options, |variant, _| match variant {
        0 => write(),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(deliveries([1_000, 10_000][variant - 1]))
        }
    })?;
    Ok(vec![
        Line::new(WHAT, "a write to a socket", "ns", Goal::None, writes.clone()),
        Line::new(WHAT, "1,000 readers", "ns", Goal::None, some.clone()),
        Line::new(WHAT, "10,000 readers", "ns", Goal::None, many.clone()),
        Line::new(WHAT, "1,000 readers, against a write", "×", Goal::AtMost(1.0), over(&some, &writes)),
        Line::new(WHAT, "10,000 readers, against a write", "×", Goal::AtMost(1.0), over(&many, &writes)),
        Line::new(WHAT, "10,000 readers against 1,000", "×", Goal::AtMost(1.5), over(&many, &some)),
    ])
}

/// Returns the time of a write in ns. The sockets take turns, and a reader waits on each, as on a server with many
/// clients.
fn write() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut sockets, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        let socket = TcpStream::connect(listener.local_addr()?)?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
        readers.push(listener.accept()?.0);
    }
    let drain = thread::spawn(move || drain(readers).map_err(|error| error.to_string()));
    let event = [b'x'; 80];
    let begun = Instant::now();
    for _ in 0..WRITES {
        for socket in &mut sockets {
            socket.write_all(&event)?;
        }
    }
    let took = begun.elapsed();
    drop(sockets);
    drain.join().map_err(|_| "the reader panicked")??;
    Ok(took.as_secs_f64() * 1e9 / f64::from(WRITES) / SOCKETS as f64)
}

/// Reads all sockets to their ends on one thread.
fn drain(readers: Vec<TcpStream>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut reads = JoinSet::new();
        for reader in readers {
            reader.set_nonblocking(true)?;
            let mut reader = tokio::net::TcpStream::from_std(reader)?;
            reads.spawn(async move { while reader.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} });
        }
        while reads.join_next().await.is_some() {}
        Ok(())
    })
}

/// Returns the time of a delivery in ns: from the event's publication until every reader has its frame.
async fn deliveries(readers: usize) -> Result<f64> {
    let (sse, guardian) = ResilientSse::builder(MemoryStore::new()).anonymous().build()?;
    tokio::spawn(guardian);
    let id = StreamId::new("news")?;
    sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new("0")).await?;
    let mut bodies = Vec::new();
    for _ in 0..readers {
        let answer = sse.relay().oneshot(Request::get("/news").body(())?).await?;
        bodies.push((Box::pin(answer.into_body()), Waker::from(Arc::new(Task))));
    }
    read_all(&mut bodies);
    let begun = Instant::now();
    for number in 0..EVENTS {
        sse.publisher().send(&Owner::ANONYMOUS, &id, Event::new(number.to_string())).await?;
        let frames = read_all(&mut bodies);
        if frames != readers {
            return Err(format!("{frames} frames came to {readers} readers").into());
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / (f64::from(EVENTS) * readers as f64))
}

/// Polls every body until it is pending. Returns the number of frames.
fn read_all(bodies: &mut [(Pin<Box<AnswerBody>>, Waker)]) -> usize {
    let mut frames = 0;
    for (body, waker) in bodies {
        let mut cx = Context::from_waker(waker);
        while let Poll::Ready(Some(Ok(_))) = body.as_mut().poll_frame(&mut cx) {
            frames += 1;
        }
    }
    frames
}
