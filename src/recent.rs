//! Ends that landed a short while ago: a store that fails over may have lost them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    id::StreamKey,
    store::{Close, Reopen},
    sync::lock,
};

/// How many ends are kept, and how many bytes of terminal events and metadata.
const MAX_ENDS: usize = 10_000;
const MAX_BYTES: usize = 8 << 20;

/// An end that the store has acknowledged, with what registers its stream again.
#[derive(Clone, Debug)]
pub(crate) struct RecentClose {
    pub(crate) close: Close,
    pub(crate) reopen: Reopen,
}

impl RecentClose {
    fn bytes(&self) -> usize {
        let kept = self.reopen.open.metadata.iter().map(|(key, value)| key.len() + value.len());
        self.close.ending.event.as_ref().map_or(0, bytes::Bytes::len) + kept.sum::<usize>()
    }
}

/// The ends of one stale threshold, as far as there is room. An outage does not count: that is where a failover comes from.
#[derive(Debug)]
pub(crate) struct RecentCloses {
    keep: Duration,
    /// Beyond this the store itself keeps no end.
    at_most: Duration,
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    /// By when they landed.
    queue: VecDeque<(Instant, RecentClose)>,
    bytes: usize,
    /// Streams that were deleted, by their newest runs: when that was heard of.
    deleted: HashMap<StreamKey, (Instant, u64)>,
    /// Since when the store has not answered.
    away_since: Option<Instant>,
}

impl RecentCloses {
    pub(crate) fn new(stale: Duration, recovery_window: Duration) -> Self {
        Self { keep: stale.min(recovery_window), at_most: recovery_window, ends: Mutex::default() }
    }

    pub(crate) fn landed(&self, recent: RecentClose) {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        if ends.is_deleted(&recent) {
            return;
        }
        ends.bytes += recent.bytes();
        ends.queue.push_back((now, recent));
        while ends.queue.len() > MAX_ENDS || ends.bytes > MAX_BYTES {
            ends.drop_oldest();
        }
        ends.expire(now, self.at_most);
    }

    /// The store does not answer: from now on no time passes for what it may have lost.
    pub(crate) fn store_is_away(&self) {
        lock(&self.ends).away_since.get_or_insert_with(Instant::now);
    }

    /// The store has answered, and was told what it may have lost: lets go of what is older than a failover can reach back.
    pub(crate) fn expire(&self) {
        let mut ends = lock(&self.ends);
        ends.away_since = None;
        let now = Instant::now();
        ends.expire(now, self.keep);
        ends.forget_deletions(now, self.at_most);
    }

    /// The stream is about to be deleted here: its end is not to come back.
    pub(crate) fn forget(&self, key: &StreamKey) {
        lock(&self.ends).retain(|recent| recent.close.key != *key);
    }

    /// The stream was deleted, by whichever node, and its newest run was this one: no end of it is to come back, also one
    /// that is acknowledged only after this was heard.
    pub(crate) fn deleted(&self, key: StreamKey, epoch: u64) {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        ends.retain(|recent| recent.close.key != key || !is_up_to(recent, epoch));
        if ends.deleted.len() >= MAX_ENDS {
            ends.forget_deletions(now, self.at_most);
        }
        if ends.deleted.len() < MAX_ENDS {
            ends.deleted.insert(key, (now, epoch));
        }
    }

    /// Whether the stream was deleted after this end.
    pub(crate) fn is_deleted(&self, recent: &RecentClose) -> bool {
        lock(&self.ends).is_deleted(recent)
    }

    /// The end's hook was acknowledged: it does not run again, whatever the store has forgotten.
    pub(crate) fn hook_done(&self, key: &StreamKey) {
        for (_, recent) in lock(&self.ends).queue.iter_mut().rev().filter(|(_, recent)| recent.close.key == *key) {
            recent.close.hook = None;
        }
    }

    pub(crate) fn all(&self) -> VecDeque<RecentClose> {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        let until = ends.away_since.unwrap_or(now);
        ends.expire(until, self.keep);
        ends.expire(now, self.at_most);
        ends.queue.iter().map(|(_, recent)| recent.clone()).collect()
    }
}

/// Whether an end is one of this run or of an earlier one.
fn is_up_to(recent: &RecentClose, epoch: u64) -> bool {
    recent.close.epoch.is_none_or(|ended| ended <= epoch)
}

