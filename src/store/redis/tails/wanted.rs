//! What those who listen and tell have to do next.

use std::{collections::HashSet, sync::Mutex};

use tokio::sync::Notify;

use crate::runtime::sync::lock;

#[derive(Default)]
pub(super) struct Wanted {
    /// Channels that are to be listened to from now on, or no longer.
    pub(super) channels: Mutex<Vec<String>>,
    pub(super) wake: Notify,
    pub(super) announcements: Announcements,
    /// Nodes, and streams of theirs that nobody here follows any more.
    pub(super) farewells: Mutex<Vec<(String, String)>>,
}

/// What is to be told at once.
#[derive(Default)]
pub(super) struct Announcements {
    /// Streams of this process that others have just begun to follow: what was appended before that was not published.
    pub(super) followed: Mutex<HashSet<String>>,
    /// Streams that are followed here, and whose producing nodes may not know.
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
