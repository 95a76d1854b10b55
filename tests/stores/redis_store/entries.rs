//! Several events share one entry of the log, which shows only in the keys.

use resilient_sse::{
    EventId, RedisStore, StreamKey,
    store::{Appended, Open, Read, ReadFrom, Retention, Store as _},
    wire::{Sse, single_events},
};

use crate::{
    redis_store::steps::{
        append, begin, brief, connect, delivered, events, held, open, open_as, page, put, retention, stand_still, write,
    },
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_begin_within_an_entry() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    write(&store, &key, epoch, 1, &["1", "2", "3", "4", "5"]).await;
    write(&store, &key, epoch, 6, &["6", "7"]).await;
    assert_eq!(server.ask::<usize>(&["XLEN", "sse:events:{YWRh/chat}"]), 3, "a marker and two batches");
    for after in 0..=7 {
        let page = page(&store, &key, ReadFrom::After(EventId::new(epoch, after))).await;
        let seqs: Vec<u64> = page.records.iter().map(|record| record.id.seq).collect();
        assert_eq!(seqs, (after + 1..=7).collect::<Vec<_>>());
        assert!(page.records.iter().all(|record| brief(record) == record.id.seq.to_string()), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_holds_entries_whole() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let (key, epoch) = begin(&store, "chat").await;
    for first in (1..=300).step_by(30) {
        let data: Vec<_> = (first..first + 30).map(|seq| seq.to_string()).collect();
        write(&store, &key, epoch, first, &data).await;
    }
    for max_events in [1, 7, 30, 64, 100, 299, 300, 301] {
        let (mut at, mut seen) = (EventId::new(epoch, 0), Vec::new());
        loop {
            let read = Read { key: key.clone(), from: ReadFrom::After(at), max_events, max_bytes: usize::MAX };
            let page = store.read(read).await.unwrap().unwrap();
            let singles: Vec<_> = page.records.iter().cloned().flat_map(|record| single_events(&Sse, record)).collect();
            assert_eq!(singles.len(), 30 * page.records.len(), "within an entry");
            assert!(singles.len() <= (2 * max_events).max(30), "{} of {max_events}", singles.len());
            seen.extend(singles.iter().map(brief));
            at = page.records.last().map_or(at, |record| record.id);
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, (1..=300).map(|seq| seq.to_string()).collect::<Vec<_>>(), "{max_events} a page");
    }
}

/// Writes batches of a size, and checks the log after each. Returns the fewest events held after a trim.
async fn fill(store: &RedisStore, key: &StreamKey, epoch: u64, batch: u64, max_events: usize) -> usize {
    let mut fewest = usize::MAX;
    let mut made = 0;
    while made < 3 * max_events as u64 {
        let data: Vec<_> = (made + 1..=made + batch).map(|seq| seq.to_string()).collect();
        write(store, key, epoch, made + 1, &data).await;
        made += batch;
        let held: Vec<u64> = events(store, key).await.into_iter().map(|(id, _)| id.seq).collect();
        assert!(held.len() <= max_events, "{} of {max_events}", held.len());
        assert_eq!(held, (made + 1 - held.len() as u64..=made).collect::<Vec<_>>(), "the newest, without holes");
        if made > max_events as u64 {
            fewest = fewest.min(held.len());
        }
    }
    fewest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_holds_no_more_than_it_may_and_hardly_less() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for (max_events, batch) in [(160, 1), (160, 3), (160, 10), (48, 3), (5, 1), (1, 1)] {
        let id = format!("log-{max_events}-{batch}");
        let request = Open { retention: Retention { max_events, ..retention() }, ..open(&id) };
        let key = request.key.clone();
        let epoch = open_as(&store, request).await;
        let fewest = fill(&store, &key, epoch, batch, max_events).await;
        // A cut takes up to a sixteenth more than the excess, and lies between entries.
        let entry = (max_events / 16).clamp(1, batch as usize);
        assert!(fewest + max_events / 16 + entry > max_events, "{fewest} of {max_events} by {batch}");
        if entry == 1 {
            assert!(fewest >= max_events - max_events / 16, "{fewest} of {max_events}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_holds_no_more_bytes_than_it_may_and_hardly_less() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    for (max_bytes, length, batch) in [(16_000, 93, 1), (16_000, 93, 7), (1_000, 93, 1), (130, 93, 1)] {
        let id = format!("log-{max_bytes}-{batch}");
        let request = Open { retention: Retention { max_bytes, ..retention() }, ..open(&id) };
        let key = request.key.clone();
        let epoch = open_as(&store, request).await;
        let size = delivered(epoch, 99, &"x".repeat(length)).len();
        let mut made = 0;
        while made as usize * size < 3 * max_bytes {
            let data = vec!["x".repeat(length); batch];
            write(&store, &key, epoch, made + 1, &data).await;
            made += batch as u64;
            let bytes = events(&store, &key).await.len() * size;
            assert!(bytes <= max_bytes, "{bytes} of {max_bytes}");
            if made as usize * size > max_bytes {
                assert!(bytes + 2 * max_bytes.div_ceil(16).max(size) > max_bytes, "{bytes} of {max_bytes} by {batch}");
            }
        }
    }
}

/// A batch with news apart from its events is compared with the stored state, and its log is cut like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_compared_batches_is_as_small() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let request = Open { retention: Retention { max_events: 32, ..retention() }, ..open("chat") };
    let key = request.key.clone();
    let epoch = open_as(&store, request).await;
    for first in (1..=200).step_by(2) {
        let mut batch = append(&key, epoch, first, &[first.to_string(), (first + 1).to_string()]);
        batch.inner_id = Some("own".to_owned());
        let repeated = (put(&store, batch.clone()).await, put(&store, batch).await);
        assert_eq!(repeated, (Appended::Stored, Appended::Stored));
        let seqs: Vec<u64> = events(&store, &key).await.into_iter().map(|(id, _)| id.seq).collect();
        assert_eq!(seqs, (first + 2 - seqs.len() as u64..=first + 1).collect::<Vec<_>>());
        assert!(seqs.len() <= 32 && (first < 32 || seqs.len() >= 28), "{} events", seqs.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_events_that_are_too_large_for_a_log_the_newest_stays() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let request = Open { retention: Retention { max_bytes: 50, ..retention() }, ..open("chat") };
    let key = request.key.clone();
    let epoch = open_as(&store, request).await;
    for seq in 1..=20 {
        write(&store, &key, epoch, seq, &[&"x".repeat(100)]).await;
        let held: Vec<u64> = events(&store, &key).await.into_iter().map(|(id, _)| id.seq).collect();
        assert_eq!(held, [seq]);
    }
    write(&store, &key, epoch, 21, &["small"]).await;
    assert_eq!(held(&store, &key).await, ["small"]);
    let page = page(&store, &key, ReadFrom::After(EventId::new(epoch, 3))).await;
    assert_eq!((page.known, page.records[0].id), (true, EventId::new(epoch, 21)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_are_those_of_all_runs_together() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let retention = Retention { max_events: 40, ..retention() };
    let mut all = Vec::new();
    let mut epochs = Vec::new();
    for run in 0..6 {
        // On one node and on the other, which knows nothing of the log.
        let store = if run % 2 == 0 { &one } else { &two };
        let request = Open { retention, ..open("chat") };
        let key = request.key.clone();
        let epoch = open_as(store, request).await;
        epochs.push(epoch);
        for first in (1..=14).step_by(7) {
            let data: Vec<_> = (first..first + 7).map(|seq| format!("{run}:{seq}")).collect();
            write(store, &key, epoch, first, &data).await;
            all.extend(data);
            let held: Vec<_> = events(&one, &key).await.into_iter().map(|(_, data)| data).collect();
            assert!(held.len() <= 40, "{}", held.len());
            assert_eq!(held, all[all.len() - held.len()..], "the newest, over all runs");
            // A sixteenth and half an entry less, and less the markers of the runs in the log.
            assert!(all.len() <= 35 || held.len() >= 40 - 2 - 1 - 3, "{}", held.len());
        }
        stand_still(store, &key, epoch).await;
    }
    let key = crate::redis_store::steps::key("chat");
    let known = page(&one, &key, ReadFrom::After(EventId::new(epochs[0], 3))).await;
    assert!(known.known, "of a run that is trimmed away");
    assert!(known.records.iter().map(|record| record.id).is_sorted());
}
