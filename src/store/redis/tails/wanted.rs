//! The work that waits for the tasks that listen and announce.

use std::{collections::HashSet, sync::Mutex};

use tokio::sync::Notify;

use crate::runtime::sync::lock;

#[derive(Default)]
pub(super) struct Wanted {
    /// Channels to subscribe to or to leave. The listening task decides which of the two when it gets to a channel.
    pub(super) channels: Mutex<Vec<String>>,
    pub(super) wake: Notify,
    pub(super) announcements: Announcements,
    /// Pairs of a node and a stream that the node produces and that this process no longer follows.
    pub(super) farewells: Mutex<Vec<(String, String)>>,
}

/// The announcements to make at once.
#[derive(Default)]
pub(super) struct Announcements {
    /// Streams of this process that another process has just begun to follow. Earlier events were not published, so the
    /// followers must read once.
    pub(super) followed: Mutex<HashSet<String>>,
    /// Streams that are followed here, whose producing nodes may not know that.
    pub(super) producers: Mutex<HashSet<String>>,
    pub(super) wake: Notify,
}

impl Announcements {
    pub(super) fn add_followed_elsewhere(&self, name: &str) {
        lock(&self.followed).insert(name.to_owned());
        self.wake.notify_one();
    }

    pub(super) fn add_followed_here(&self, name: &str) {
        lock(&self.producers).insert(name.to_owned());
        self.wake.notify_one();
    }
}
