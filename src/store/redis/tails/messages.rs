//! The messages between processes: receiving them, and their texts.

use std::sync::atomic::Ordering;

use redis::{PushInfo, PushKind};

use super::super::{followed::Message, keys, request::Request, script, value};
use super::table::Tails;
use crate::{
    model::id::{EventId, NodeId},
    runtime::sync::lock,
};

impl Tails {
    /// Posts to a node of this process that others have changed its stream.
    pub(in super::super) fn post(&self, node: &str, name: &str) {
        let sender = lock(&self.nodes).get(&NodeId::new(node)).cloned();
        if let (Some(sender), Some(key)) = (sender, keys::key_of(name)) {
            sender.post(key);
        }
    }

    /// Posts to a node of this process that its stream was deleted. `text` has the newest run and the stream's name.
    fn post_deletion(&self, node: &str, text: &str) {
        let Some((epoch, name)) = text.split_once(' ') else { return };
        let sender = lock(&self.nodes).get(&NodeId::new(node)).cloned();
        if let (Some(sender), Ok(epoch), Some(key)) = (sender, epoch.parse(), keys::key_of(name)) {
            sender.deleted(key, epoch);
        }
    }

    /// Returns the text of a message of this process about a stream. `what` is `tail` if the stream is followed here,
    /// and `left` if it no longer is.
    pub(super) fn message_text(&self, what: &str, name: &str) -> String {
        format!("{what} {name} {} {}", self.process, self.messages.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the request that announces to a stream's producing node that the stream is followed here.
    pub(super) fn announce_request(&self, name: &str) -> Request {
        let own: Vec<_> = lock(&self.nodes).keys().map(|node| node.as_str().to_owned()).collect();
        Request::script(self.keys.slot(name), &script::ANNOUNCE, &[&self.keys.stream(name)])
            .arg(self.keys.node_channel(""))
            .arg(self.message_text("tail", name))
            .arg(own)
    }

    /// Takes a message from the listening connection.
    pub(super) fn receive(&self, push: PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let mut data = push.data.into_iter();
        let (Some(channel), Some(text)) = (data.next().and_then(value::text), data.next().and_then(value::text)) else {
            return;
        };
        if let Some(name) = self.keys.tail_of(&channel) {
            self.receive_for_stream(name, &text);
        } else if let Some(node) = self.keys.node_of(&channel) {
            self.receive_for_node(node, &text);
        }
    }

    /// Takes a message about a stream that is followed here: the id of its newest event, or a word for another change.
    fn receive_for_stream(&self, name: &str, text: &str) {
        self.wake(name);
        let Some(id) = EventId::from_pair(text) else { return };
        let Some(stream) = lock(&self.streams).get(name).cloned() else { return };
        if stream.note_message(id) && stream.is_used() {
            // Another node may produce this run. It publishes nothing until it knows of the follower.
            self.wanted.announcements.add_followed_here(name);
        }
    }

    /// Takes a message to one of the nodes of this process.
    fn receive_for_node(&self, node: &str, text: &str) {
        let Some((what, rest)) = text.split_once(' ') else { return };
        match (what, Message::read(rest)) {
            ("look", _) => self.post(node, rest),
            ("deleted", _) => self.post_deletion(node, rest),
            ("tail", Some(message)) if self.followed.add(&message) => {
                self.wanted.announcements.add_followed_elsewhere(message.name);
            }
            ("left", Some(message)) => self.followed.remove(&message),
            _ => {}
        }
    }
}
