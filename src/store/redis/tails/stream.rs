//! A stream that is followed here: its tail, and the last state that this process has seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{pace::ASK_EVERY, wanted::Wanted};
use crate::{model::id::EventId, runtime::sync::lock, store::TailCell};

/// A stream that is followed here.
pub(super) struct Stream {
    pub(super) cell: Arc<TailCell>,
    listening: Arc<Listening>,
    seen: Mutex<Seen>,
}

/// The subscription to the stream's channel. It begins with the first wait.
struct Listening {
    channel: String,
    begun: AtomicBool,
    wanted: Arc<Wanted>,
}

impl Listening {
    fn begin(&self) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            lock(&self.wanted.channels).push(self.channel.clone());
            self.wanted.wake.notify_one();
        }
    }
}

/// The last state of a stream that this process has seen.
#[derive(Default)]
struct Seen {
    /// The newest event that followers were woken for.
    top: Option<EventId>,
    /// The state and epoch that the net found last.
    standing: Option<(String, u64)>,
    /// The newest run that a message or the net named.
    run: u64,
    /// The node to which it was last announced that the stream is followed here, and when.
    announced_to: Option<(String, Instant)>,
}

impl Stream {
    pub(super) fn new(channel: String, wanted: &Arc<Wanted>) -> Self {
        let listening = Arc::new(Listening { channel, begun: AtomicBool::new(false), wanted: Arc::clone(wanted) });
        let awaited = Arc::clone(&listening);
        let cell = Arc::new(TailCell::on_wait(move || awaited.begin()));
        Self { cell, listening, seen: Mutex::default() }
    }

    /// Subscribes to the stream's channel before a follower waits. The subscription lasts as long as there is a tail of
    /// the stream.
    pub(super) fn listen(&self) {
        self.listening.begin();
    }

    pub(super) fn is_listened_to(&self) -> bool {
        self.listening.begun.load(Ordering::Relaxed)
    }

    /// Whether there is a tail of the stream.
    pub(super) fn is_used(&self) -> bool {
        Arc::strong_count(&self.cell) > 1
    }

    /// Whether the stream was announced to its producing node within this time.
    pub(super) fn was_announced_within(&self, time: Duration) -> bool {
        lock(&self.seen).announced_to.as_ref().is_some_and(|(_, at)| at.elapsed() < time)
    }

    /// Whether it is time to announce again that the stream is followed here.
    pub(super) fn is_announcement_due(&self) -> bool {
        lock(&self.seen).announced_to.as_ref().is_some_and(|(_, at)| at.elapsed() >= ASK_EVERY)
    }

    /// Whether it is time to announce to this producing node that the stream is followed here. If so, the announcement
    /// counts as made.
    pub(super) fn begin_announcement(&self, node: &str) -> bool {
        let announced = &mut lock(&self.seen).announced_to;
        let due = announced.as_ref().is_none_or(|(announced, at)| announced != node || at.elapsed() >= ASK_EVERY);
        if due {
            *announced = Some((node.to_owned(), Instant::now()));
        }
        due
    }

    /// Records the node to which the announcement was made. `None` means that no node produces the stream.
    pub(super) fn set_announced_to(&self, node: Option<String>) {
        lock(&self.seen).announced_to = node.map(|node| (node, Instant::now()));
    }

    /// Returns the node to which the stream was last announced.
    pub(super) fn announced_to(&self) -> Option<String> {
        lock(&self.seen).announced_to.as_ref().map(|(node, _)| node.clone())
    }

    /// Removes and returns the node to which the stream was last announced.
    pub(super) fn take_announced_to(&self) -> Option<String> {
        lock(&self.seen).announced_to.take().map(|(node, _)| node)
    }

    /// The newest event that followers were woken for.
    pub(super) fn top(&self) -> Option<EventId> {
        lock(&self.seen).top
    }

    /// The newest run that a message or the net named.
    pub(super) fn run(&self) -> u64 {
        lock(&self.seen).run
    }

    /// Notes the newest event that a message names. Returns whether it belongs to a new run, which another node may produce.
    pub(super) fn note_message(&self, id: EventId) -> bool {
        let mut seen = lock(&self.seen);
        seen.top = seen.top.max(Some(id));
        let is_new = id.epoch > seen.run;
        seen.run = seen.run.max(id.epoch);
        is_new
    }

    /// Records what the net found. Returns whether that is a change that no message has reported.
    pub(super) fn note_polled(&self, state: String, epoch: u64, top: Option<EventId>) -> bool {
        let mut seen = lock(&self.seen);
        let standing = (state, epoch);
        let news = top.is_some() || seen.standing.as_ref().is_some_and(|before| *before != standing);
        if standing.0.is_empty() {
            seen.top = None;
        }
        if top.is_some() {
            seen.top = top;
        }
        seen.run = seen.run.max(epoch);
        seen.standing = Some(standing);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_is_told_of_once() {
        let stream = Stream::new("c".to_owned(), &Arc::default());
        assert!(stream.note_message(EventId::new(5, 0)));
        assert!(!stream.note_message(EventId::new(5, 3)) && !stream.note_message(EventId::new(4, 9)));
        assert_eq!((stream.run(), stream.top()), (5, Some(EventId::new(5, 3))));
        stream.note_polled("active".to_owned(), 7, None);
        assert!(!stream.note_message(EventId::new(7, 1)), "the net has seen it");
        assert!(stream.note_message(EventId::new(8, 1)), "also where the message about its beginning was lost");
    }

    #[test]
    fn the_net_does_not_find_again_what_a_message_told() {
        let stream = Stream::new("c".to_owned(), &Arc::default());
        assert!(stream.note_polled("active".to_owned(), 1, Some(EventId::new(1, 1))));
        stream.note_message(EventId::new(1, 2));
        assert_eq!(stream.top(), Some(EventId::new(1, 2)));
        assert!(!stream.note_polled("active".to_owned(), 1, None));
        assert!(stream.note_polled("interrupted".to_owned(), 1, None), "a state that was not told");
        assert!(stream.note_polled(String::new(), 0, None) && stream.top().is_none(), "it is gone");
    }
}
