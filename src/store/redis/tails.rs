//! Who is woken by what: followers by their streams' changes, nodes by what others do to their streams.
//!
//! One connection of its own listens for the whole process, to a channel for each stream that somebody waits for and one
//! for each node. A message says no more than: look. Messages may be lost, so a net is drawn through what is waited for
//! every second. A node publishes the events of its streams only while some other node has asked for that.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection, cmd};
use tokio::{sync::Notify, time::Instant};

use super::{
    Shared,
    error::RedisStoreError,
    fleet::Request,
    followed::{Followed, Word},
    keys::{self, Keys},
    link::Watch,
    script, stored, value,
};
use crate::{
    id::{NodeId, StreamKey},
    protocol::backoff::Backoff,
    store::{Notices, NoticesSender, Tail, TailCell, notify::Woken},
    sync::lock,
};

/// How often the net is drawn; a lost message is made up for within twice this.
const NET: Duration = Duration::from_secs(1);
/// How often the producing node is told that a stream is followed here: see [`ASKED_FOR`].
const ASK_EVERY: Duration = Duration::from_secs(3);
/// How long the listening connection may take for an answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How seldom the net is drawn through streams that are produced here: once in so many times.
const SELDOM: u64 = 8;
/// A listening connection that lasted for so long was worth making.
const PROVEN: Duration = Duration::from_secs(5);
/// Channels in one request.
const CHANNELS: usize = 1000;
/// Streams in one request of the net.
const PAGE: usize = 200;

pub(super) struct Tails {
    keys: Keys,
    streams: Mutex<HashMap<String, Arc<Stream>>>,
    nodes: Mutex<HashMap<NodeId, NoticesSender>>,
    /// This process's streams that others follow.
    followed: Followed,
    /// This process to others, and how often it has said something to them.
    process: String,
    said: AtomicU64,
    /// What the driver is to do next.
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    channels: Mutex<Vec<String>>,
    announcements: Mutex<Vec<String>>,
    /// Nodes, and streams of theirs that nobody here follows any more.
    farewells: Mutex<Vec<(String, String)>>,
    lost: AtomicBool,
    wake: Notify,
}

/// A stream that is waited for.
struct Stream {
    cell: Arc<TailCell>,
    /// Somebody waited, so the channel is listened to, or will be.
    wanted: Arc<AtomicBool>,
    seen: Mutex<Seen>,
}

/// What the net saw last, and which node was last told that the stream is followed here, and when.
#[derive(Default)]
struct Seen {
    top: Option<String>,
    standing: Option<(String, String)>,
    asked: Option<(String, Instant)>,
    /// Whether it is produced in this process.
    local: bool,
}