impl Ends {
    fn is_deleted(&self, recent: &RecentClose) -> bool {
        self.deleted.get(&recent.close.key).is_some_and(|(_, epoch)| is_up_to(recent, *epoch))
    }

    fn retain(&mut self, keep: impl Fn(&RecentClose) -> bool) {
        self.queue.retain(|(_, recent)| keep(recent));
        self.bytes = self.queue.iter().map(|(_, recent)| recent.bytes()).sum();
    }

    fn forget_deletions(&mut self, now: Instant, keep: Duration) {
        self.deleted.retain(|_, (heard, _)| now.duration_since(*heard) < keep);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, oldest)) = self.queue.pop_front() {
            self.bytes -= oldest.bytes();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn expire(&mut self, now: Instant, keep: Duration) {
        while self.queue.front().is_some_and(|(landed, _)| now.duration_since(*landed) >= keep) {
            self.drop_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::{
        NodeId, Owner, StreamId,
        store::{Open, Retention},
        stream::{Ending, Origin, StreamState},
    };

    fn recent(id: usize, bytes: usize) -> RecentClose {
        let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new(id.to_string()).expect("valid"));
        let second = Duration::from_secs(1);
        let retention =
            Retention { stale: second, lifetime: second, recovery_window: second, max_events: 1, max_bytes: 1 };
        let open = Open {
            key: key.clone(),
            kind: Cow::Borrowed("job"),
            origin: Origin::Published,
            node: NodeId::random(),
            token: 1,
            create: true,
            reruns: false,
            started: true,
            fingerprint: None,
            limit: None,
            metadata: Vec::new(),
            retention,
        };
        let ending = Ending::with_event(StreamState::Completed, vec![b'x'; bytes].into());
        let close = Close { key, epoch: Some(1), ending, last: Some(1), if_deadline: None, hook: Some(second) };
        RecentClose { close, reopen: Reopen { open, epoch: 1, acknowledged: 1, inner_id: None, inner_retry: None } }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_of_a_deleted_stream_is_not_kept_whenever_it_lands() {
        let recents = RecentCloses::new(Duration::from_secs(30), Duration::from_secs(60));
        let of_run = |epoch| {
            let recent = recent(1, 10);
            RecentClose { close: Close { epoch: Some(epoch), ..recent.close }, ..recent }
        };
        recents.landed(of_run(4));
        recents.landed(recent(2, 10));
        recents.deleted(of_run(4).close.key, 4);
        assert_eq!(recents.all().len(), 1, "only the other stream's");
        recents.landed(of_run(4));
        assert_eq!(recents.all().len(), 1, "its acknowledgement was late");
        assert!(recents.is_deleted(&of_run(3)) && !recents.is_deleted(&of_run(6)));
        recents.landed(of_run(6));
        assert_eq!(recents.all().len(), 2, "a run that began afterwards");
        tokio::time::advance(Duration::from_secs(60)).await;
        recents.expire();
        assert!(lock(&recents.ends).deleted.is_empty(), "it is not remembered for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_are_kept_for_their_time_and_within_their_bounds() {
        let recents = RecentCloses::new(Duration::from_secs(30), Duration::from_secs(60));
        for id in 0..MAX_ENDS + 5 {
            recents.landed(recent(id, 10));
        }
        assert_eq!(recents.all().len(), MAX_ENDS);
        recents.landed(recent(0, MAX_BYTES - 15));
        assert_eq!(recents.all().len(), 2, "the newest are kept");
        recents.landed(recent(1, MAX_BYTES + 1));
        assert_eq!(recents.all().len(), 0, "what has no room is not kept");
        recents.landed(recent(2, 10));
        tokio::time::advance(Duration::from_secs(20)).await;
        recents.landed(recent(3, 10));
        recents.hook_done(&recent(3, 10).close.key);
        assert!(recents.all()[0].close.hook.is_some() && recents.all()[1].close.hook.is_none());
        recents.store_is_away();
        tokio::time::advance(Duration::from_secs(10)).await;
        recents.store_is_away();
        assert_eq!(recents.all().len(), 2, "the store is away");
        recents.expire();
        assert_eq!(recents.all().len(), 1);
        recents.forget(&recent(3, 10).close.key);
        assert_eq!((recents.all().len(), lock(&recents.ends).bytes), (0, 0));
        recents.landed(recent(4, 10));
        recents.store_is_away();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(recents.all().len(), 0, "nobody keeps it any more");
    }
}
