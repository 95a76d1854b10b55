//! The ends that were stored recently, which a store may lose in a failover.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{id::StreamKey, kept::KeptHeaders},
    runtime::sync::lock,
    store::{Close, Reopen},
};

/// The limits on the ends that are kept: their number, and the bytes of their terminal events, metadata, headers and
/// conversation names.
const MAX_ENDS: usize = 10_000;
const MAX_BYTES: usize = 8 << 20;

/// An end that the store has acknowledged, with the request that registers its stream again.
#[derive(Clone, Debug)]
pub(crate) struct RecentClose {
    pub(crate) close: Close,
    pub(crate) reopen: Reopen,
}

impl RecentClose {
    fn bytes(&self) -> usize {
        let open = &self.reopen.open;
        let headers: &[_] = if let KeptHeaders::Kept(headers) = &open.headers { headers } else { &[] };
        let kept = open.metadata.iter().chain(headers).map(|(key, value)| key.len() + value.len());
        let turn = open.turn.as_ref().map_or(0, |turn| turn.conversation.as_str().len());
        self.close.ending.event.as_ref().map_or(0, bytes::Bytes::len) + kept.sum::<usize>() + turn
    }
}

/// The ends that were stored within the last stale threshold, up to a limit.
///
/// The time of an outage does not count, because a failover follows an outage.
#[derive(Debug)]
pub(crate) struct RecentCloses {
    keep: Duration,
    /// The recovery window, after which the store itself drops an end.
    at_most: Duration,
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    /// The ends in the order in which they were stored, with the time of that. Each stream has the end of its newest
    /// run.
    queue: BTreeMap<u64, (Instant, RecentClose)>,
    /// The position in `queue` of each stream's end.
    places: HashMap<StreamKey, u64>,
    /// The number of ends that were stored so far.
    landed: u64,
    bytes: usize,
    /// The deleted streams, each with the time of the notice and the epoch of its newest run.
    deleted: HashMap<StreamKey, (Instant, u64)>,
    /// When the store stopped answering; `None` while it answers.
    away_since: Option<Instant>,
}

impl RecentCloses {
    pub(crate) fn new(stale: Duration, recovery_window: Duration) -> Self {
        Self { keep: stale.min(recovery_window), at_most: recovery_window, ends: Mutex::default() }
    }

    pub(crate) fn landed(&self, recent: RecentClose) {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        if ends.is_deleted(&recent) || ends.has_newer(&recent) {
            return;
        }
        ends.push(now, recent);
        while ends.queue.len() > MAX_ENDS || ends.bytes > MAX_BYTES {
            ends.drop_oldest();
        }
        ends.expire(now, self.at_most);
    }

    /// Notes that the store does not answer. The kept ends do not age until it answers again.
    pub(crate) fn store_is_away(&self) {
        lock(&self.ends).away_since.get_or_insert_with(Instant::now);
    }

    /// Notes that the store answers and has received the ends that it may have lost. Drops the ends that are too old to
    /// be lost in a failover.
    pub(crate) fn expire(&self) {
        let mut ends = lock(&self.ends);
        ends.away_since = None;
        let now = Instant::now();
        ends.expire(now, self.keep);
        ends.forget_deletions(now, self.at_most);
    }

    /// Drops the end of a stream that is about to be deleted on this node, so that the end is not stored again.
    pub(crate) fn forget(&self, key: &StreamKey) {
        lock(&self.ends).take(key);
    }

    /// Notes that a node deleted a stream whose newest run was `epoch`. No end of these runs is stored again, not even
    /// one that the store acknowledges after this notice.
    pub(crate) fn deleted(&self, key: StreamKey, epoch: u64) {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        if ends.of(&key).is_some_and(|recent| is_up_to(recent, epoch)) {
            ends.take(&key);
        }
        if ends.deleted.len() >= MAX_ENDS {
            ends.forget_deletions(now, self.at_most);
        }
        if ends.deleted.len() < MAX_ENDS {
            ends.deleted.insert(key, (now, epoch));
        }
    }

    /// Whether the stream was deleted after this end was stored.
    pub(crate) fn is_deleted(&self, recent: &RecentClose) -> bool {
        lock(&self.ends).is_deleted(recent)
    }

    /// Notes that the hook of a stream was acknowledged. It does not run again, even if the store forgets that.
    pub(crate) fn hook_done(&self, key: &StreamKey) {
        let mut ends = lock(&self.ends);
        let Some(place) = ends.places.get(key).copied() else { return };
        if let Some((_, recent)) = ends.queue.get_mut(&place) {
            recent.close.hook = None;
        }
    }

    pub(crate) fn all(&self) -> VecDeque<RecentClose> {
        let now = Instant::now();
        let mut ends = lock(&self.ends);
        let until = ends.away_since.unwrap_or(now);
        ends.expire(until, self.keep);
        ends.expire(now, self.at_most);
        let aged = |(landed, recent): &(Instant, RecentClose)| {
            let mut recent = recent.clone();
            recent.reopen.since += now - *landed;
            recent
        };
        ends.queue.values().map(aged).collect()
    }
}

