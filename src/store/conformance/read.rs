//! What a reader is given.

use super::bench::{Bench, brief, close, epoch_of, retention, singles, size};
use crate::{
    model::{
        id::{EventId, StreamKey},
        stream::{Record, RecordKind, StreamState},
    },
    store::{Close, Interrupt, Open, Page, ReadFrom, Retention, Store},
};

/// How many entries more than its bound a log may hold, whatever happens.
const MORE: usize = 4;

/// How many events are written together here, and how long one is at most.
const TOGETHER: usize = 5;
const LONGEST: usize = "data: eeeee\nid: e1234567890123-45\n\n".len();

/// Reads page by page until there is no more. Returns all records, in short.
async fn paged<S: Store>(bench: &Bench<S>, key: &StreamKey, max_events: usize, max_bytes: usize) -> Vec<String> {
    let (mut from, mut all) = (ReadFrom::Start, Vec::new());
    loop {
        let page = bench.page(key, from, max_events, max_bytes).await.expect("the stream is held");
        let singles = singles(&page);
        let entries = singles.iter().filter(|(record, _)| !matches!(record.kind, RecordKind::End(_))).count();
        // What is held together is given together.
        let together = 2 * TOGETHER;
        assert!(entries <= max_events.saturating_mul(2).max(together), "more than {max_events} entries");
        let (bytes, together) = (bytes(&page), together * LONGEST);
        assert!(bytes <= max_bytes.saturating_mul(2).max(together), "more than {max_bytes} bytes");
        assert!(!page.more || !page.records.is_empty(), "a page that brings nobody on");
        all.extend(brief(&page));
        let Some(last) = page.records.last().filter(|_| page.more) else { return all };
        from = ReadFrom::After(last.id);
    }
}

fn bytes(page: &Page) -> usize {
    let length = |record: &crate::model::stream::Record| match &record.kind {
        RecordKind::Events(frame) => frame.bytes.len(),
        RecordKind::Run { .. } | RecordKind::End(_) => 0,
    };
    page.records.iter().map(length).sum()
}

/// Pages hold about as many entries and bytes as asked for (the end comes on top), and together all there is.
pub async fn pages_are_bounded_and_complete(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("pages").await;
    bench.write(&key, epoch, 1, &["a", "bb", "ccc", "dddd", "eeeee"]).await;
    for (seq, event) in (6..).zip(["f", "g", "h", "i", "j", "k", "l"]) {
        bench.write(&key, epoch, seq, &[event]).await;
    }
    bench.finish(&key, epoch).await;
    let whole = ["r", "a", "bb", "ccc", "dddd", "eeeee", "f", "g", "h", "i", "j", "k", "l", "e"];
    for max_events in 1..=8 {
        assert_eq!(paged(&bench, &key, max_events, usize::MAX).await, whole, "{max_events} entries");
    }
    for max_bytes in [1, 8, 9, 17, 30, 1000] {
        assert_eq!(paged(&bench, &key, 100, max_bytes).await, whole, "{max_bytes} bytes");
    }
    assert!(!bench.all(&key, ReadFrom::Start).await.more);
}

/// An event that is larger than the page is given all the same.
pub async fn a_page_holds_at_least_one_entry(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("large").await;
    bench.write(&key, epoch, 1, &["a large event"]).await;
    // A hole keeps them apart.
    bench.write(&key, epoch, 3, &["b"]).await;
    let page = bench.page(&key, ReadFrom::After(EventId::new(epoch, 0)), 10, 1).await.expect("the stream is held");
    assert_eq!((brief(&page), page.more), (vec!["a large event".to_owned()], true));
}

