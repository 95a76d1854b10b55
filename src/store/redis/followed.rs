//! Which streams of this process other processes follow, as these have said.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::sync::lock;

/// For how long a process counts as a follower after it said so. It says so again well within that.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// The streams of this process that others follow.
#[derive(Default)]
pub(super) struct Followed {
    streams: Mutex<HashMap<String, Vec<Follower>>>,
    /// How many streams: looked at for each batch.
    count: AtomicUsize,
}

/// A process in which somebody follows a stream.
struct Follower {
    process: String,
    /// The number of its newest word: messages may overtake each other.
    number: u64,
    until: Instant,
}

/// A process's message about a stream that it follows, or has left.
pub(super) struct Word<'a> {
    pub(super) name: &'a str,
    process: &'a str,
    number: u64,
}

impl<'a> Word<'a> {
    /// Reads `<stream> <process> <number>`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let (name, process) = (words.next()?, words.next()?);
        Some(Self { name, process, number: words.next()?.parse().ok()? })
    }
}

impl Followed {
    /// Whether another process follows the stream, as far as is known.
    pub(super) fn is(&self, name: &str) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && lock(&self.streams).get(name).is_some_and(|followers| {
                let now = Instant::now();
                followers.iter().any(|follower| follower.until > now)
            })
    }

    /// A process follows a stream. Returns whether nobody did before.
    pub(super) fn begins(&self, word: &Word<'_>) -> bool {
        let now = Instant::now();
        let mut streams = lock(&self.streams);
        let followers = streams.entry(word.name.to_owned()).or_default();
        followers.retain(|follower| follower.until > now);
        let news = followers.is_empty();
        let until = now + ASKED_FOR;
        match followers.iter_mut().find(|follower| follower.process == word.process) {
            Some(follower) => {
                follower.number = follower.number.max(word.number);
                follower.until = until;
            }
            None => followers.push(Follower { process: word.process.to_owned(), number: word.number, until }),
        }
        self.count.store(streams.len(), Ordering::Relaxed);
        news
    }

    /// Removes a process from a stream's followers, unless it has announced itself since.
    pub(super) fn ends(&self, word: &Word<'_>) {
        let mut streams = lock(&self.streams);
        let Some(followers) = streams.get_mut(word.name) else { return };
        followers.retain(|follower| follower.process != word.process || follower.number > word.number);
        if followers.is_empty() {
            streams.remove(word.name);
        }
        self.count.store(streams.len(), Ordering::Relaxed);
    }

    /// Removes the processes that have said nothing for too long.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        let mut streams = lock(&self.streams);
        streams.retain(|_, followers| {
            followers.retain(|follower| follower.until > now);
            !followers.is_empty()
        });
        self.count.store(streams.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word<'_> {
        Word::read(text).expect("readable")
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_followed_until_the_last_process_has_left() {
        let followed = Followed::default();
        assert!(!followed.is("a"));
        assert!(followed.begins(&word("a one 1")) && !followed.begins(&word("a two 1")));
        followed.ends(&word("a one 2"));
        assert!(followed.is("a") && !followed.is("b"));
        followed.ends(&word("a two 2"));
        assert!(!followed.is("a"));
        assert!(followed.begins(&word("a one 3")), "it is news again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_that_was_overtaken_counts_no_more() {
        let followed = Followed::default();
        followed.begins(&word("a one 7"));
        followed.ends(&word("a one 6"));
        assert!(followed.is("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_says_nothing_more_is_forgotten() {
        let followed = Followed::default();
        followed.begins(&word("a one 1"));
        tokio::time::advance(ASKED_FOR / 2).await;
        followed.begins(&word("a one 2"));
        tokio::time::advance(ASKED_FOR - Duration::from_millis(1)).await;
        assert!(followed.is("a"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!followed.is("a"));
        followed.tidy();
        assert!(lock(&followed.streams).is_empty());
        for bad in ["", "a", "a one", "a one x", "a one -1"] {
            assert!(Word::read(bad).is_none(), "{bad:?}");
        }
    }
}
