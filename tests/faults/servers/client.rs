//! Clients that connect, read, leave, and reconnect with the last id they saw, and note when each event came.

use std::sync::PoisonError;

use bytes::Buf as _;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::{
    ResilientSseBody, StreamKey, Voice,
    test_util::Seen,
    wire::{Parsed, Parser},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};
use tower::ServiceExt as _;

use crate::{
    servers::stage::{AllFacts, PATIENCE, until},
    support::{
        checker::{Cursor, Witness, check_bytes},
        handlers::{App, Body},
    },
};

/// The reconnect delay: shorter than the library's, so that tests are quick.
const COMES_AGAIN: Duration = Duration::from_millis(100);

pub struct Client {
    pub app: App,
    pub witness: Witness,
    /// Every event but the library's notices: when it came, and its data.
    pub heard: Vec<(Instant, String)>,
    facts: AllFacts,
    connection: Option<Connection>,
    count: watch::Sender<usize>,
}

struct Connection {
    body: ResilientSseBody<Body>,
    parser: Parser,
    bytes: Vec<u8>,
}

impl Client {
    pub fn new(app: &App, key: StreamKey, facts: AllFacts) -> Self {
        Self {
            app: app.clone(),
            witness: Witness::new(key, Voice::Named, false),
            heard: Vec::new(),
            facts,
            connection: None,
            count: watch::Sender::new(0),
        }
    }

    /// Connects with the last id it saw, if it saw one. The answer must be 200, or 204 once the client has the end.
    pub async fn connect(&mut self) {
        self.leave(false);
        let cursor = self.witness.cursor();
        let request = Request::get(format!("/{}", self.witness.key.id)).header("accept", "text/event-stream");
        let request = cursor.iter().fold(request, |request, cursor| request.header("last-event-id", cursor));
        let asked = self.app.clone().oneshot(request.body(()).unwrap());
        let response = timeout(PATIENCE, asked).await.expect("an answer").unwrap();
        if self.witness.ended.is_some() {
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            return;
        }
        assert_eq!(response.status(), StatusCode::OK, "an EventSource would give up");
        assert!(!response.headers().contains_key("x-stream-recorded"), "it is recorded");
        self.facts.lock().unwrap().entry(self.witness.key.clone()).or_default();
        self.witness.connects(if cursor.is_some() { Cursor::Own } else { Cursor::None });
        let (parser, bytes) = (Parser::new(1 << 20), Vec::new());
        self.connection = Some(Connection { body: response.into_body(), parser, bytes });
    }

    /// Reads until a number of further events arrived. Returns false if the body is over.
    pub async fn read(&mut self, events: usize) -> bool {
        let enough = self.heard.len().saturating_add(events);
        while self.heard.len() < enough {
            let connection = self.connection.as_mut().expect("connected");
            if let Some(parsed) = connection.parser.pop() {
                if let Parsed::Message(message) = parsed {
                    self.hears(Seen { name: message.name, data: message.data, id: message.last_event_id });
                }
                continue;
            }
            // A body that is not whole breaks off.
            let frame = connection.body.frame().await;
            let Some(Ok(frame)) = frame else {
                if frame.is_none() {
                    self.witness.body_ends_cleanly();
                }
                self.leave(true);
                return false;
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let bytes = data.copy_to_bytes(data.remaining());
            connection.bytes.extend_from_slice(&bytes);
            connection.parser.push(&bytes).unwrap();
        }
        true
    }

    fn hears(&mut self, seen: Seen) {
        let before = self.witness.data.len();
        let mut all = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        self.witness.check(&seen, all.entry(self.witness.key.clone()).or_default());
        drop(all);
        if self.witness.data.len() > before {
            self.heard.push((Instant::now(), seen.data));
            self.count.send_replace(self.heard.len());
        }
    }

    fn leave(&mut self, ended: bool) {
        if let Some(connection) = self.connection.take() {
            check_bytes(&connection.bytes, ended);
        }
    }

    /// Connects, reads a number of events, and leaves.
    pub async fn cut(mut self, events: usize) -> Self {
        self.connect().await;
        assert!(self.read(events).await, "the body is over: {:?}", self.witness.names);
        self.leave(false);
        self
    }

    /// Reconnects until it has the end of the stream.
    pub async fn stay(mut self) -> Self {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            if self.connection.is_none() {
                self.connect().await;
            }
            while self.read(usize::MAX).await {}
            if self.witness.ended.is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "{} never ends: {:?}", self.witness.key.id, self.witness.names);
            sleep(COMES_AGAIN).await;
        }
        // The client is told so when it reconnects.
        self.connect().await;
        self
    }

    /// Connects once, and reads to the end of that body.
    pub async fn listen(mut self) -> Self {
        if self.connection.is_none() {
            self.connect().await;
        }
        while self.read(usize::MAX).await {}
        self
    }

    /// Waits until the client has its first event, and reads the rest in the background.
    pub async fn attached(mut self) -> Listening {
        self.connect().await;
        assert!(self.read(1).await);
        self.staying()
    }

    /// The same for a client that does not reconnect.
    pub async fn attached_once(mut self) -> Listening {
        self.connect().await;
        assert!(self.read(1).await);
        self.listening()
    }

    /// Reads on in the background.
    pub fn staying(self) -> Listening {
        let count = self.count.subscribe();
        Listening { task: tokio::spawn(self.stay()), count }
    }

    pub fn listening(self) -> Listening {
        let count = self.count.subscribe();
        Listening { task: tokio::spawn(self.listen()), count }
    }

    /// Asserts that the client saw all of a single run and no notice. Returns the number of events, not counting the
    /// end.
    pub fn has_all(&self) -> usize {
        let numbers: Vec<_> = self.witness.data.iter().map(|data| data.rsplit(':').next().unwrap()).collect();
        let (end, events) = numbers.split_last().expect("it saw the end");
        assert_eq!(*end, "end", "{numbers:?}");
        assert!(events.iter().enumerate().all(|(index, n)| *n == (index + 1).to_string()), "{numbers:?}");
        assert_eq!((self.witness.gaps, self.witness.restarts), (0, 0));
        events.len()
    }

    /// Returns how many of another client's events this one lacks. The witness checks that it was told of each such
    /// gap.
    pub fn misses(&self, other: &Self) -> usize {
        other.witness.data.iter().filter(|data| !self.witness.data.contains(data)).count()
    }
}

/// A client that reads in the background.
pub struct Listening {
    task: JoinHandle<Client>,
    count: watch::Receiver<usize>,
}

impl Listening {
    pub fn heard(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until a number of further events arrived.
    pub async fn hears(&self, more: usize) {
        let enough = self.heard() + more;
        until("events come", async || {
            assert!(!self.task.is_finished() || self.heard() >= enough, "the body is over");
            self.heard() >= enough
        })
        .await;
    }

    /// Leaves immediately.
    pub fn goes(self) {
        self.task.abort();
    }

    pub async fn done(self) -> Client {
        timeout(PATIENCE * 2, self.task).await.expect("it ends").unwrap()
    }
}
