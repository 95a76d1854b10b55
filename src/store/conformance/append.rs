//! Checks of appending to a log.

use super::bench::{Bench, append, epoch_of};
use crate::{
    model::{
        id::{EventId, StreamKey},
        metadata::Metadata,
        stream::RecordKind,
    },
    store::{Append, Appended, Fence, Open, Opened, ReadFrom, Store},
};

/// The log holds the events in order, without holes, byte for byte, under the ids of the producer.
pub async fn a_log_is_dense(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("dense").await;
    bench.write(&key, epoch, 1, &["a"]).await;
    bench.write(&key, epoch, 2, &["b\ndata: é\r\nid: 7", "", "c"]).await;
    let page = bench.after(&key, EventId::default()).await;
    let ids: Vec<_> = page.records.iter().map(|record| record.id).collect();
    assert_eq!(ids, (0..=4).map(|seq| EventId::new(epoch, seq)).collect::<Vec<_>>());
    let RecordKind::Events(event) = &page.records[2].kind else { panic!("not an event") };
    assert_eq!(event.bytes, format!("data: b\ndata: é\r\nid: 7\nid: {}\n\n", ids[2]));
    assert!(page.records.is_sorted_by_key(|record| record.at) && page.records[0].at > 0);
    assert_eq!((page.top, bench.info_of(&key).await.top), (EventId::new(epoch, 4), EventId::new(epoch, 4)));
}

/// A batch that is sent again after a lost reply is answered with `Stored`, and the log holds it once.
pub async fn a_repeat_changes_nothing(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("repeat").await;
    bench.write(&key, epoch, 1, &["a", "b"]).await;
    let before = bench.all(&key, ReadFrom::Start).await;
    bench.write(&key, epoch, 1, &["a", "b"]).await;
    assert_eq!(bench.all(&key, ReadFrom::Start).await, before);
    bench.write(&key, epoch, 3, &["c"]).await;
    bench.write(&key, epoch, 1, &["a", "b"]).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "b", "c"], "also an older one");
}

/// A batch that overlaps with the held events is refused as a whole and changes nothing, since a batch becomes one
/// entry.
pub async fn an_overlap_is_refused(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("overlap").await;
    bench.write(&key, epoch, 1, &["a", "b"]).await;
    assert_eq!(bench.put(append(&key, epoch, 2, &["b", "c", "d"])).await, Appended::Refused);
    assert_eq!(bench.held(&key).await, ["r", "a", "b"]);
    assert_eq!(bench.info_of(&key).await.top, EventId::new(epoch, 2));
    bench.write(&key, epoch, 3, &["c", "d"]).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "b", "c", "d"]);
}

/// Events that the producer lost leave a hole in the ids, and the hole stays.
pub async fn a_hole_stays_one(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("hole").await;
    bench.write(&key, epoch, 1, &["a"]).await;
    bench.write(&key, epoch, 5, &["e"]).await;
    let page = bench.after(&key, EventId::new(epoch, 1)).await;
    assert_eq!(page.records.iter().map(|record| record.id.seq).collect::<Vec<_>>(), [5]);
    // A late event in the hole would come behind an event that readers have already.
    assert_eq!(bench.put(append(&key, epoch, 2, &["b"])).await, Appended::Refused);
    let page = bench.after(&key, EventId::new(epoch, 1)).await;
    assert_eq!(page.records.iter().map(|record| record.id.seq).collect::<Vec<_>>(), [5]);
}

/// Each append of a request gets its own outcome, in order, even if others fail.
pub async fn batches_are_answered_one_by_one(store: impl Store) {
    let bench = Bench::new(store);
    let (a, epoch_a) = bench.begin("a").await;
    let (b, epoch_b) = bench.begin("b").await;
    let outcomes = bench
        .append(vec![
            append(&a, epoch_a, 1, &["1"]),
            append(&bench.key("none"), 5, 1, &["x"]),
            append(&b, epoch_b - 1, 1, &["x"]),
            append(&b, epoch_b, 1, &["1", "2"]),
        ])
        .await
        .expect("the store answers");
    assert_eq!(outcomes, [Appended::Stored, Appended::Gone, Appended::Fenced(Fence::Newer), Appended::Stored]);
    assert_eq!(bench.held(&a).await, ["r", "1"]);
    assert_eq!(bench.held(&b).await, ["r", "1", "2"]);
    assert_eq!(bench.known(&bench.key("none")).await, None);
    assert_eq!(bench.append(Vec::new()).await.expect("the store answers"), []);
}

