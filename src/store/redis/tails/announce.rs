//! Announcing to other processes which streams are followed here, and waking their followers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use redis::cmd;

use super::super::{error::RedisStoreError, keys, request::Request, shared::Shared, value};
use super::pace::{ANSWER, PAGE};
use crate::{model::id::StreamKey, runtime::sync::lock};

/// Sends the queued announcements for as long as the store lives.
pub(in super::super) async fn announce_all(shared: Weak<Shared>) {
    loop {
        let Some(wanted) = shared.upgrade().map(|store| Arc::clone(&store.tails.wanted)) else { return };
        wanted.announcements.wake.notified().await;
        let Some(store) = shared.upgrade() else { return };
        let followed: Vec<_> = std::mem::take(&mut *lock(&wanted.announcements.followed)).into_iter().collect();
        let producers: Vec<_> = std::mem::take(&mut *lock(&wanted.announcements.producers)).into_iter().collect();
        for page in followed.chunks(PAGE) {
            store.send_best_effort(page.iter().map(|name| store.publishing(name, "followed")).collect()).await;
        }
        store.announce_each(&producers).await;
    }
}

impl Shared {
    /// Announces to the node that produces a stream that the stream is followed here.
    pub(in super::super) async fn announce(&self, key: StreamKey) -> Result<(), RedisStoreError> {
        let name = keys::name_of(&key);
        let node = value::text(self.fleet.ask(self.tails.announce_request(&name)).await?);
        self.tails.note_announced(&name, node.unwrap_or_default());
        Ok(())
    }

    /// Announces many streams to the nodes that produce them. If an announcement fails, the net repeats it.
    pub(super) async fn announce_each(&self, names: &[String]) {
        for page in names.chunks(PAGE) {
            let announcements = page.iter().map(|name| self.tails.announce_request(name)).collect();
            let Ok(Ok(replies)) = tokio::time::timeout(ANSWER, self.fleet.send(announcements)).await else { continue };
            let mut untold = Vec::new();
            for (name, reply) in page.iter().zip(replies) {
                match reply {
                    Ok(reply) => self.tails.note_announced(name, value::text(reply).unwrap_or_default()),
                    Err(_) => untold.push(name),
                }
            }
            self.announce_around(&untold).await;
        }
    }

    /// Announces streams whose own server does not answer. The message goes to the last known producing node through
    /// the other servers, which pass it on. Without the message that node would conclude that nobody follows the
    /// streams.
    async fn announce_around(&self, names: &[&String]) {
        let slots = self.keys.parts().map(|part| self.keys.part_slot(part));
        let others: BTreeMap<u64, u16> = slots.map(|slot| (self.fleet.part(slot), slot)).collect();
        let mut messages = Vec::new();
        for name in names {
            let Some(node) = lock(&self.tails.streams).get(*name).and_then(|stream| stream.announced_to()) else {
                continue;
            };
            let own = self.fleet.part(self.keys.slot(name));
            for (_, slot) in others.iter().filter(|(server, _)| **server != own) {
                let mut publish = cmd("PUBLISH");
                publish.arg(self.keys.node_channel(&node)).arg(self.tails.message_text("tail", name));
                messages.push(Request::new(*slot, publish));
            }
        }
        self.send_best_effort(messages).await;
    }

    /// Returns the request that sends a message to all followers of a stream.
    fn publishing(&self, name: &str, message: &str) -> Request {
        let mut publish = cmd("PUBLISH");
        publish.arg(self.keys.tail_channel(name)).arg(message);
        Request::new(self.keys.slot(name), publish)
    }
}

/// Tells producing nodes which streams this process no longer follows. If such a message is lost, the node concludes it
/// from the missing announcements.
pub(super) async fn send_farewells(store: &Arc<Shared>) {
    let farewells = std::mem::take(&mut *lock(&store.tails.wanted.farewells));
    let message = |(node, name): &(String, String)| {
        let mut publish = cmd("PUBLISH");
        publish.arg(store.tails.keys.node_channel(node)).arg(store.tails.message_text("left", name));
        Request::new(store.keys.slot(name), publish)
    };
    for page in farewells.chunks(PAGE) {
        store.send_best_effort(page.iter().map(message).collect()).await;
    }
}