impl Tails {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            streams: Mutex::default(),
            nodes: Mutex::default(),
            followed: Followed::default(),
            process: format!("{:016x}", crate::random::u128() as u64),
            said: AtomicU64::new(0),
            wanted: Arc::default(),
        }
    }

    pub(super) fn tail(&self, key: &StreamKey) -> Tail {
        let name = keys::name_of(key);
        let mut streams = lock(&self.streams);
        let stream = streams.entry(name).or_insert_with_key(|name| Arc::new(self.stream(name)));
        stream.cell.tail()
    }

    fn stream(&self, name: &str) -> Stream {
        let (flag, wanted) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.wanted));
        let (channel, asked) = (self.keys.tail_channel(name), Arc::clone(&flag));
        let cell = TailCell::on_wait(move || {
            if !asked.swap(true, Ordering::Relaxed) {
                lock(&wanted.channels).push(channel.clone());
                wanted.wake.notify_one();
            }
        });
        Stream { cell: Arc::new(cell), wanted: flag, seen: Mutex::default() }
    }

    /// The stream has changed: wakes who waits for it in this process.
    pub(super) fn wake(&self, name: &str) {
        self.wake_each(std::iter::once(name));
    }

    /// The same for many, under one lock.
    pub(super) fn wake_each<'a>(&self, names: impl Iterator<Item = &'a str>) {
        // Before the lock, and so dropped after it: a waker may ask for a tail.
        let mut woken = Woken::default();
        let streams = lock(&self.streams);
        if streams.is_empty() {
            return;
        }
        for stream in names.filter_map(|name| streams.get(name)) {
            woken.add(&stream.cell);
        }
    }

    fn wake_all(&self) {
        let mut woken = Woken::default();
        for stream in lock(&self.streams).values() {
            woken.add(&stream.cell);
        }
    }

    pub(super) fn notices(&self, node: &NodeId) -> Notices {
        let (sender, notices) = Notices::channel();
        let mut nodes = lock(&self.nodes);
        nodes.retain(|_, sender| !sender.is_closed());
        nodes.insert(node.clone(), sender);
        lock(&self.wanted.channels).push(self.keys.node_channel(node.as_str()));
        self.wanted.wake.notify_one();
        notices
    }

    /// Somebody else changed a node's stream.
    pub(super) fn post(&self, node: &str, name: &str) {
        let sender = lock(&self.nodes).get(&NodeId::new(node)).cloned();
        if let (Some(sender), Some(key)) = (sender, keys::key_of(name)) {
            sender.post(key);
        }
    }

    /// Whether another process follows a stream of this one, as far as is known.
    pub(super) fn is_followed(&self, name: &str) -> bool {
        self.followed.is(name)
    }

    /// What this process says of a stream: `tail`, it is followed here, or `left`, no more.
    fn word(&self, what: &str, name: &str) -> String {
        format!("{what} {name} {} {}", self.process, self.said.fetch_add(1, Ordering::Relaxed))
    }

    /// The request that tells a stream's producing node that it is followed here.
    fn announcing(&self, name: &str) -> Request {
        let own: Vec<_> = lock(&self.nodes).keys().map(|node| node.as_str().to_owned()).collect();
        Request::script(self.keys.slot(name), &script::ANNOUNCE, &[&self.keys.stream(name)])
            .arg(self.keys.node_channel(""))
            .arg(self.word("tail", name))
            .arg(own)
    }

    /// A node was told; an empty one is none.
    fn announced(&self, name: &str, node: String) {
        if let Some(stream) = lock(&self.streams).get(name) {
            lock(&stream.seen).asked = Some((node, Instant::now())).filter(|(node, _)| !node.is_empty());
        }
    }

    /// A message came.
    fn heard(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => {
                let mut data = push.data.into_iter();
                let (Some(channel), Some(text)) =
                    (data.next().and_then(value::text), data.next().and_then(value::text))
                else {
                    return;
                };
                if let Some(name) = self.keys.tail_of(&channel) {
                    self.wake(name);
                } else if let Some(node) = self.keys.node_of(&channel) {
                    self.heard_as(node, &text);
                }
            }
            PushKind::Disconnection => {
                self.wanted.lost.store(true, Ordering::Relaxed);
                self.wanted.wake.notify_one();
            }
            _ => {}
        }
    }

    /// A message to one of this process's nodes.
    fn heard_as(&self, node: &str, text: &str) {
        let Some((what, rest)) = text.split_once(' ') else { return };
        match (what, Word::read(rest)) {
            ("look", _) => self.post(node, rest),
            ("tail", Some(word)) if self.followed.begins(&word) => {
                // What was appended before this was heard was not published.
                lock(&self.wanted.announcements).push(word.name.to_owned());
                self.wanted.wake.notify_one();
            }
            ("left", Some(word)) => self.followed.ends(&word),
            _ => {}
        }
    }

    /// Takes out what nobody waits for any more.
    fn tidy(&self) {
        let (mut left, mut farewells) = (Vec::new(), Vec::new());
        lock(&self.streams).retain(|name, stream| {
            let used = stream.is_used();
            if !used && stream.wanted.load(Ordering::Relaxed) {
                left.push(self.keys.tail_channel(name));
            }
            if let Some((node, _)) = lock(&stream.seen).asked.take_if(|_| !used) {
                farewells.push((node, name.clone()));
            }
            used
        });
        self.followed.tidy();
        lock(&self.wanted.farewells).extend(farewells);
        if !left.is_empty() {
            // Whether it is to be listened to or not, whoever serves it looks.
            lock(&self.wanted.channels).extend(left);
            self.wanted.wake.notify_one();
        }
    }

    /// Whether a channel is to be listened to.
    fn wants(&self, channel: &str) -> bool {
        match self.keys.tail_of(channel) {
            Some(name) => lock(&self.streams).get(name).is_some_and(|stream| stream.wanted.load(Ordering::Relaxed)),
            None => true,
        }
    }

    /// Every channel that is to be listened to.
    fn channels(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let wanted = streams.iter().filter(|(_, stream)| stream.wanted.load(Ordering::Relaxed));
        let mut channels: Vec<_> = wanted.map(|(name, _)| self.keys.tail_channel(name)).collect();
        channels.extend(lock(&self.nodes).keys().map(|node| self.keys.node_channel(node.as_str())));
        channels
    }

    /// The streams that are followed here, though nobody waits for them at this moment, and whose producing nodes are to be
    /// told so again.
    fn due_for_telling(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let due = streams.iter().filter(|(_, stream)| {
            let told = lock(&stream.seen).asked.as_ref().is_some_and(|(_, at)| at.elapsed() >= ASK_EVERY);
            told && stream.is_used() && !stream.cell.is_awaited()
        });
        due.map(|(name, _)| name.clone()).collect()
    }

    /// The streams that somebody waits for now, if they are `asked` for.
    fn awaited(&self, asked: impl Fn(&Stream) -> bool) -> Vec<(String, Arc<Stream>)> {
        let streams = lock(&self.streams);
        let awaited = streams.iter().filter(|(_, stream)| stream.cell.is_awaited() && asked(stream));
        awaited.map(|(name, stream)| (name.clone(), Arc::clone(stream))).collect()
    }
}