/// From the start, from the newest run, or exactly after a cursor.
pub async fn a_reader_starts_where_it_says(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("from").await;
    bench.write(&key, first, 1, &["a", "b"]).await;
    bench.stand_still(&key, first).await;
    let (_, second) = bench.begin("from").await;
    bench.write(&key, second, 1, &["c", "d"]).await;
    let from = async |from| {
        let at = if let ReadFrom::After(at) = from { at } else { EventId::default() };
        let after = |(record, data): (Record, Option<String>)| data.filter(|_| record.id > at);
        singles(&bench.all(&key, from).await).into_iter().filter_map(after).collect()
    };
    assert_eq!(from(ReadFrom::Start).await, ["a", "b", "c", "d"] as [&str; 4]);
    let newest: Vec<String> = from(ReadFrom::Newest).await;
    assert_eq!(newest, ["c", "d"]);
    assert_eq!(from(ReadFrom::After(EventId::new(first, 1))).await, ["b", "c", "d"] as [&str; 3]);
    assert_eq!(from(ReadFrom::After(EventId::new(first, 9))).await, ["c", "d"] as [&str; 2]);
    assert_eq!(from(ReadFrom::After(EventId::new(second, 1))).await, ["d"] as [&str; 1]);
    assert_eq!(from(ReadFrom::After(EventId::new(second, 7))).await, [""; 0]);
    let page = bench.all(&key, ReadFrom::After(EventId::new(second, 7))).await;
    assert_eq!(
        (page.top, page.epoch),
        (EventId::new(second, 7), second),
        "the cursor, which is higher than the newest"
    );
    assert_eq!((page.state, page.more), (StreamState::Active, false));
    let page = bench.all(&key, ReadFrom::After(EventId::new(second, 1))).await;
    assert_eq!((page.top, page.more), (EventId::new(second, 2), false));
}

/// Whether a cursor speaks of a run that the stream had, as far as can be known.
pub async fn an_epoch_is_known_or_not(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("known").await;
    bench.write(&key, first, 1, &["a"]).await;
    bench.stand_still(&key, first).await;
    let (_, second) = bench.begin("known").await;
    let knows = async |epoch, seq| bench.all(&key, ReadFrom::After(EventId::new(epoch, seq))).await.known;
    assert!(knows(first, 1).await && knows(first, 99).await && knows(second, 0).await && knows(second, 99).await);
    assert!(!knows(first - 1, 1).await, "an epoch that never was");
    assert!(!knows(second + 1, 0).await, "an end that never was");
    assert!(bench.all(&key, ReadFrom::Start).await.known && bench.all(&key, ReadFrom::Newest).await.known);
    let ended = bench.finish(&key, second).await;
    assert!(knows(ended.id.epoch, 0).await && knows(second, 1).await && knows(first, 1).await);
    assert!(!knows(ended.id.epoch + 1, 1).await);
}

/// A run's first entry is its marker, which says what the run before had made, recorded or not.
pub async fn markers_say_where_the_run_before_ended(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("markers").await;
    bench.write(&key, first, 1, &["a"]).await;
    let interrupt = Interrupt { key: key.clone(), epoch: first, last: Some(6), if_deadline: None };
    bench.interrupt(interrupt).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.previous, None, "the run that stands still is the first");
    let (_, second) = bench.begin("markers").await;
    assert_eq!(bench.info_of(&key).await.previous, Some(EventId::new(first, 6)));
    let page = bench.all(&key, ReadFrom::Start).await;
    let markers = page.records.iter().filter_map(|record| match &record.kind {
        RecordKind::Run { previous } => Some((record.id, *previous)),
        RecordKind::Events(_) | RecordKind::End(_) => None,
    });
    let expected = [(EventId::new(first, 0), None), (EventId::new(second, 0), Some(EventId::new(first, 6)))];
    assert_eq!(markers.collect::<Vec<_>>(), expected);
    bench.write(&key, second, 1, &["b"]).await;
    bench.stand_still(&key, second).await;
    assert_eq!(bench.info_of(&key).await.previous, Some(EventId::new(first, 6)));
    bench.end(close(&key, None)).await;
    assert_eq!(bench.info_of(&key).await.previous, Some(EventId::new(first, 6)), "also once it has ended");
}

async fn trimmed<S: Store>(bench: &Bench<S>, id: &str, retention: Retention) -> (StreamKey, u64) {
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.request(id) }).await);
    let key = bench.key(id);
    for seq in 1..=9 {
        bench.write(&key, epoch, seq, &[&seq.to_string()]).await;
    }
    (key, epoch)
}

/// A log holds the newest events only, and can tell that a cursor speaks of older ones.
pub async fn logs_are_bounded_in_events(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = trimmed(&bench, "count", Retention { max_events: 4, ..retention() }).await;
    assert_eq!(bench.held(&key).await, ["6", "7", "8", "9"]);
    let page = bench.after(&key, EventId::new(epoch, 2)).await;
    assert_eq!((page.known, page.records[0].id), (true, EventId::new(epoch, 6)));
    bench.write(&key, epoch, 10, &["10"]).await;
    bench.write(&key, epoch, 1, &["1", "2"]).await;
    assert_eq!(bench.held(&key).await, ["7", "8", "9", "10"], "a repeat of what was trimmed is no news");
}

