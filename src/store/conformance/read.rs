//! Checks of reading.

use super::bench::{Bench, brief, close, epoch_of, retention, singles, size};
use crate::{
    model::{
        id::{EventId, StreamKey},
        stream::{Record, RecordKind, StreamState},
    },
    store::{Close, Interrupt, Open, Page, ReadFrom, Retention, Store},
};

/// How many entries more than its bound a log may hold.
const MORE: usize = 4;

/// The largest number of events in one batch of these checks, and the largest length of an event.
const TOGETHER: usize = 5;
const LONGEST: usize = "data: eeeee\nid: e1234567890123-45\n\n".len();

/// Reads all pages, checks the size of each, and returns all records as short texts.
async fn paged<S: Store>(bench: &Bench<S>, key: &StreamKey, max_events: usize, max_bytes: usize) -> Vec<String> {
    let (mut from, mut all) = (ReadFrom::Start, Vec::new());
    loop {
        let page = bench.page(key, from, max_events, max_bytes).await.expect("the stream is held");
        let singles = singles(&page);
        let entries = singles.iter().filter(|(record, _)| !matches!(record.kind, RecordKind::End(_))).count();
        // A page may hold a whole batch more, since a store keeps and returns a batch together.
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

/// Pages hold about as many entries and bytes as requested, apart from the end. Together they hold the whole log.
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

/// A page holds at least one entry, even if its event is larger than the requested page.
pub async fn a_page_holds_at_least_one_entry(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("large").await;
    bench.write(&key, epoch, 1, &["a large event"]).await;
    // The hole keeps a store from putting both events into one record.
    bench.write(&key, epoch, 3, &["b"]).await;
    let page = bench.page(&key, ReadFrom::After(EventId::new(epoch, 0)), 10, 1).await.expect("the stream is held");
    assert_eq!((brief(&page), page.more), (vec!["a large event".to_owned()], true));
}

/// A read begins at the start, at the newest run, or exactly after a cursor.
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

/// A page says whether the stream had the run of the cursor, as far as the store can know.
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

/// The first entry of a run is its marker. It has the id of the last event of the run before, recorded or not.
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

/// A log holds the newest events only, and still knows the run of a cursor at an older event.
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

/// The bound in bytes counts the events in their stored form, which is their form on the wire.
pub async fn logs_are_bounded_in_bytes(store: impl Store) {
    let bench = Bench::new(store);
    let event = size(EventId::new(1_700_000_000_000, 1), "1");
    let (key, epoch) = trimmed(&bench, "bytes", Retention { max_bytes: 3 * event + 1, ..retention() }).await;
    assert_eq!(bench.held(&key).await, ["7", "8", "9"]);
    assert!(bench.all(&key, ReadFrom::After(EventId::new(epoch, 2))).await.known);
}

/// Guarantee G6: a stream does not grow with runs that make no events, and does not lose the events that it holds. A
/// reader that resumes from any of these runs sees no gap.
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

/// Guarantee G6: the number of entries in a log is bounded, no matter how often the stream runs again.
pub async fn logs_are_bounded_in_runs(store: impl Store) {
    let bench = Bench::new(store);
    let key = bench.key("restless");
    for _ in 0..200 {
        let request = Open { retention: Retention { max_events: 10, ..retention() }, ..bench.request("restless") };
        let epoch = epoch_of(&bench.ask(request).await);
        // The run made one event that was not recorded.
        let interrupt = Interrupt { key: key.clone(), epoch, last: Some(1), if_deadline: None };
        bench.interrupt(interrupt).await.expect("the store answers");
    }
    let entries = bench.held(&key).await.len();
    assert!(entries <= 10 + MORE, "{entries} entries");
}

/// The end is the last record of a log. A page holds it only once all other entries were read.
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
