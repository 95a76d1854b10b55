//! A lower bound for the cost of recording to Redis: axum's `Sse`, whose frames are joined and written twice, once to
//! the client and once to Redis. It has no ids, no checks, no log for each stream and no retries. Any cost above this
//! bound is the library's.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use crate::Result;

/// The most frames that are joined into one.
const FRAMES: usize = 64;
/// The number of bytes after which commands are written to Redis together.
const FLIGHT: usize = 1 << 20;

/// The connection to Redis.
pub(crate) struct Twice(mpsc::UnboundedSender<Bytes>);

impl Twice {
    /// Connects to `redis://127.0.0.1:<port>`.
    pub(crate) async fn connect(redis: &str) -> Result<Self> {
        let socket = TcpStream::connect(redis.trim_start_matches("redis://").trim_end_matches('/')).await?;
        socket.set_nodelay(true)?;
        let (mut replies, mut requests) = socket.into_split();
        let (sender, mut frames) = mpsc::unbounded_channel::<Bytes>();
        tokio::spawn(async move {
            let mut flight = Vec::new();
            while let Some(frame) = frames.recv().await {
                add(&frame, &mut flight);
                while flight.len() < FLIGHT
                    && let Ok(frame) = frames.try_recv()
                {
                    add(&frame, &mut flight);
                }
                if requests.write_all(&flight).await.is_err() {
                    return;
                }
                flight.clear();
            }
        });
        tokio::spawn(async move {
            let mut read = vec![0; 64 << 10];
            while replies.read(&mut read).await.is_ok_and(|read| read > 0) {}
        });
        Ok(Self(sender))
    }

    /// Writes a body's frames to the client and to Redis.
    pub(crate) fn body(&self, body: Body) -> Body {
        Body::from_stream(Written {
            frames: body.into_data_stream(),
            together: BytesMut::new(),
            over: false,
            redis: self.0.clone(),
        })
    }
}

/// Appends to `flight` the command that adds an entry to the log, which all streams share.
fn add(frame: &[u8], flight: &mut Vec<u8>) {
    const HEAD: &[u8] =
        b"*8\r\n$4\r\nXADD\r\n$5\r\nfloor\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$4\r\n1000\r\n$1\r\n*\r\n$1\r\ne\r\n$";
    flight.extend_from_slice(HEAD);
    flight.extend_from_slice(frame.len().to_string().as_bytes());
    flight.extend_from_slice(b"\r\n");
    flight.extend_from_slice(frame);
    flight.extend_from_slice(b"\r\n");
}

struct Written {
    frames: BodyDataStream,
    together: BytesMut,
    over: bool,
    redis: mpsc::UnboundedSender<Bytes>,
}

impl Stream for Written {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut frames = 0;
        while frames < FRAMES && !this.over {
            match Pin::new(&mut this.frames).poll_next(cx) {
                Poll::Ready(Some(frame)) => this.together.extend_from_slice(&frame?),
                Poll::Ready(None) => this.over = true,
                Poll::Pending => break,
            }
            frames += 1;
        }
        if this.together.is_empty() {
            return if this.over { Poll::Ready(None) } else { Poll::Pending };
        }
        let frame = this.together.split().freeze();
        let _ = this.redis.send(frame.clone());
        Poll::Ready(Some(Ok(frame)))
    }
}
