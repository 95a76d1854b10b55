//! Which streams of this process other processes follow.
//!
//! They announce it by messages through Redis. A process that sends no more messages is forgotten, but only after a time in
//! which the listening connection worked without a break: otherwise its messages may have been lost.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::runtime::sync::lock;

/// How long a process counts as a follower after its last message. It repeats the message well within that time.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// The streams of this process that others follow.
#[derive(Default)]
pub(super) struct Followed {
    streams: Mutex<HashMap<String, Vec<Follower>>>,
    /// The number of streams, which is read for each batch.
    count: AtomicUsize,
    /// The time in which messages have arrived without a break. `None`: there is no listening connection.
    listened: Mutex<Option<Listened>>,
    /// How many listening connections there were.
    connections: AtomicU64,
}

/// A time in which every message that was sent has arrived.
#[derive(Clone, Copy)]
struct Listened {
    /// The number of the connection that they arrive on.
    connection: u64,
    since: Instant,
    /// When the server last answered. Later messages may be lost.
    until: Instant,
}

impl Listened {
    /// Whether a process whose last message came at this time has been silent for too long.
    fn is_silent(self, last_seen: Instant) -> bool {
        self.until.saturating_duration_since(last_seen.max(self.since)) >= ASKED_FOR
    }
}

/// A process in which somebody follows a stream.
struct Follower {
    process: String,
    /// The number of its newest message: messages may overtake each other.
    number: u64,
    /// When that message came.
    last_seen: Instant,
}

/// A process's message about a stream that it follows, or has left.
pub(super) struct Message<'a> {
    pub(super) name: &'a str,
    process: &'a str,
    number: u64,
}

impl<'a> Message<'a> {
    /// Reads `<stream> <process> <number>`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let (name, process) = (words.next()?, words.next()?);
        Some(Self { name, process, number: words.next()?.parse().ok()? })
    }
}

impl Followed {
    /// Notes that messages arrive from now on. Returns the number of the connection.
    pub(super) fn connected(&self) -> u64 {
        let (connection, now) = (self.connections.fetch_add(1, Ordering::Relaxed), Instant::now());
        *lock(&self.listened) = Some(Listened { connection, since: now, until: now });
        connection
    }

    /// Notes that the server has answered on that connection, so that all earlier messages have arrived.
    pub(super) fn confirm(&self, connection: u64) {
        if let Some(listened) = lock(&self.listened).as_mut().filter(|listened| listened.connection == connection) {
            listened.until = Instant::now();
        }
    }

    /// Notes that there is no listening connection, so that messages may be lost.
    pub(super) fn disconnected(&self) {
        *lock(&self.listened) = None;
    }

    /// A filter for the processes that have been silent for too long.
    fn silence_filter(&self) -> impl Fn(&Follower) -> bool + use<> {
        let listened = *lock(&self.listened);
        move |follower| listened.is_some_and(|listened| listened.is_silent(follower.last_seen))
    }