/// Guarantee G4: a late append is refused once another run of the stream has begun, or may begin.
pub async fn an_older_run_is_fenced(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("fenced").await;
    bench.write(&key, first, 1, &["a"]).await;
    bench.stand_still(&key, first).await;
    let newer = Appended::Fenced(Fence::Newer);
    assert_eq!(bench.put(append(&key, first, 2, &["late"])).await, newer, "interrupted");
    let (_, second) = bench.begin("fenced").await;
    assert_eq!(bench.put(append(&key, first, 2, &["late"])).await, newer, "a newer run");
    assert_eq!(bench.put(append(&key, first, 1, &["a"])).await, newer, "also a repeat");
    assert_eq!(bench.put(append(&key, first, 2, &[])).await, newer, "also an empty one");
    bench.write(&key, second, 1, &["b"]).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "r", "b"]);
}

/// An append after the end is refused, and the producer gets the stored end.
pub async fn after_the_end_nothing_is_appended(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("over").await;
    bench.write(&key, epoch, 1, &["a"]).await;
    let ended = bench.finish(&key, epoch).await;
    let fenced = Appended::Fenced(Fence::Ended(ended));
    assert_eq!(bench.put(append(&key, epoch, 2, &["late"])).await, fenced);
    assert_eq!(bench.held(&key).await, ["r", "a", "e"]);
}

/// An append without events does not start a stream, even with metadata or an inner id: see
/// [`StreamInfo::started`](crate::StreamInfo).
pub async fn an_append_without_events_does_not_start_a_stream(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("quiet").await;
    let metadata = vec![("job".to_owned(), "7".to_owned())];
    for said in [
        append(&key, epoch, 1, &[]),
        Append { metadata, ..append(&key, epoch, 1, &[]) },
        Append { inner_id: Some("row-7".to_owned()), ..append(&key, epoch, 1, &[]) },
    ] {
        assert_eq!(bench.put(said).await, Appended::Stored);
        assert!(!bench.info_of(&key).await.started);
        assert_eq!(bench.ask(bench.request("quiet")).await, Opened::Active { started: false });
    }
}