impl Watch for Tails {
    fn reconnected(&self) {
        let nodes: Vec<_> = lock(&self.nodes).values().cloned().collect();
        nodes.iter().for_each(NoticesSender::reconnected);
    }
}

/// Listens for as long as the store lives.
pub(super) async fn listen(shared: Weak<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut before = false;
    loop {
        let Some(store) = shared.upgrade() else { return };
        let connected = connect(&store).await;
        drop(store);
        match connected {
            Ok(connection) => {
                let again = std::mem::replace(&mut before, true);
                if let Some(store) = shared.upgrade() {
                    // Whatever was said before was not heard.
                    store.tails.wake_all();
                    if again {
                        store.tails.reconnected();
                    }
                }
                let since = Instant::now();
                attend(&shared, connection).await;
                if since.elapsed() >= PROVEN {
                    backoff.succeeded();
                }
            }
            Err(error) => crate::telemetry::log_debug!(error = %error, "changes cannot be listened for"),
        }
        tokio::time::sleep(backoff.failed(crate::random::u128() as u64)).await;
    }
}

/// Draws the net for as long as the store lives, whether or not anything can be listened for.
pub(super) async fn watch(shared: Weak<Shared>) {
    let mut round = 0;
    loop {
        tokio::time::sleep(NET).await;
        let Some(store) = shared.upgrade() else { return };
        round += 1;
        store.tails.tidy();
        // Of what is made here the process hears without Redis; only what others do to it may have been missed.
        let awaited = store.tails.awaited(|stream| round % SELDOM == 0 || !lock(&stream.seen).local);
        draw_net(&store, &awaited).await;
        tell_again(&store).await;
        say_farewell(&store).await;
    }
}

impl Shared {
    /// Tells the node that produces a stream that it is followed here.
    pub(super) async fn announce(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let name = keys::name_of(&key);
        let node = value::text(self.fleet.ask(self.tails.announcing(&name)).await?);
        self.tails.announced(&name, node.unwrap_or_default());
        Ok(())
    }
}

