//! The streams that are followed here, and the nodes of this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use super::super::{
    followed::Followed,
    keys::{self, Keys},
    link::Watch,
};
use super::{
    pace::{ASK_EVERY, NET},
    stream::Stream,
    wanted::Wanted,
};
use crate::{
    model::id::{NodeId, StreamKey},
    runtime::{random, sync::lock},
    store::{Notices, NoticesSender, Tail, tail::Woken},
};

pub(in super::super) struct Tails {
    pub(super) keys: Keys,
    pub(super) streams: Mutex<HashMap<String, Arc<Stream>>>,
    pub(super) nodes: Mutex<HashMap<NodeId, NoticesSender>>,
    /// The streams of this process that other processes follow.
    pub(super) followed: Followed,
    /// The name of this process in its messages.
    pub(super) process: String,
    pub(super) messages: AtomicU64,
    /// The work that waits for the tasks that listen and announce.
    pub(super) wanted: Arc<Wanted>,
}

impl Tails {
    pub(in super::super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            streams: Mutex::default(),
            nodes: Mutex::default(),
            followed: Followed::default(),
            process: format!("{:016x}", random::u128() as u64),
            messages: AtomicU64::new(0),
            wanted: Arc::default(),
        }
    }

    pub(in super::super) fn tail(&self, key: &StreamKey) -> Tail {
        let name = keys::name_of(key);
        let mut streams = lock(&self.streams);
        let stream = streams.entry(name).or_insert_with_key(|name| self.stream(name));
        stream.cell.tail()
    }

    fn stream(&self, name: &str) -> Arc<Stream> {
        Arc::new(Stream::new(self.keys.tail_channel(name), &self.wanted))
    }

    /// Wakes the tasks of this process that wait for a change of the stream.
    pub(in super::super) fn wake(&self, name: &str) {
        self.wake_each(std::iter::once(name));
    }

    /// Wakes the tasks that wait for any of these streams, under one lock.
    pub(in super::super) fn wake_each<'a>(&self, names: impl Iterator<Item = &'a str>) {
        // Declared before the lock guard, so that the wakers run after the lock is released: a waker may ask for a
        // tail.
        let mut woken = Woken::default();
        let streams = lock(&self.streams);
        if streams.is_empty() {
            return;
        }
        for stream in names.filter_map(|name| streams.get(name)) {
            woken.add(&stream.cell);
        }
    }

    pub(super) fn wake_all(&self) {
        let mut woken = Woken::default();
        for stream in lock(&self.streams).values() {
            woken.add(&stream.cell);
        }
    }

    pub(in super::super) fn notices(&self, node: &NodeId) -> Notices {
        let (sender, notices) = Notices::channel();
        let mut nodes = lock(&self.nodes);
        nodes.retain(|_, sender| !sender.is_closed());
        nodes.insert(node.clone(), sender);
        lock(&self.wanted.channels).push(self.keys.node_channel(node.as_str()));
        self.wanted.wake.notify_one();
        notices
    }

    /// Whether another process follows a stream of this one, as far as is known.
    pub(in super::super) fn is_followed(&self, name: &str) -> bool {
        self.followed.contains(name)
    }

    /// The streams of this process that others follow, as far as is known.
    pub(in super::super) fn followed(&self) -> Vec<StreamKey> {
        self.followed.all().iter().filter_map(|name| keys::key_of(name)).collect()
    }

    /// Returns the name of this process in its messages.
    pub(in super::super) fn process(&self) -> &str {
        &self.process
    }

    /// Records to which node a stream was announced. An empty `node` means that no node produces the stream.
    pub(super) fn note_announced(&self, name: &str, node: String) {
        let mut streams = lock(&self.streams);
        if node.is_empty() {
            if let Some(stream) = streams.get(name) {
                stream.set_announced_to(None);
            }
            return;
        }
        // A follower may announce itself before it takes its tail.
        let stream = streams.entry(name.to_owned()).or_insert_with_key(|name| self.stream(name));
        stream.set_announced_to(Some(node));
        // Listen from now on: the node publishes from now on, and the follower may wait only after it has read the log.
        stream.listen();
    }

    /// Queues announcements to the nodes that produce these streams, except for streams that were announced lately.
    pub(super) fn queue_announcements<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let streams = lock(&self.streams);
        for name in names {
            if streams.get(name).is_some_and(|stream| stream.is_used() && !stream.was_announced_within(ASK_EVERY)) {
                self.wanted.announcements.add_followed_here(name);
            }
        }
    }

    /// Removes the streams that nobody follows any more.
    pub(super) fn tidy(&self) {
        let (mut left, mut farewells) = (Vec::new(), Vec::new());
        lock(&self.streams).retain(|name, stream| {
            let used = stream.is_used() || stream.was_announced_within(NET);
            if !used && stream.is_listened_to() {
                left.push(self.keys.tail_channel(name));
            }
            if !used && let Some(node) = stream.take_announced_to() {
                farewells.push((node, name.clone()));
            }
            used
        });
        self.followed.tidy();
        lock(&self.wanted.farewells).extend(farewells);
        if !left.is_empty() {
            // The listening task checks again if they are wanted.
            lock(&self.wanted.channels).extend(left);
            self.wanted.wake.notify_one();
        }
    }

    /// Whether the listening connection must subscribe to a channel.
    pub(super) fn wants(&self, channel: &str) -> bool {
        match self.keys.tail_of(channel) {
            Some(name) => lock(&self.streams).get(name).is_some_and(|stream| stream.is_listened_to()),
            None => true,
        }
    }

    /// Returns every channel to which the listening connection must subscribe.
    pub(super) fn channels(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let wanted = streams.iter().filter(|(_, stream)| stream.is_listened_to());
        let mut channels: Vec<_> = wanted.map(|(name, _)| self.keys.tail_channel(name)).collect();
        channels.extend(lock(&self.nodes).keys().map(|node| self.keys.node_channel(node.as_str())));
        channels
    }

    /// Returns the streams that are followed here and must be announced again, although no follower waits for them at
    /// this moment.
    pub(super) fn due_for_announcement(&self) -> Vec<String> {
        let streams = lock(&self.streams);
        let due = streams
            .iter()
            .filter(|(_, stream)| stream.is_announcement_due() && stream.is_used() && !stream.cell.is_awaited());
        due.map(|(name, _)| name.clone()).collect()
    }

    /// The streams that somebody waits for now and that pass the filter `asked`.
    pub(super) fn awaited(&self, asked: impl Fn(&str, &Stream) -> bool) -> Vec<(String, Arc<Stream>)> {
        let streams = lock(&self.streams);
        let awaited = streams.iter().filter(|(name, stream)| stream.cell.is_awaited() && asked(name, stream));
        awaited.map(|(name, stream)| (name.clone(), Arc::clone(stream))).collect()
    }
}

impl Watch for Tails {
    fn reconnected(&self) {
        let nodes: Vec<_> = lock(&self.nodes).values().cloned().collect();
        nodes.iter().for_each(NoticesSender::reconnected);
        // The listening connection may lead to a server that the store no longer uses.
        self.wanted.wake.notify_one();
    }
}