/// An append with `starts` starts a stream, and so does an append with events.
pub async fn an_append_that_says_so_starts_a_stream(store: impl Store) {
    let bench = Bench::new(store);
    for (id, data, starts) in [("said", &[][..], true), ("event", &["a"], false), ("both", &["a"], true)] {
        let (key, epoch) = bench.begin(id).await;
        assert_eq!(bench.put(Append { starts, ..append(&key, epoch, 1, data) }).await, Appended::Stored);
        assert!(bench.info_of(&key).await.started, "{id}");
        assert_eq!(bench.ask(bench.request(id)).await, Opened::Active { started: true }, "{id}");
        bench.put(append(&key, epoch, 2, &[])).await;
        assert!(bench.info_of(&key).await.started, "{id}: what is started stays so");
        // The next run has another producer, which has not begun to answer.
        bench.stand_still(&key, epoch).await;
        bench.begin(id).await;
        assert!(!bench.info_of(&key).await.started, "{id}");
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn kept<S: Store>(bench: &Bench<S>, key: &StreamKey) -> Metadata {
    let mut kept = bench.info_of(key).await.metadata;
    kept.sort();
    kept
}

/// Metadata that comes with a batch is added to the stream's. The value of an existing key is replaced.
pub async fn metadata_is_merged(store: impl Store) {
    let bench = Bench::new(store);
    let request = Open { metadata: pairs(&[("a", "1"), ("b", "1")]), ..bench.request("kept") };
    let epoch = epoch_of(&bench.ask(request).await);
    let key = bench.key("kept");
    let batch = append(&key, epoch, 1, &["x"]);
    bench.put(Append { metadata: pairs(&[("b", "2"), ("c", "2")]), ..batch.clone() }).await;
    bench.put(Append { metadata: pairs(&[("b", "2"), ("c", "2")]), ..batch }).await;
    assert_eq!(kept(&bench, &key).await, pairs(&[("a", "1"), ("b", "2"), ("c", "2")]));
    bench.stand_still(&key, epoch).await;
    assert_eq!(kept(&bench, &key).await, pairs(&[("a", "1"), ("b", "2"), ("c", "2")]), "while it stands still");
}

/// Metadata belongs to one run, since a probe must not ask for the job of an earlier run. Withdrawing a run restores
/// the metadata of the run before.
pub async fn metadata_is_a_runs_own(store: impl Store) {
    let bench = Bench::new(store);
    let request = |what: &str| Open { metadata: pairs(&[("asked", what)]), ..bench.request("kept") };
    let first = epoch_of(&bench.ask(request("1")).await);
    let key = bench.key("kept");
    bench.put(Append { metadata: pairs(&[("job", "7")]), ..append(&key, first, 1, &["x"]) }).await;
    bench.stand_still(&key, first).await;
    let again = request("2");
    let second = epoch_of(&bench.ask(again.clone()).await);
    assert_eq!(kept(&bench, &key).await, pairs(&[("asked", "2")]));
    assert_eq!(epoch_of(&bench.ask(again.clone()).await), second);
    assert_eq!(kept(&bench, &key).await, pairs(&[("asked", "2")]), "a repeat changes nothing");
    bench.put(Append { metadata: pairs(&[("job", "8")]), ..append(&key, second, 1, &[]) }).await;
    assert_eq!(kept(&bench, &key).await, pairs(&[("asked", "2"), ("job", "8")]));
    bench.withdraw(key.clone(), again.token).await.expect("the store answers");
    assert_eq!(kept(&bench, &key).await, pairs(&[("asked", "1"), ("job", "7")]), "as if it had not been");

    epoch_of(&bench.ask(bench.request("kept")).await);
    assert_eq!(kept(&bench, &key).await, pairs(&[]));
}

/// Guarantee G6: the metadata of a stream is bounded, no matter how often the stream runs and how much is sent.
pub async fn metadata_is_bounded(store: impl Store) {
    const BOUND: usize = 4096;
    let bench = Bench::new(store);
    let key = bench.key("kept");
    let size = async || {
        let metadata = bench.info_of(&key).await.metadata;
        metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    };
    let large = |key: &str| vec![(key.to_owned(), "x".repeat(1500 - key.len()))];
    for run in 0..20 {
        let metadata = large(&format!("request-{run}"));
        let epoch = epoch_of(&bench.ask(Open { metadata, ..bench.request("kept") }).await);
        for number in 1..=4 {
            let metadata = large(&format!("{run}-{number}"));
            assert_eq!(bench.put(Append { metadata, ..append(&key, epoch, number, &["x"]) }).await, Appended::Stored);
            assert!(size().await <= BOUND, "{} bytes", size().await);
        }
        assert_eq!(size().await, 3000, "what fits is kept");
        let small = pairs(&[("small", "1")]);
        bench.put(Append { metadata: small, ..append(&key, epoch, 5, &["x"]) }).await;
        assert_eq!(size().await, 3006);
        let replaced = vec![(format!("{run}-1"), "y".repeat(2000))];
        bench.put(Append { metadata: replaced.clone(), ..append(&key, epoch, 6, &["x"]) }).await;
        assert!(bench.info_of(&key).await.metadata.contains(&replaced[0]), "a replaced value makes room");
        bench.stand_still(&key, epoch).await;
    }
}

/// The store keeps the last reconnect delay that the inner service has set. A batch without a delay leaves it as it is.
pub async fn the_inner_retry_is_kept(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("inner-retry").await;
    assert_eq!(bench.info_of(&key).await.inner_retry, None);
    bench.put(Append { inner_retry: Some(60_000), ..append(&key, epoch, 1, &["a"]) }).await;
    bench.put(append(&key, epoch, 2, &["b"])).await;
    assert_eq!(bench.info_of(&key).await.inner_retry, Some(60_000));
    bench.put(Append { inner_retry: Some(7), ..append(&key, epoch, 3, &["c"]) }).await;
    assert_eq!(bench.info_of(&key).await.inner_retry, Some(7));
    assert_eq!(bench.all(&key, ReadFrom::Newest).await.inner_retry, Some(7));
}

/// The store keeps the last id of the inner service's own, and gives it to the next run.
pub async fn the_inner_id_is_kept(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("inner").await;
    bench.put(Append { inner_id: Some("mine-7".to_owned()), ..append(&key, epoch, 1, &["a"]) }).await;
    bench.write(&key, epoch, 2, &["b"]).await;
    assert_eq!(bench.info_of(&key).await.inner_id.as_deref(), Some("mine-7"));
    bench.stand_still(&key, epoch).await;
    let Opened::New { inner_id, .. } = bench.ask(bench.request("inner")).await else { panic!("not opened") };
    assert_eq!(inner_id.as_deref(), Some("mine-7"));
}