/// Says again what is followed here by those who are busy with what they have read.
async fn tell_again(store: &Arc<Shared>) {
    for page in store.tails.due_for_telling().chunks(PAGE) {
        let told = page.iter().map(|name| store.tails.announcing(name)).collect();
        let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, store.fleet.send(told)).await else { continue };
        for (name, reply) in page.iter().zip(replies) {
            // One that could not be told is told the next time.
            if let Ok(reply) = reply {
                store.tails.announced(name, value::text(reply).unwrap_or_default());
            }
        }
    }
}

/// Tells producing nodes what nobody here follows any more. Where that is lost, they find out by the silence.
async fn say_farewell(store: &Arc<Shared>) {
    let farewells = std::mem::take(&mut *lock(&store.tails.wanted.farewells));
    let message = |(node, name): &(String, String)| {
        let mut publish = cmd("PUBLISH");
        publish.arg(store.tails.keys.node_channel(node)).arg(store.tails.word("left", name));
        Request::new(store.keys.slot(name), publish)
    };
    for page in farewells.chunks(PAGE) {
        store.tell(page.iter().map(message).collect()).await;
    }
}

/// A new connection, which listens to all that is waited for.
async fn connect(store: &Arc<Shared>) -> Result<MultiplexedConnection, RedisStoreError> {
    let link = store.fleet.any()?;
    let tails = Arc::downgrade(&store.tails);
    let hear = move |push| {
        if let Some(tails) = tails.upgrade() {
            tails.heard(push);
        }
    };
    store.tails.wanted.lost.store(false, Ordering::Relaxed);
    let mut connection = link.subscriber(hear).await?;
    // Asked for from here on, or among those that are read next.
    lock(&store.tails.wanted.channels).clear();
    let channels = store.tails.channels();
    subscribe(&mut connection, &channels).await.ok_or_else(|| RedisStoreError::slow(link.address()))?;
    Ok(connection)
}

/// `None`: it did not work, or not in time.
async fn subscribe(connection: &mut MultiplexedConnection, channels: &[String]) -> Option<()> {
    for page in channels.chunks(CHANNELS) {
        tokio::time::timeout(ANSWER, connection.subscribe(page)).await.ok()?.ok()?;
    }
    Some(())
}

/// Uses a listening connection until it is of no more use.
async fn attend(shared: &Weak<Shared>, mut connection: MultiplexedConnection) {
    let mut next = Instant::now();
    let Some(wanted) = shared.upgrade().map(|store| Arc::clone(&store.tails.wanted)) else { return };
    loop {
        let _ = tokio::time::timeout_at(next, wanted.wake.notified()).await;
        let Some(store) = shared.upgrade() else { return };
        if wanted.lost.load(Ordering::Relaxed) || !serve(&store, &mut connection).await {
            return;
        }
        // However often there is something to do.
        if Instant::now() >= next {
            next = Instant::now() + NET;
            if !answers(&mut connection).await {
                return;
            }
        }
    }
}

/// Whether the connection is alive in both directions.
async fn answers(connection: &mut MultiplexedConnection) -> bool {
    let ping = tokio::time::timeout(ANSWER, cmd("PING").query_async::<Value>(connection)).await;
    matches!(ping, Ok(Ok(_)))
}

/// Does what there is to do. `false`: the connection is of no more use.
async fn serve(store: &Arc<Shared>, connection: &mut MultiplexedConnection) -> bool {
    let tails = &store.tails;
    let asked = std::mem::take(&mut *lock(&tails.wanted.channels));
    let (listened, left): (Vec<_>, Vec<_>) = asked.into_iter().partition(|channel| tails.wants(channel));
    if subscribe(connection, &listened).await.is_none() {
        return false;
    }
    if !left.is_empty() && !matches!(tokio::time::timeout(ANSWER, connection.unsubscribe(left)).await, Ok(Ok(()))) {
        return false;
    }
    let names: HashSet<_> = listened.iter().filter_map(|channel| tails.keys.tail_of(channel)).collect();
    // What happened before the subscription counted was not heard.
    tails.wake_each(names.iter().copied());
    announce(store).await;
    if !names.is_empty() {
        let mut new = tails.awaited(|_| true);
        new.retain(|(name, _)| names.contains(&**name));
        draw_net(store, &new).await;
    }
    true
}