/// Whether the end is that of the run `epoch` or of an earlier one.
fn is_up_to(recent: &RecentClose, epoch: u64) -> bool {
    recent.close.epoch.is_none_or(|ended| ended <= epoch)
}

impl Ends {
    fn is_deleted(&self, recent: &RecentClose) -> bool {
        self.deleted.get(&recent.close.key).is_some_and(|(_, epoch)| is_up_to(recent, *epoch))
    }

    /// Returns the end of a stream's newest run.
    fn of(&self, key: &StreamKey) -> Option<&RecentClose> {
        self.queue.get(self.places.get(key)?).map(|(_, recent)| recent)
    }

    /// Whether the end of a later run of the same stream is kept. Ends are stored again concurrently, so an older end
    /// may be acknowledged after a newer one.
    fn has_newer(&self, recent: &RecentClose) -> bool {
        self.of(&recent.close.key).is_some_and(|held| held.close.epoch > recent.close.epoch)
    }

    /// Keeps an end, replacing an earlier one of the same stream.
    fn push(&mut self, now: Instant, recent: RecentClose) {
        self.take(&recent.close.key);
        self.landed += 1;
        self.bytes += recent.bytes();
        self.places.insert(recent.close.key.clone(), self.landed);
        self.queue.insert(self.landed, (now, recent));
    }

    fn take(&mut self, key: &StreamKey) {
        let Some(place) = self.places.remove(key) else { return };
        if let Some((_, taken)) = self.queue.remove(&place) {
            self.bytes -= taken.bytes();
        }
        if self.places.is_empty() {
            self.places = HashMap::new();
        }
    }

    fn forget_deletions(&mut self, now: Instant, keep: Duration) {
        self.deleted.retain(|_, (noted, _)| now.duration_since(*noted) < keep);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, (_, oldest))) = self.queue.first_key_value() {
            let key = oldest.close.key.clone();
            self.take(&key);
        }
    }

    fn expire(&mut self, now: Instant, keep: Duration) {
        let is_old = |(_, (landed, _)): (&u64, &(Instant, RecentClose))| now.duration_since(*landed) >= keep;
        while self.queue.first_key_value().is_some_and(is_old) {
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
        model::stream::{Ending, Origin, StreamState},
        store::{Open, Retention},
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
            voice: crate::Voice::default(),
            turn: None,
            headers: crate::KeptHeaders::None,
            retention,
        };
        let ending = Ending::with_event(StreamState::Completed, vec![b'x'; bytes].into());
        let close = Close { key, epoch: Some(1), ending, last: Some(1), if_deadline: None, hook: Some(second) };
        RecentClose {
            close,
            reopen: Reopen {
                open,
                epoch: 1,
                acknowledged: 1,
                inner_id: None,
                inner_retry: None,
                since: Duration::ZERO,
            },
        }
    }

    #[test]
    fn g8_all_that_an_end_holds_on_to_counts() {
        let plain = recent(1, 10);
        let bytes = plain.bytes();
        let pair = || vec![("four".to_owned(), "12345".to_owned())];
        let mut full = plain;
        full.reopen.open.metadata = pair();
        full.reopen.open.headers = KeptHeaders::Kept(pair());
        let conversation = StreamId::new("chat").expect("valid");
        full.reopen.open.turn = Some(crate::model::turn::Turn { conversation, overlap: crate::Overlap::Replace });
        assert_eq!(full.bytes(), bytes + 9 + 9 + 4);
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

    fn of_run(epoch: u64, event: &'static str) -> RecentClose {
        let mut recent = recent(0, 0);
        recent.close.epoch = Some(epoch);
        recent.close.ending.event = Some(event.into());
        recent
    }

    /// Ends are stored again concurrently, in no particular order.
    #[tokio::test(start_paused = true)]
    async fn g3_of_a_streams_ends_only_that_of_its_newest_run_is_said_again() {
        for epochs in [[1, 2], [2, 1]] {
            let recents = RecentCloses::new(Duration::from_secs(30), Duration::from_secs(60));
            for epoch in epochs {
                recents.landed(of_run(epoch, if epoch == 1 { "first" } else { "second" }));
            }
            let all: Vec<_> = recents.all().into_iter().map(|recent| recent.close.epoch).collect();
            assert_eq!((all, lock(&recents.ends).bytes), (vec![Some(2)], "second".len()), "{epochs:?}");
            recents.hook_done(&recent(0, 0).close.key);
            assert_eq!(recents.all()[0].close.hook, None, "{epochs:?}");
            tokio::time::advance(Duration::from_secs(30)).await;
            assert!(recents.all().is_empty() && lock(&recents.ends).places.is_empty(), "{epochs:?}");
        }
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
