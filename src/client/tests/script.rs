//! A server that answers each request with the next answer of a script, and records the requests.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{StreamExt as _, iter};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time::{Instant, sleep};
use tower_service::Service;

use crate::client::{EventSource, EventSourceBuilder};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// One part of a body.
#[derive(Clone)]
pub(super) enum Part {
    Data(Bytes),
    Wait(Duration),
    /// The connection breaks.
    Break,
    /// The body stays open, but nothing more comes.
    Hang,
}

impl From<&str> for Part {
    fn from(data: &str) -> Self {
        Self::Data(Bytes::copy_from_slice(data.as_bytes()))
    }
}

/// One answer of a script.
#[derive(Clone)]
pub(super) enum Answer {
    Response(u16, Vec<(&'static str, String)>, Vec<Part>),
    /// The connection fails.
    Unreachable,
    /// The head never comes.
    Silence,
}

impl Answer {
    /// An event stream of these parts.
    pub(super) fn events<P: Into<Part>>(parts: impl IntoIterator<Item = P>) -> Self {
        let content_type = ("content-type", "text/event-stream".to_owned());
        Self::Response(200, vec![content_type], parts.into_iter().map(Into::into).collect())
    }

    /// An answer with this status and no body.
    pub(super) fn status(status: u16) -> Self {
        Self::Response(status, Vec::new(), Vec::new())
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Response(_, headers, _) = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    /// Adds a last part to the body.
    pub(super) fn then(mut self, part: impl Into<Part>) -> Self {
        if let Self::Response(_, _, parts) = &mut self {
            parts.push(part.into());
        }
        self
    }
}

/// A request to the server, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) request: Request<Full<Bytes>>,
    pub(super) at: Instant,
}

impl Asked {
    /// Returns a header's value, or an empty string if the request does not have it.
    pub(super) fn header(&self, name: &str) -> &str {
        self.request.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A server that follows a script. It repeats the last answer for all later requests.
#[derive(Clone)]
pub(super) struct Server {
    script: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Creates a server with this script.
    pub(super) fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { script, asked: Arc::default() }
    }

    pub(super) fn get(&self) -> EventSourceBuilder<Self, Full<Bytes>> {
        EventSource::builder(self.clone(), Request::get("http://test/stream").body(Full::default()).unwrap())
    }

    pub(super) fn post(&self) -> EventSourceBuilder<Self, Full<Bytes>> {
        EventSource::builder(self.clone(), Request::post("http://test/stream").body(Full::from("question")).unwrap())
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns the cursors of all requests.
    pub(super) fn cursors(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.header("last-event-id").to_owned()).collect()
    }

    /// Returns how long the source waited before each request but the first.
    pub(super) fn waits(&self) -> Vec<Duration> {
        self.asked().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<Body>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.asked.lock().unwrap().push(Asked { request, at: Instant::now() });
        let mut script = self.script.lock().unwrap();
        let answer = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        let answer = answer.expect("a script has an answer");
        Box::pin(async move {
            match answer {
                Answer::Unreachable => Err(io::ErrorKind::ConnectionRefused.into()),
                Answer::Silence => std::future::pending().await,
                Answer::Response(status, headers, parts) => {
                    let mut response = Response::builder().status(status);
                    for (name, value) in headers {
                        response = response.header(name, value);
                    }
                    Ok(response.body(body(parts)).unwrap())
                }
            }
        })
    }
}

fn body(parts: Vec<Part>) -> Body {
    let frames = iter(parts).filter_map(async |part| match part {
        Part::Data(data) => Some(Ok(Frame::data(data))),
        Part::Wait(wait) => {
            sleep(wait).await;
            None
        }
        Part::Break => Some(Err(io::ErrorKind::ConnectionReset.into())),
        Part::Hang => std::future::pending().await,
    });
    StreamBody::new(frames).boxed_unsync()
}
