//! Wake-ups: followers hear of changes to their streams, nodes of changes that others make to theirs.
//!
//! One connection of its own listens for the whole process, to a channel for each stream that somebody waits for and one
//! for each node. A message says no more than: look. Messages may be lost, so a net is drawn through what is waited for
//! every second. A node publishes the events of its streams only while some other node has asked for that.

mod listen;
mod net;
mod stream;
mod tell;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(super) use listen::listen;
use net::NET;
pub(super) use net::watch;
use redis::{PushInfo, PushKind};
use stream::Stream;
use tell::Telling;
pub(super) use tell::tell;
use tokio::sync::Notify;

use super::{
    fleet::Request,
    followed::{Followed, Word},
    keys::{self, Keys},
    link::Watch,
    script, value,
};
use crate::{
    model::id::{EventId, NodeId, StreamKey},
    runtime::sync::lock,
    store::{Notices, NoticesSender, Tail, notify::Woken},
};

/// How often the producing node is told that a stream is followed here: well within `followed::ASKED_FOR`.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// How long the listening connection may take for an answer.
const ANSWER: Duration = Duration::from_secs(1);
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
    /// What those who listen and tell have to do next.
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    /// Channels that are to be listened to from now on, or no longer.
    channels: Mutex<Vec<String>>,
    wake: Notify,
    telling: Telling,
    /// Nodes, and streams of theirs that nobody here follows any more.
    farewells: Mutex<Vec<(String, String)>>,
}

impl Tails {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            streams: Mutex::default(),
            nodes: Mutex::default(),
            followed: Followed::default(),
            process: format!("{:016x}", crate::runtime::random::u128() as u64),
            said: AtomicU64::new(0),
            wanted: Arc::default(),
        }
    }

    pub(super) fn tail(&self, key: &StreamKey) -> Tail {
        let name = keys::name_of(key);
        let mut streams = lock(&self.streams);
        let stream = streams.entry(name).or_insert_with_key(|name| self.stream(name));
        stream.cell.tail()
    }

    fn stream(&self, name: &str) -> Arc<Stream> {
        Arc::new(Stream::new(self.keys.tail_channel(name), &self.wanted))
    }

    /// Wakes the tasks of this process that wait for a change of the stream.
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

    /// Somebody deleted a node's stream: the newest run and the stream's name.
    fn post_deletion(&self, node: &str, text: &str) {
        let Some((epoch, name)) = text.split_once(' ') else { return };
        let sender = lock(&self.nodes).get(&NodeId::new(node)).cloned();
        if let (Some(sender), Ok(epoch), Some(key)) = (sender, epoch.parse(), keys::key_of(name)) {
            sender.deleted(key, epoch);
        }
    }

    /// Whether another process follows a stream of this one, as far as is known.
    pub(super) fn is_followed(&self, name: &str) -> bool {
        self.followed.is(name)
    }

    /// The streams of this process that others follow, as far as is known.
    pub(super) fn followed(&self) -> Vec<StreamKey> {
        self.followed.all().iter().filter_map(|name| keys::key_of(name)).collect()
    }

    /// This process, as others know it.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// The messages of this process about a stream: `tail`, it is followed here; `left`, it no longer is.
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
        let mut streams = lock(&self.streams);
        if node.is_empty() {
            if let Some(stream) = streams.get(name) {
                stream.told(None);
            }
            return;
        }
        // A follower may announce itself first and take its tail afterwards.
        let stream = streams.entry(name.to_owned()).or_insert_with_key(|name| self.stream(name));
        stream.told(Some(node));
        // The node's messages are for somebody who listens: not only once that somebody has read what is there already.
        stream.listen();
    }

    /// Sees to it that the nodes know which produce these streams, unless they were told lately.
    fn follow_each<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let streams = lock(&self.streams);
        for name in names {
            if streams.get(name).is_some_and(|stream| stream.is_used() && !stream.was_told_within(ASK_EVERY)) {
                self.wanted.telling.follows(name);
            }
        }
    }

    /// A message came.
    fn heard(&self, push: PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let mut data = push.data.into_iter();
        let (Some(channel), Some(text)) = (data.next().and_then(value::text), data.next().and_then(value::text)) else {
            return;
        };
        if let Some(name) = self.keys.tail_of(&channel) {
            self.heard_of(name, &text);
        } else if let Some(node) = self.keys.node_of(&channel) {
            self.heard_as(node, &text);
        }
    }

    /// A message about a stream that is followed here: how far it is, or only that something has changed.
    fn heard_of(&self, name: &str, text: &str) {
        self.wake(name);
        let Some(id) = EventId::from_pair(text) else { return };
        let Some(stream) = lock(&self.streams).get(name).cloned() else { return };
        if stream.heard(id) && stream.is_used() {
            // Its producer may be another one, which publishes nothing until it is told.
            self.wanted.telling.follows(name);
        }
    }

    /// A message to one of this process's nodes.
    fn heard_as(&self, node: &str, text: &str) {
        let Some((what, rest)) = text.split_once(' ') else { return };
        match (what, Word::read(rest)) {
            ("look", _) => self.post(node, rest),
            ("deleted", _) => self.post_deletion(node, rest),
            ("tail", Some(word)) if self.followed.begins(&word) => {
                self.wanted.telling.is_followed(word.name);
            }
            ("left", Some(word)) => self.followed.ends(&word),
            _ => {}
        }
    }

    /// Takes out what nobody waits for any more.
    fn tidy(&self) {
        let (mut left, mut farewells) = (Vec::new(), Vec::new());
        lock(&self.streams).retain(|name, stream| {
            let used = stream.is_used() || stream.was_told_within(NET);
            if !used && stream.is_listened_to() {
                left.push(self.keys.tail_channel(name));
            }
            if !used && let Some(node) = stream.take_told() {
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
            Some(name) => lock(&self.streams).get(name).is_some_and(|stream| stream.is_listened_to()),
            None => true,
        }
    }

    /// Every channel that is to be listened to.
    fn channels(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let wanted = streams.iter().filter(|(_, stream)| stream.is_listened_to());
        let mut channels: Vec<_> = wanted.map(|(name, _)| self.keys.tail_channel(name)).collect();
        channels.extend(lock(&self.nodes).keys().map(|node| self.keys.node_channel(node.as_str())));
        channels
    }

    /// The streams that are followed here, though nobody waits for them at this moment, and whose producing nodes are to be
    /// told so again.
    fn due_for_telling(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let due = streams
            .iter()
            .filter(|(_, stream)| stream.must_tell_again() && stream.is_used() && !stream.cell.is_awaited());
        due.map(|(name, _)| name.clone()).collect()
    }

    /// The streams that somebody waits for now, if they are `asked` for.
    fn awaited(&self, asked: impl Fn(&str, &Stream) -> bool) -> Vec<(String, Arc<Stream>)> {
        let streams = lock(&self.streams);
        let awaited = streams.iter().filter(|(name, stream)| stream.cell.is_awaited() && asked(name, stream));
        awaited.map(|(name, stream)| (name.clone(), Arc::clone(stream))).collect()
    }
}

impl Watch for Tails {
    fn reconnected(&self) {
        let nodes: Vec<_> = lock(&self.nodes).values().cloned().collect();
        nodes.iter().for_each(NoticesSender::reconnected);
        // The listening connection may be one to a server that the store does not use any more.
        self.wanted.wake.notify_one();
    }
}
