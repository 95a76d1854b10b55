//! G6: ten thousand streams leave nothing behind, however they ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use resilient_sse::wire::{Parsed, Parser};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    figure,
    line::Line,
    node,
    support::{
        example::{PATIENCE, eventually},
        redis::RedisServer,
    },
    trusting,
};

const STREAMS: usize = 10_000;
const WORKERS: usize = 24;
/// Detached streams end within 3 s, silent ones live for 6 s, and ended ones are kept for 2 s.
const WINDOWS: [&str; 12] = [
    "--recovery-window",
    "2",
    "--lifetime",
    "6",
    "--stale",
    "1.5",
    "--sweep",
    "0.5",
    "--detach-at-most",
    "3",
    "--drain",
    "2",
];
/// All windows one after the other, the lease of a node that died in the middle of a sweep, and time for a busy
/// machine.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// What clients do with a stream, and the ends that it may then have.
const KINDS: [(Kind, &[&str]); 16] = [
    (Kind::Read("n=3&rate=0"), &["completed"]),
    (Kind::Read("n=2&rate=0&end=failed"), &["failed"]),
    (Kind::Read("n=2&rate=0&end=eof"), &["completed"]),
    (Kind::Read("n=2&rate=0&end=error"), &["failed"]),
    (Kind::Unnamed("n=2&rate=0"), &["completed"]),
    (Kind::Roam("n=12&rate=200"), &["completed"]),
    (Kind::Roam("n=12&rate=200&end=error"), &["failed"]),
    (Kind::Leave("n=4&rate=50"), &[]),
    (Kind::Leave("n=1&rate=0&end=never"), &[]),
    (Kind::Stop("n=1&rate=0&end=never"), &["cancelled"]),
    (Kind::Feed("n=6&rate=100"), &["completed"]),
    (Kind::LeaveFeed("n=2&rate=20&end=never"), &[]),
    (Kind::Cancel("n=2&rate=20&end=never"), &[]),
    (Kind::Publish, &["completed"]),
    (Kind::LeavePublished, &[]),
    (Kind::Refused, &[]),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// To its end.
    Read(&'static str),
    /// The same, with an id of the library's making.
    Unnamed(&'static str),
    /// From node to node, to its end.
    Roam(&'static str),
    /// Cut, and never read again.
    Leave(&'static str),
    /// Stopped from another node.
    Stop(&'static str),
    /// Cut, which interrupts it, and run again.
    Feed(&'static str),
    LeaveFeed(&'static str),
    /// Cut, which cancels it.
    Cancel(&'static str),
    /// Published by two nodes.
    Publish,
    /// Published and never ended.
    LeavePublished,
    /// The handler does not stream: the registration is withdrawn.
    Refused,
}

/// The nodes' addresses: two that detach, one that interrupts, one that cancels.
type Addresses = Arc<Mutex<[SocketAddr; 4]>>;

#[derive(Clone, Copy)]
enum Role {
    First = 0,
    Second = 1,
    Feeds = 2,
    Cancels = 3,
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_nothing_is_left_of_ten_thousand_streams() {
    let redis = Arc::new(RedisServer::start());
    let start = |more: &[&str]| node(&redis.url(), &[&WINDOWS[..], more].concat());
    let (a, b) = (start(&[]), start(&[]));
    let (feeds, cancels) = (start(&["--on-disconnect", "interrupt"]), start(&["--on-disconnect", "cancel"]));
    for node in [&a, &b, &feeds, &cancels] {
        trusting(node).await;
    }
    let before = redis.keys();
    assert_eq!(before.len(), 4, "one of each node: {before:?}");
    let sampler = Sampler::start(&redis);

    let nodes: Addresses = Arc::new(Mutex::new([&a, &b, &feeds, &cancels].map(|node| node.address)));
    let (killed, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (nodes, killed, next) = (Arc::clone(&nodes), Arc::clone(&killed), Arc::clone(&next));
            tokio::spawn(async move { Worker::new(nodes, killed).work(&next).await })
        })
        .collect();
    let reach = async |streams: usize| {
        while next.load(Ordering::Relaxed) < streams {
            assert!(!workers.iter().any(tokio::task::JoinHandle::is_finished), "a worker gave up");
            sleep(Duration::from_millis(10)).await;
        }
    };
    reach(STREAMS / 2).await;
    let mut errors = figure(&a, "storeErrors").await;
    killed.store(true, Ordering::SeqCst);
    a.kill();
    // Another node takes its place after a while.
    reach(STREAMS * 6 / 10).await;
    let a = start(&[]);
    nodes.lock().unwrap()[Role::First as usize] = a.address;

    let (mut tally, mut lates) = (BTreeMap::<_, usize>::new(), 0);
    for worker in workers {
        let (outcomes, late) = worker.await.unwrap();
        lates += late;
        for (outcome, count) in outcomes {
            *tally.entry(outcome).or_default() += count;
        }
    }
    let took = begun.elapsed();
    eprintln!("{STREAMS} streams in {took:?}: {tally:#?}");
    for node in [&a, &b, &feeds, &cancels] {
        let (_, health) = node.json("/healthz").await;
        eprintln!("ended: {}, lost: {}, store errors: {}", health["ended"], health["lost"], health["storeErrors"]);
        errors += health["storeErrors"].as_u64().unwrap();
    }
    eprintln!("the store was too slow for {lates} streams");
    assert!(lates == 0 || errors > 0, "{lates} streams were served as if the store were gone");

    let done = Instant::now();
    let left = async || {
        let keys = redis.keys();
        let own = keys.iter().filter(|key| key.starts_with("sse:node:")).count();
        (own == before.len() && keys.len() == own).then_some(()).ok_or(keys)
    };
    while let Err(keys) = left().await {
        assert!(done.elapsed() < GONE_WITHIN, "{} keys are left: {:?}", keys.len(), &keys[..keys.len().min(20)]);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(redis.ask::<u64>(&["ZCARD", "sse:active"]), 0);
    assert_eq!(redis.dbsize(), before.len());
    eprintln!("nothing was left {:?} after the last", done.elapsed());
    eprintln!("{}", sampler.stop());
    for node in [&a, &b, &feeds, &cancels] {
        eventually(async || {
            let (_, health) = node.json("/healthz").await;
            (health["active"] == 0 && health["detached"] == 0 && health["followers"] == 0).then_some(())
        })
        .await;
    }
}

struct Worker {
    nodes: Addresses,
    killed: Arc<AtomicBool>,
    lines: BTreeMap<SocketAddr, Line>,
    tally: BTreeMap<String, usize>,
    /// Whether a node was gone since the stream began, or its store too slow for it.
    broken: bool,
    /// The same of the store alone; and of how many streams.
    late: bool,
    lates: usize,
}

/// The result of a visit to a node.
#[derive(Default)]
struct Visit {
    events: usize,
    cursor: String,
    /// The name of the last event.
    last: String,
    over: bool,
}

impl Worker {
    fn new(nodes: Addresses, killed: Arc<AtomicBool>) -> Self {
        Self { nodes, killed, lines: BTreeMap::new(), tally: BTreeMap::new(), broken: false, late: false, lates: 0 }
    }

    /// Returns how the streams ended, and for how many of them the store was too slow.
    async fn work(mut self, next: &AtomicUsize) -> (BTreeMap<String, usize>, usize) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= STREAMS {
                return (self.tally, self.lates);
            }
            let (kind, ends) = KINDS[number % KINDS.len()];
            // Each kind begins on each of the two nodes, some for a user, most for nobody.
            let flip = number / KINDS.len() % 2 == 1;
            let user = number.is_multiple_of(3).then(|| format!("user-{}", number % 60));
            (self.broken, self.late) = (false, false);
            let before = self.killed.load(Ordering::SeqCst);
            let end = timeout(PATIENCE * 2, self.live(kind, &Stream { number, flip, user })).await;
            let end = end.unwrap_or_else(|_| panic!("stream {number}, {kind:?}, takes too long"));
            self.lates += usize::from(self.late);
            // It may have been followed elsewhere when its node was killed.
            self.broken |= self.killed.load(Ordering::SeqCst) != before;
            assert!(self.broken || ends.is_empty() || ends.contains(&&*end), "stream {number}, {kind:?}: {end}");
            *self.tally.entry(format!("{kind:?}: {end}{}", if self.broken { ", broken" } else { "" })).or_default() +=
                1;
        }
    }

    /// Runs a stream's scenario. Returns the name of its end, if it arrived.
    async fn live(&mut self, kind: Kind, stream: &Stream) -> String {
        let (here, there) = if stream.flip { (Role::Second, Role::First) } else { (Role::First, Role::Second) };
        match kind {
            Kind::Read(query) => self.until_the_end(&[here], &stream.path(query), usize::MAX, stream).await,
            Kind::Unnamed(query) => {
                self.until_the_end(&[here], &format!("/api/stream?{query}"), usize::MAX, stream).await
            }
            Kind::Roam(query) => self.until_the_end(&[here, there], &stream.path(query), 4, stream).await,
            Kind::Feed(query) => {
                self.leave(Role::Feeds, &stream.path(query), stream).await;
                // Without a cursor the stream begins anew if it was interrupted by then, and is followed if not.
                self.until_the_end(&[Role::Feeds], &stream.path(query), usize::MAX, stream).await
            }
            Kind::Leave(query) => self.leave(here, &stream.path(query), stream).await,
            Kind::LeaveFeed(query) => self.leave(Role::Feeds, &stream.path(query), stream).await,
            Kind::Cancel(query) => self.leave(Role::Cancels, &stream.path(query), stream).await,
            Kind::Stop(query) => {
                self.leave(here, &stream.path(query), stream).await;
                let request = stream.request("DELETE", &format!("/api/stream/{}", stream.id()), "");
                match self.ask(there, request).await {
                    Some(StatusCode::ACCEPTED) => {
                        self.until_the_end(&[there, here], &stream.path(query), usize::MAX, stream).await
                    }
                    // The stream never began, since its node was gone, or no node was there to stop it.
                    status => {
                        assert!(self.broken, "{status:?}");
                        "unstopped".to_owned()
                    }
                }
            }
            Kind::Publish => {
                let path = format!("/api/stream/{}/events", stream.id());
                let posts = [r#"{"type":"token","data":1}"#, r#"{"type":"completed","terminal":true}"#];
                let mut accepted = true;
                for (role, post) in [here, there].into_iter().zip(posts) {
                    accepted &= self.ask(role, stream.request("POST", &path, post)).await == Some(StatusCode::ACCEPTED);
                }
                if accepted { "completed".to_owned() } else { "unpublished".to_owned() }
            }
            Kind::LeavePublished => {
                let path = format!("/api/stream/{}/events", stream.id());
                self.ask(here, stream.request("POST", &path, r#"{"type":"token"}"#)).await;
                String::new()
            }
            Kind::Refused => {
                let status = self.ask(here, stream.request("GET", &stream.path("n=-1"), "")).await;
                assert!(matches!(status, None | Some(StatusCode::BAD_REQUEST)), "{status:?}");
                String::new()
            }
        }
    }

    /// Reconnects to each node in turn, for a number of events at a time, until the end.
    async fn until_the_end(&mut self, roles: &[Role], path: &str, events: usize, stream: &Stream) -> String {
        let mut cursor = String::new();
        let mut visits = 0;
        loop {
            // If one node is gone, the other is there.
            let role = if self.broken { Role::Second } else { roles[visits % roles.len()] };
            let role = if matches!(roles[0], Role::Feeds) { Role::Feeds } else { role };
            visits += 1;
            let Some(visit) = self.visit(role, path, &cursor, events, stream).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            if ["completed", "failed", "cancelled", "orphaned", "expired"].contains(&&*visit.last) {
                return visit.last;
            }
            if !visit.cursor.is_empty() {
                cursor = visit.cursor;
            }
            if visit.over && visit.events == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn leave(&mut self, role: Role, path: &str, stream: &Stream) -> String {
        self.visit(role, path, "", 1, stream).await;
        String::new()
    }

    /// Notes that the store exceeded its time limit, and that the client got the response for that case.
    fn store_was_late(&mut self) {
        (self.broken, self.late) = (true, true);
    }

    fn line(&mut self, role: Role) -> &mut Line {
        let address = self.nodes.lock().unwrap()[role as usize];
        self.lines.entry(address).or_insert_with(|| Line::to(address))
    }

    async fn ask(&mut self, role: Role, request: Request<Full<Bytes>>) -> Option<StatusCode> {
        let status = self.line(role).status(request).await;
        self.broken |= status.is_none();
        if status == Some(StatusCode::SERVICE_UNAVAILABLE) {
            self.store_was_late();
        }
        status
    }

    /// `None`: the node is gone.
    async fn visit(&mut self, role: Role, path: &str, cursor: &str, events: usize, stream: &Stream) -> Option<Visit> {
        let mut request = stream.request("GET", path, "");
        if !cursor.is_empty() {
            request.headers_mut().insert("last-event-id", cursor.parse().unwrap());
        }
        let response = self.line(role).ask(request).await;
        let Some(response) = response else {
            self.broken = true;
            return None;
        };
        assert_eq!(response.status(), StatusCode::OK, "{path}, after {cursor:?}");
        if response.headers().contains_key("x-stream-recorded") {
            // No client knows of this run, so it ends by itself.
            self.store_was_late();
            return Some(Visit { over: true, ..Visit::default() });
        }
        let (mut body, mut parser, mut visit) = (response.into_body(), Parser::new(1 << 20), Visit::default());
        loop {
            while let Some(parsed) = parser.pop() {
                let Parsed::Message(message) = parsed else { continue };
                if message.name == "gap" {
                    self.store_was_late();
                }
                (visit.cursor, visit.last) = (message.last_event_id, message.name);
                visit.events += usize::from(visit.last != "connected");
                if visit.events == events {
                    return Some(visit);
                }
            }
            match timeout(PATIENCE, body.frame()).await.unwrap_or_else(|_| panic!("nothing comes: {path}")) {
                None => {
                    visit.over = true;
                    return Some(visit);
                }
                Some(Err(_)) => {
                    self.broken = true;
                    return Some(visit);
                }
                Some(Ok(frame)) => drop(frame.into_data().map(|data| parser.push(&data).unwrap())),
            }
        }
    }
}

struct Stream {
    number: usize,
    flip: bool,
    user: Option<String>,
}

impl Stream {
    fn id(&self) -> String {
        format!("soak-{}", self.number)
    }

    fn path(&self, query: &str) -> String {
        format!("/api/stream/{}?{query}", self.id())
    }

    fn request(&self, method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "test");
        if let Some(user) = &self.user {
            request = request.header("x-user-id", user);
        }
        request.body(Full::from(body)).unwrap()
    }
}

/// Reads all keys repeatedly, on a thread of its own, and checks that each has a TTL.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sampled>,
}

#[derive(Default)]
struct Sampled {
    passes: usize,
    looks: usize,
    most: usize,
    kinds: BTreeSet<String>,
    immortal: BTreeSet<String>,
}

impl Sampler {
    fn start(redis: &RedisServer) -> Self {
        let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut sampled = Sampled::default();
                while !stop.load(Ordering::Relaxed) {
                    sampled.pass(&mut connection);
                    // Leave the server time for other clients.
                    thread::sleep(Duration::from_millis(20));
                }
                sampled
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let Sampled { passes, looks, most, kinds, immortal } = self.thread.join().expect("the sampler ran");
        assert!(immortal.is_empty(), "{} keys had no TTL: {immortal:?}", immortal.len());
        assert!(passes > 10 && looks > STREAMS, "it looked {passes} times, at {looks} keys");
        format!("{looks} keys were looked at in {passes} passes, {most} at most in one, of the kinds {kinds:?}")
    }
}

impl Sampled {
    fn pass(&mut self, connection: &mut redis::Connection) {
        let (mut cursor, mut seen) = (0_u64, 0);
        loop {
            let page = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(500).query(connection);
            let (next, keys): (u64, Vec<String>) = page.expect("the server answers");
            let mut asked = redis::pipe();
            for key in &keys {
                asked.cmd("PTTL").arg(key);
            }
            let left: Vec<i64> =
                if keys.is_empty() { Vec::new() } else { asked.query(connection).expect("it answers") };
            for (key, left) in keys.iter().zip(left) {
                // -2: the key expired in between.
                if left == -1 {
                    self.immortal.insert(key.clone());
                }
                let kind = key.split('{').next().unwrap_or(key).rsplit_once(':').map_or(&**key, |(kind, _)| kind);
                if !self.kinds.contains(kind) {
                    self.kinds.insert(kind.to_owned());
                }
            }
            seen += keys.len();
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        self.passes += 1;
        self.looks += seen;
        self.most = self.most.max(seen);
    }
}