    /// Whether another process follows the stream, as far as is known.
    pub(super) fn contains(&self, name: &str) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let is_silent = self.silence_filter();
        lock(&self.streams).get(name).is_some_and(|followers| followers.iter().any(|follower| !is_silent(follower)))
    }

    /// All streams that another process follows, as far as is known.
    pub(super) fn all(&self) -> Vec<String> {
        let is_silent = self.silence_filter();
        let streams = lock(&self.streams);
        let followed = streams.iter().filter(|(_, followers)| followers.iter().any(|follower| !is_silent(follower)));
        followed.map(|(name, _)| name.clone()).collect()
    }

    /// Adds a process to the followers of a stream. Returns whether it is the first.
    pub(super) fn add(&self, message: &Message<'_>) -> bool {
        let (last_seen, is_silent) = (Instant::now(), self.silence_filter());
        let mut streams = lock(&self.streams);
        let followers = streams.entry(message.name.to_owned()).or_default();
        followers.retain(|follower| !is_silent(follower));
        let news = followers.is_empty();
        match followers.iter_mut().find(|follower| follower.process == message.process) {
            Some(follower) => {
                follower.number = follower.number.max(message.number);
                follower.last_seen = last_seen;
            }
            None => followers.push(Follower { process: message.process.to_owned(), number: message.number, last_seen }),
        }
        self.count.store(streams.len(), Ordering::Relaxed);
        news
    }

    /// Removes a process from the followers of a stream, unless a newer message has announced it again.
    pub(super) fn remove(&self, message: &Message<'_>) {
        let mut streams = lock(&self.streams);
        let Some(followers) = streams.get_mut(message.name) else { return };
        followers.retain(|follower| follower.process != message.process || follower.number > message.number);
        if followers.is_empty() {
            streams.remove(message.name);
        }
        self.count.store(streams.len(), Ordering::Relaxed);
    }

    /// Removes the processes that have been silent for too long.
    pub(super) fn tidy(&self) {
        let is_silent = self.silence_filter();
        let mut streams = lock(&self.streams);
        streams.retain(|_, followers| {
            followers.retain(|follower| !is_silent(follower));
            !followers.is_empty()
        });
        self.count.store(streams.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message<'_> {
        Message::read(text).expect("readable")
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_followed_until_the_last_process_has_left() {
        let followed = Followed::default();
        assert!(!followed.contains("a"));
        assert!(followed.add(&message("a one 1")) && !followed.add(&message("a two 1")));
        followed.remove(&message("a one 2"));
        assert!(followed.contains("a") && !followed.contains("b"));
        assert_eq!(followed.all(), ["a"]);
        followed.remove(&message("a two 2"));
        assert!(!followed.contains("a"));
        assert!(followed.add(&message("a one 3")), "it is news again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_that_was_overtaken_counts_no_more() {
        let followed = Followed::default();
        followed.add(&message("a one 7"));
        followed.remove(&message("a one 6"));
        assert!(followed.contains("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_says_nothing_more_is_forgotten() {
        let followed = Followed::default();
        let connection = followed.connected();
        followed.add(&message("a one 1"));
        tokio::time::advance(ASKED_FOR / 2).await;
        followed.add(&message("a one 2"));
        tokio::time::advance(ASKED_FOR - Duration::from_millis(1)).await;
        followed.confirm(connection);
        assert!(followed.contains("a"));
        tokio::time::advance(Duration::from_millis(1)).await;
        followed.confirm(connection);
        assert!(!followed.contains("a"));
        assert_eq!(followed.all(), [""; 0]);
        followed.tidy();
        assert!(lock(&followed.streams).is_empty());
        for bad in ["", "a", "a one", "a one x", "a one -1"] {
            assert!(Message::read(bad).is_none(), "{bad:?}");
        }
    }

    /// Its word may be lost, so its silence counts from when it is listened to again.
    #[tokio::test(start_paused = true)]
    async fn a_process_is_not_forgotten_while_it_cannot_be_heard() {
        let followed = Followed::default();
        let connection = followed.connected();
        followed.add(&message("a one 1"));
        followed.add(&message("b one 2"));
        tokio::time::advance(ASKED_FOR * 3).await;
        assert!(followed.contains("a"), "the server has not answered since");
        followed.disconnected();
        tokio::time::advance(ASKED_FOR * 3).await;
        followed.tidy();
        followed.confirm(connection);
        assert!(followed.contains("a"), "nothing can be listened for");
        let connection = followed.connected();
        tokio::time::advance(ASKED_FOR - Duration::from_millis(1)).await;
        followed.confirm(connection);
        assert!(followed.contains("a"), "it had no whole time to say so again");
        followed.remove(&message("b one 3"));
        assert!(!followed.contains("b"), "one that says so has left at once");
        tokio::time::advance(Duration::from_millis(1)).await;
        followed.confirm(connection);
        assert!(!followed.contains("a"));
        followed.tidy();
        assert!(lock(&followed.streams).is_empty());
    }
}