/// Publishes for those who have just begun to follow.
async fn announce(store: &Arc<Shared>) {
    let names = std::mem::take(&mut *lock(&store.tails.wanted.announcements));
    let message = |name: &String| {
        let mut publish = cmd("PUBLISH");
        publish.arg(store.keys.tail_channel(name)).arg("followed");
        Request::new(store.keys.slot(name), publish)
    };
    for page in names.chunks(PAGE) {
        store.tell(page.iter().map(message).collect()).await;
    }
}

/// Looks whether what is waited for has changed without a word, and tells the producing nodes that it is.
async fn draw_net(store: &Arc<Shared>, awaited: &[(String, Arc<Stream>)]) {
    for page in awaited.chunks(PAGE) {
        let mut requests = Vec::with_capacity(2 * page.len());
        for (name, stream) in page {
            let slot = store.keys.slot(name);
            let mut standing = cmd("HMGET");
            standing.arg(store.keys.stream(name)).arg(&["state", "epoch", "node"]);
            let mut newest = cmd("XREVRANGE");
            let after = lock(&stream.seen).top.as_ref().map_or("-".to_owned(), |top| format!("({top}"));
            newest.arg(store.keys.log(name)).arg("+").arg(after).arg("COUNT").arg(1);
            requests.push(Request::new(slot, standing));
            requests.push(Request::new(slot, newest));
        }
        let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, store.fleet.send(requests)).await else { continue };
        let mut replies = replies.into_iter();
        let mut asks = Vec::new();
        for (name, stream) in page {
            let (Some(Ok(standing)), Some(newest)) = (replies.next(), replies.next()) else { continue };
            let mut standing = value::array(standing, "HMGET").unwrap_or_default().into_iter().map(value::text);
            let mut part = || standing.next().flatten().unwrap_or_default();
            let (standing, node) = ((part(), part()), part());
            let top = newest.ok().and_then(|newest| stored::entries(newest).ok()).unwrap_or_default();
            let top = top.first().map(|entry| entry.id.to_pair());
            if stream.look(standing, top) {
                stream.cell.notify();
            }
            if stream.must_ask(store, &node) {
                let mut ask = cmd("PUBLISH");
                ask.arg(store.keys.node_channel(&node)).arg(store.tails.word("tail", name));
                asks.push(Request::new(store.keys.slot(name), ask));
            }
        }
        store.tell(asks).await;
    }
}

impl Stream {
    /// Takes what the net saw. Returns whether that is news.
    fn look(&self, standing: (String, String), top: Option<String>) -> bool {
        let mut seen = lock(&self.seen);
        let news = top.is_some() || seen.standing.as_ref().is_some_and(|before| *before != standing);
        if standing.0.is_empty() {
            seen.top = None;
        }
        if top.is_some() {
            seen.top = top;
        }
        seen.standing = Some(standing);
        news
    }

    /// Whether anybody holds a tail of it.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.cell) > 1
    }

    /// Whether it is time to tell the producing node that the stream is followed here.
    fn must_ask(&self, store: &Shared, node: &str) -> bool {
        let local = lock(&store.tails.nodes).contains_key(&NodeId::new(node));
        let mut seen = lock(&self.seen);
        seen.local = local;
        if node.is_empty() || local {
            return false;
        }
        let due = seen.asked.as_ref().is_none_or(|(asked, at)| asked != node || at.elapsed() >= ASK_EVERY);
        if due {
            seen.asked = Some((node.to_owned(), Instant::now()));
        }
        due
    }
}
