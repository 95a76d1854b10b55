//! A client that reads a body and reports how it ends.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body::Body as _;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use resilient_sse::{BoxError, EventId};
use tokio::time::{Instant, timeout};

/// The time after which a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The request of a client that takes the end of a body for the end of the answer, as SDKs do.
pub fn sdk(path: &str) -> request::Builder {
    Request::get(format!("http://test{path}")).header("accept", "application/json")
}

/// The request of an `EventSource`, which reconnects after any end.
pub fn event_source(path: &str) -> request::Builder {
    Request::get(format!("http://test{path}")).header("accept", "text/event-stream")
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Clean,
    Broken,
    /// The body has not ended: the client left.
    Left,
}

/// The response as a client saw it.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub text: String,
    pub end: End,
    /// The time from the last frame, or else from the head, to the end.
    pub pause: Duration,
}

/// The reader of a body.
pub struct Reading {
    status: StatusCode,
    body: Body,
    /// The library's body, without hyper in between.
    is_direct: bool,
    text: String,
    last: Instant,
}

impl Reading {
    pub fn new(response: Response<Body>, is_direct: bool) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, body, is_direct, text: String::new(), last: Instant::now() }
    }

    /// Reads until this text has arrived.
    pub async fn until(mut self, text: &str) -> Self {
        while !self.text.contains(text) {
            let end = self.frame().await;
            assert_eq!(end, None, "it ended before {text:?}: {:?}", self.text);
        }
        self
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> Got {
        loop {
            if let Some(end) = self.frame().await {
                let pause = self.last.elapsed();
                return Got { status: self.status, text: self.text, end, pause };
            }
        }
    }

    /// Drops the response.
    pub fn leave(self) -> Got {
        Got { status: self.status, text: self.text, end: End::Left, pause: Duration::ZERO }
    }

    /// Returns the last id that arrived.
    pub fn cursor(&self) -> &str {
        let id = self.text.lines().rev().find_map(|line| line.strip_prefix("id: "));
        id.unwrap_or_else(|| panic!("no id: {:?}", self.text))
    }

    /// Returns the epoch of the producing run.
    pub fn epoch(&self) -> u64 {
        self.cursor().parse::<EventId>().expect("an id").epoch
    }

    async fn frame(&mut self) -> Option<End> {
        let is_over = self.body.is_end_stream();
        let Ok(frame) = timeout(PATIENCE, self.body.frame()).await else {
            panic!("nothing came in time after {:?}", self.text)
        };
        assert!(!is_over || frame.is_none(), "it said that nothing would come after {:?}", self.text);
        match frame {
            None => Some(End::Clean),
            Some(Err(_)) => {
                if self.is_direct {
                    let after = timeout(PATIENCE, self.body.frame()).await.expect("an end after the error");
                    assert!(after.is_none(), "{after:?} came after an error");
                }
                Some(End::Broken)
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.text.push_str(std::str::from_utf8(&data).expect("whole blocks of text"));
                }
                self.last = Instant::now();
                None
            }
        }
    }
}
