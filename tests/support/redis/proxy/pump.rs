//! One direction of a connection: a line on which each chunk takes its time.

use std::{future::pending, io};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{End, controls::Controls};

const CHUNK: usize = 16 * 1024;

/// How many chunks may be on the way; with more, the sender feels it.
const ON_THE_WAY: usize = 256;

struct Chunk {
    due: Instant,
    /// None at the end.
    bytes: Vec<u8>,
}

/// Forwards a client's requests, up to the point of a cut.
pub(super) async fn requests(from: ReadHalf<'_>, mut to: WriteHalf<'_>, controls: &Controls) -> io::Result<()> {
    let (line, mut arriving) = mpsc::channel(ON_THE_WAY);
    let arrive = async {
        while let Some(bytes) = next(&mut arriving, controls).await {
            let (allowed, last) = controls.allow(bytes.len());
            // Before it is seen, so that who has seen it finds it counted.
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
    tokio::try_join!(leave(from, line, controls), arrive).map(drop)
}

/// Forwards a server's replies, or loses them.
pub(super) async fn replies(from: ReadHalf<'_>, mut to: WriteHalf<'_>, controls: &Controls) -> io::Result<()> {
    let (line, mut arriving) = mpsc::channel(ON_THE_WAY);
    let arrive = async {
        while let Some(bytes) = next(&mut arriving, controls).await {
            if !controls.faults().drop_replies {
                controls.reply_bytes.add(bytes.len());
                to.write_all(&bytes).await?;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(leave(from, line, controls), arrive).map(drop)
}

async fn leave(mut from: ReadHalf<'_>, line: mpsc::Sender<Chunk>, controls: &Controls) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        let end = from.read_buf(&mut bytes).await? == 0;
        let due = Instant::now() + controls.faults().delay;
        // It is received until the end; where that fails, so does this.
        if line.send(Chunk { due, bytes }).await.is_err() || end {
            return Ok(());
        }
    }
}

/// The next chunk when it arrives; `None` at the end.
async fn next(arriving: &mut mpsc::Receiver<Chunk>, controls: &Controls) -> Option<Vec<u8>> {
    let Chunk { due, bytes } = arriving.recv().await?;
    sleep_until(due).await;
    controls.thawed().await;
    Some(bytes).filter(|bytes| !bytes.is_empty())
}
