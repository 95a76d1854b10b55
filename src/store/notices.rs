//! Notices to a node: which of its streams others have changed, and that the store was away.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use crate::{model::id::StreamKey, runtime::sync::lock};

/// The notices that a node has not received yet: see [`Notices`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Post {
    /// The node's streams that somebody else changed.
    pub streams: Vec<StreamKey>,
    /// The node's streams that somebody deleted, each with its newest run: an end of that run or of an earlier one must not
    /// be brought back.
    pub deleted: Vec<(StreamKey, u64)>,
    /// The store was away and is back: what it holds may be older than what it acknowledged.
    pub reconnected: bool,
}

/// The receiving half of a node's post: which of its streams somebody else stopped, closed or took over,
/// and whether the store was away.
///
/// Each stream stands in it once, however often it was posted, so it is bounded by the node's streams.
#[derive(Debug)]
pub struct Notices(Arc<Mailbox>);

/// The sending half of [`Notices`].
#[derive(Clone)]
pub struct NoticesSender(Arc<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: HashSet<StreamKey>,
    deleted: HashMap<StreamKey, u64>,
    reconnected: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    fn put(&self, put: impl FnOnce(&mut Waiting)) {
        let waker = {
            let mut waiting = lock(&self.waiting);
            put(&mut waiting);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Notices {
    /// Both halves.
    #[must_use]
    pub fn channel() -> (NoticesSender, Self) {
        let mailbox = Arc::new(Mailbox::default());
        (NoticesSender(Arc::clone(&mailbox)), Self(mailbox))
    }

    /// Ready with what was posted since.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Post> {
        let waker = cx.waker().clone();
        let _before = {
            let mut waiting = lock(&self.0.waiting);
            if !waiting.streams.is_empty() || waiting.reconnected {
                let streams = waiting.streams.drain().collect();
                let deleted = waiting.deleted.drain().collect();
                return Poll::Ready(Post { streams, deleted, reconnected: std::mem::take(&mut waiting.reconnected) });
            }
            waiting.waker.replace(waker)
        };
        Poll::Pending
    }
}

impl NoticesSender {
    /// Posts a stream.
    pub fn post(&self, key: StreamKey) {
        self.0.put(|waiting| {
            waiting.streams.insert(key);
        });
    }

    /// Posts a stream that was deleted, whose newest run was this one.
    pub fn deleted(&self, key: StreamKey, epoch: u64) {
        self.0.put(|waiting| {
            let newest = waiting.deleted.entry(key.clone()).or_default();
            *newest = epoch.max(*newest);
            waiting.streams.insert(key);
        });
    }

    /// The store was away and is back: what it holds may be older than what it acknowledged.
    ///
    /// The node then beats at once, which finds out whether the store is still the one it was.
    pub fn reconnected(&self) {
        self.0.put(|waiting| waiting.reconnected = true);
    }

    /// Whether nobody receives any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl fmt::Debug for NoticesSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoticesSender")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::{assert_pending, assert_ready, task};

    #[test]
    fn post_is_given_once_and_wakes() {
        let (sender, mut notices) = Notices::channel();
        let mut wait = task::spawn(());
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        let key = StreamKey::new(crate::Owner::ANONYMOUS, crate::StreamId::new("a").expect("valid"));
        sender.post(key.clone());
        sender.post(key.clone());
        assert!(wait.is_woken());
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { streams: vec![key.clone()], ..Post::default() });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        sender.deleted(key.clone(), 7);
        sender.deleted(key.clone(), 5);
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { streams: vec![key.clone()], deleted: vec![(key, 7)], reconnected: false });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
        sender.reconnected();
        assert!(wait.is_woken());
        let post = assert_ready!(wait.enter(|cx, _| notices.poll(cx)));
        assert_eq!(post, Post { reconnected: true, ..Post::default() });
        assert_pending!(wait.enter(|cx, _| notices.poll(cx)));
    }
}
