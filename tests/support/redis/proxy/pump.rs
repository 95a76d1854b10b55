//! One direction of a connection. A queue holds each chunk for the set delay.

use std::{future::pending, io};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{End, controls::Controls};

const CHUNK: usize = 16 * 1024;

/// The most chunks in a queue. While it is full, the proxy reads nothing more from the sender.
const QUEUED: usize = 256;

struct Chunk {
    due: Instant,
    /// Empty at the end of the stream.
    bytes: Vec<u8>,
}

/// Forwards a client's requests, up to the byte after which [`Controls::cut_after`] ends all connections.
pub(super) async fn requests(from: ReadHalf<'_>, mut to: WriteHalf<'_>, controls: &Controls) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel(QUEUED);
    let send = async {
        while let Some(bytes) = next(&mut queued, controls).await {
            let (allowed, last) = controls.allow(bytes.len());
            // Count before writing: a test that sees the effect of these bytes must find them counted.
            controls.request_bytes.add(allowed);
            to.write_all(&bytes[..allowed]).await?;
            if last {
                controls.cut(End::Reset);
                // This connection is among those that were cut.
                pending::<()>().await;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(receive(from, queue, controls), send).map(drop)
}

/// Forwards a server's replies, or drops them.
pub(super) async fn replies(from: ReadHalf<'_>, mut to: WriteHalf<'_>, controls: &Controls) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel(QUEUED);
    let send = async {
        while let Some(bytes) = next(&mut queued, controls).await {
            if !controls.faults().drop_replies {
                controls.reply_bytes.add(bytes.len());
                to.write_all(&bytes).await?;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(receive(from, queue, controls), send).map(drop)
}

/// Reads chunks into the queue until the end of the stream.
async fn receive(mut from: ReadHalf<'_>, queue: mpsc::Sender<Chunk>, controls: &Controls) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        let end = from.read_buf(&mut bytes).await? == 0;
        let due = Instant::now() + controls.faults().delay;
        // Sending fails only if writing to the other side has failed, and `try_join!` reports that error.
        if queue.send(Chunk { due, bytes }).await.is_err() || end {
            return Ok(());
        }
    }
}

/// Returns the next chunk once it is due, or `None` at the end.
async fn next(queued: &mut mpsc::Receiver<Chunk>, controls: &Controls) -> Option<Vec<u8>> {
    let Chunk { due, bytes } = queued.recv().await?;
    sleep_until(due).await;
    controls.thawed().await;
    Some(bytes).filter(|bytes| !bytes.is_empty())
}
