//! The client of the servers under test. It uses raw sockets and HTTP/1.1, and checks every event.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use crate::{Result, child::Child, source::Check};

/// The time after which a run counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// The load of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    /// Events of each stream.
    pub(crate) events: u64,
    /// The size of an event, in bytes.
    pub(crate) size: usize,
    /// Events a second of each stream; 0 if all are ready together.
    pub(crate) rate: f64,
    /// Whether each event is ready in a poll of its own, if `rate` is 0.
    pub(crate) alone: bool,
}

/// The cost of a run.
pub(crate) struct Took {
    /// The time from the common start of all streams to the end of the last one.
    pub(crate) wall: Duration,
    /// The server's CPU time in that period, in seconds.
    pub(crate) cpu: f64,
    /// The bytes of the numbered events on the wire.
    pub(crate) bytes: usize,
}

/// Reads all streams of a run to their ends. `run` counts the runs of this child.
pub(crate) fn run(child: &Child, load: Load, run: u64) -> Result<Took> {
    let path = move |stream: usize| {
        let Load { events, size, rate, alone, .. } = load;
        format!("/s/{run}-{stream}?n={events}&size={size}&rate={rate}&alone={}&go={run}", u8::from(alone))
    };
    let took = thread::scope(|scope| scope.spawn(|| on_runtime(read(child, load, run, path))).join());
    took.map_err(|_| "the client panicked")?
        .map_err(|error| format!("{}, {load:?}: {error}", child.variant.name()).into())
}

/// Reads streams that begin immediately.
pub(crate) fn read_all(
    child: &Child,
    streams: usize,
    events: u64,
    path: impl Fn(usize) -> String + Copy + Send,
) -> Result<Took> {
    let load = Load { streams, events, size: 0, rate: 0.0, alone: false };
    on_runtime(read(child, load, 0, path))
}

fn on_runtime<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.map_err(|_| "a run hangs")? })
}

async fn read(child: &Child, load: Load, run: u64, path: impl Fn(usize) -> String) -> Result<Took> {
    // Connect in groups that fit into the listener's queue.
    let connecting = Arc::new(Semaphore::new(100));
    let layered = child.variant.has_layer();
    let address = child.address;
    let mut heads = Vec::new();
    for stream in 0..load.streams {
        let (path, connecting) = (path(stream), Arc::clone(&connecting));
        heads.push(tokio::spawn(async move {
            let _permit = connecting.acquire_owned().await?;
            Reader::open(address, &path, &[]).await
        }));
    }
    let mut readers = Vec::new();
    for head in heads {
        readers.push(head.await??);
    }
    let (cpu, begun) = (child.cpu()?, Instant::now());
    if run > 0 {
        get(address, &format!("/go/{run}")).await?;
    }
    let readers: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(reader.finish(load.events, layered))).collect();
    let mut bytes = 0;
    for reader in readers {
        bytes += reader.await??;
    }
    Ok(Took { wall: begun.elapsed(), cpu: child.cpu()? - cpu, bytes })
}

/// Requests a path that is not a stream.
async fn get(address: SocketAddr, path: &str) -> Result<()> {
    let mut reader = Reader::open(address, path, &[]).await?;
    while reader.more().await? {}
    Ok(())
}

/// Returns the time from a request, on an open connection, to the first numbered event.
pub(crate) async fn first_event(address: SocketAddr, path: &str) -> Result<Duration> {
    let socket = connect(address).await?;
    let begun = Instant::now();
    let mut reader = Reader::ask(socket, path, &[]).await?;
    while reader.check.next() == 0 {
        if !reader.more().await? {
            return Err("the stream ended without an event".into());
        }
    }
    Ok(begun.elapsed())
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The reader of a response.
struct Reader {
    socket: TcpStream,
    buffer: Vec<u8>,
    chunks: Chunks,
    check: Check,
    completed: bool,
}

impl Reader {
    async fn open(address: SocketAddr, path: &str, headers: &[&str]) -> Result<Self> {
        Self::ask(connect(address).await?, path, headers).await
    }

    /// Sends a request and reads the head of its response.
    async fn ask(mut socket: TcpStream, path: &str, headers: &[&str]) -> Result<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        headers.iter().for_each(|header| request += &format!("{header}\r\n"));
        socket.write_all(format!("{request}\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        let end = loop {
            if socket.read_buf(&mut head).await? == 0 {
                return Err("the connection ended within a head".into());
            }
            if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !head.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&head).into_owned().into());
        }
        let chunked = memchr::memmem::find(&head[..end], b"chunked").is_some();
        let chunks = if chunked { Chunks::Size(0) } else { Chunks::None };
        let mut reader = Self { socket, buffer: Vec::new(), chunks, check: Check::default(), completed: false };
        reader.take(&head[end..])?;
        Ok(reader)
    }

    /// Reads the bytes that are ready. Returns false at the end.
    async fn more(&mut self) -> Result<bool> {
        // A reader that waits gives up its buffer, since there may be thousands of readers.
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer = vec![0; 64 << 10];
        }
        let read = self.socket.read(&mut buffer).await?;
        self.take(&buffer[..read])?;
        self.buffer = buffer;
        Ok(read > 0)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let (check, completed) = (&mut self.check, &mut self.completed);
        self.chunks.push(bytes, |data| {
            *completed |= memchr::memmem::find(data, b"event: completed").is_some();
            check.push(data)
        })
    }

    /// Reads to the end and checks that every event came. Returns the bytes of the events.
    async fn finish(mut self, events: u64, layered: bool) -> Result<usize> {
        while self.more().await? {}
        if self.check.next() != events {
            return Err(format!("{} events came, {events} were due", self.check.next()).into());
        }
        if layered && !self.completed {
            return Err("the stream broke off".into());
        }
        Ok(self.check.bytes)
    }
}

/// The position in a chunked body.
enum Chunks {
    /// The body is not chunked.
    None,
    /// In a chunk's size, with its value so far.
    Size(usize),
    /// In a chunk, with the bytes that are left of it and of the line end after it.
    Data(usize),
}

impl Chunks {
    fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            match self {
                Self::None => return take(bytes),
                Self::Size(size) => {
                    let (byte, rest) = (bytes[0], &bytes[1..]);
                    bytes = rest;
                    match byte {
                        b'\n' => *self = Self::Data(*size + 2),
                        b'\r' => {}
                        digit => {
                            let digit = char::from(digit).to_digit(16).ok_or("no chunk's size")?;
                            *size = *size * 16 + digit as usize;
                        }
                    }
                }
                Self::Data(left) => {
                    // The last two bytes of a chunk are its line end.
                    let data = left.saturating_sub(2).min(bytes.len());
                    if data > 0 {
                        take(&bytes[..data])?;
                        *left -= data;
                        bytes = &bytes[data..];
                    }
                    let end = if *left <= 2 { (*left).min(bytes.len()) } else { 0 };
                    *left -= end;
                    bytes = &bytes[end..];
                    if *left == 0 {
                        *self = Self::Size(0);
                    }
                }
            }
        }
        Ok(())
    }
}