/// The bound in bytes is one of the events as they are kept: as they go over the wire.
pub async fn logs_are_bounded_in_bytes(store: impl Store) {
    let bench = Bench::new(store);
    let event = size(EventId::new(1_700_000_000_000, 1), "1");
    let (key, epoch) = trimmed(&bench, "bytes", Retention { max_bytes: 3 * event + 1, ..retention() }).await;
    assert_eq!(bench.held(&key).await, ["7", "8", "9"]);
    assert!(bench.all(&key, ReadFrom::After(EventId::new(epoch, 2))).await.known);
}

/// Guarantee G6: a stream that runs again and again, and makes nothing, does not grow, nor does it lose what it holds. Who
/// reads on from any of these runs is told of none.
pub async fn runs_without_events_leave_nothing(store: impl Store) {
    let bench = Bench::new(store);
    let request = || Open { retention: Retention { max_events: 10, ..retention() }, ..bench.request("quiet") };
    let first = epoch_of(&bench.ask(request()).await);
    let key = bench.key("quiet");
    bench.write(&key, first, 1, &["a", "b"]).await;
    let mut epoch = first;
    let mut epochs = Vec::new();
    for _ in 0..200 {
        bench.stand_still(&key, epoch).await;
        epoch = epoch_of(&bench.ask(request()).await);
        epochs.push(epoch);
    }
    let held = bench.held(&key).await;
    assert!(held.len() <= 10 + MORE, "{} entries", held.len());
    assert_eq!(held.iter().filter(|entry| *entry != "r").collect::<Vec<_>>(), ["a", "b"]);
    bench.write(&key, epoch, 1, &["c"]).await;
    for at in [EventId::new(first, 2), EventId::new(epochs[0], 0), EventId::new(epochs[100], 0)] {
        let page = bench.after(&key, at).await;
        assert!(page.known, "the stream had that run");
        let events: Vec<_> = brief(&page).into_iter().filter(|entry| entry != "r").collect();
        assert_eq!(events, ["c"]);
    }
    let page = bench.after(&key, EventId::new(first, 2)).await;
    let RecordKind::Run { previous: Some(previous) } = page.records[0].kind else { panic!("no marker: {page:?}") };
    assert!(previous <= EventId::new(first, 2) || previous.seq == 0, "nothing is missing: {previous}");
}

/// Guarantee G6: however often a stream runs again, its log is bounded in all its entries.
pub async fn logs_are_bounded_in_runs(store: impl Store) {
    let bench = Bench::new(store);
    let key = bench.key("restless");
    for _ in 0..200 {
        let request = Open { retention: Retention { max_events: 10, ..retention() }, ..bench.request("restless") };
        let epoch = epoch_of(&bench.ask(request).await);
        // It made an event that was not recorded.
        let interrupt = Interrupt { key: key.clone(), epoch, last: Some(1), if_deadline: None };
        bench.interrupt(interrupt).await.expect("the store answers");
    }
    let entries = bench.held(&key).await.len();
    assert!(entries <= 10 + MORE, "{entries} entries");
}

/// The end is an entry of the log, behind all others, once these are read.
pub async fn the_end_is_the_last_record(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("end").await;
    bench.write(&key, epoch, 1, &["a", "b"]).await;
    let close = Close { last: Some(5), ..close(&key, Some(epoch)) };
    bench.end(close).await;
    let ended = bench.info_of(&key).await.ended.expect("it has ended");
    let page = bench.after(&key, EventId::new(epoch, 2)).await;
    assert_eq!((page.state, page.top, page.epoch), (StreamState::Failed, ended.id, epoch));
    let [end] = &page.records[..] else { panic!("more than the end: {page:?}") };
    assert_eq!((end.id, &end.kind), (ended.id, &RecordKind::End(Box::new(ended.clone()))));
    assert_eq!(brief(&bench.all(&key, ReadFrom::Newest).await), ["a", "b", "e"]);
    let page = bench.page(&key, ReadFrom::Start, 1, usize::MAX).await.expect("the stream is held");
    assert!(page.more && !brief(&page).contains(&"e".to_owned()), "not before the others: {page:?}");
    assert_eq!(bench.all(&key, ReadFrom::After(ended.id)).await.records, []);
}
