//! Guarantees G7 and G8: reading a log costs only the bytes that are read, however large its events are.

use resilient_sse::{
    Ending, EventId, RecordKind, RedisStore, StreamKey, StreamState,
    store::{Append, Close, Open, Read, ReadFrom, Retention},
};

use crate::{
    redis_store::steps::{append, close, connect, finish, open, open_as, put, retention},
    support::redis::RedisServer,
};

/// The limits of a follower's page.
const MAX_EVENTS: usize = 512;
const MAX_BYTES: usize = 128 << 10;

/// The events that a reader received, and the number of pages.
#[derive(Debug, Default)]
struct Given {
    events: u64,
    bytes: usize,
    ends: usize,
    pages: u64,
}

async fn read_all(store: &RedisStore, key: &StreamKey, mut from: ReadFrom) -> Given {
    let mut given = Given::default();
    loop {
        let read = Read { key: key.clone(), from, max_events: MAX_EVENTS, max_bytes: MAX_BYTES };
        let page = resilient_sse::Store::read(store, read).await.unwrap().expect("the stream is held");
        given.pages += 1;
        for record in &page.records {
            from = ReadFrom::After(record.id);
            match &record.kind {
                RecordKind::Events(frame) => {
                    given.events += frame.count;
                    given.bytes += frame.bytes.len();
                }
                RecordKind::End(ended) => {
                    given.ends += 1;
                    given.bytes += ended.ending.event.as_ref().map_or(0, bytes::Bytes::len);
                }
                RecordKind::Run { .. } => {}
            }
        }
        if !page.more {
            return given;
        }
    }
}

/// The bytes of an event in the log besides its data.
const AROUND: usize = "data: \nid: e1234567890123-123456\n\n".len();

/// Writes events as a recorder does: at most 64 of them, or 64 KiB, an entry. Returns the run and the bytes of events.
async fn fill(store: &RedisStore, key: &StreamKey, size: usize, count: usize) -> (u64, usize) {
    let limits = Retention { max_events: 200_000, max_bytes: 64 << 20, ..retention() };
    let epoch = open_as(store, Open { key: key.clone(), retention: limits, ..open("any") }).await;
    let batch = (65_536 / (size + 7)).clamp(1, 64);
    let data = vec!["x".repeat(size); batch];
    let (mut first, mut bytes) = (1, 0);
    while first <= count as u64 {
        let append = append(key, epoch, first, &data[..batch.min(count + 1 - first as usize)]);
        bytes += append.events.bytes.len();
        put(store, append).await;
        first += batch as u64;
    }
    (epoch, bytes)
}

fn sent(server: &RedisServer) -> usize {
    server.info("total_net_output_bytes").unwrap().parse().unwrap()
}

/// Measures the bytes that the server sends meanwhile.
async fn sends<T>(server: &RedisServer, meanwhile: impl Future<Output = T>) -> (usize, T) {
    // INFO itself is an answer, of about the same length each time.
    let (before, between) = (sent(server), sent(server));
    let done = meanwhile.await;
    ((sent(server) - between).saturating_sub(between - before), done)
}

fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.info(&format!("cmdstat_{command}")).unwrap_or_default();
    let calls = stats.split(',').find_map(|part| part.strip_prefix("calls="));
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_resume_takes_from_redis_hardly_more_than_it_gives() {
    let server = RedisServer::start();
    let writer = connect(&server.url()).await;
    let sizes = [(64, 20_000), (100, 20_000), (1000, 4000), (8000, 500), (65_536, 60), (262_144, 16), (1 << 20, 4)];
    for (size, count) in sizes {
        // A reader that has read nothing of the log before, as after a deploy.
        let store = connect(&server.url()).await;
        let key = crate::redis_store::steps::key(&format!("s{size}"));
        let (epoch, bytes) = fill(&writer, &key, size - AROUND, count).await;
        let log = format!("sse:events:{{YWRh/s{size}}}");
        let (raw, _) = sends(&server, async { server.command(&["XRANGE", &log, "-", "+"]) }).await;
        for from in [ReadFrom::After(EventId::new(epoch, 0)), ReadFrom::Newest, ReadFrom::Start] {
            let before = calls(&server, "xrange");
            let (sent, given) = sends(&server, read_all(&store, &key, from)).await;
            assert_eq!((given.events, given.bytes), (count as u64, bytes));
            println!(
                "{size} B, {from:?}: {:.3} of what is given, {:.3} of the log, {given:?}",
                sent as f64 / given.bytes as f64,
                sent as f64 / raw as f64
            );
            assert!(sent * 100 <= raw * 110, "{size} B, {from:?}: {sent} bytes of a log of {raw}");
            assert!(sent * 10 <= given.bytes * 12, "{size} B, {from:?}: {sent} bytes for {}", given.bytes);
            let asked = calls(&server, "xrange") - before;
            assert!(asked <= 2 * given.pages, "{asked} requests for {} pages", given.pages);
            let fewest = (given.bytes / MAX_BYTES).max(count / MAX_EVENTS) as u64;
            assert!(given.pages <= fewest + 3, "{} pages for {fewest}", given.pages);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_large_end_is_taken_once() {
    let server = RedisServer::start();
    let writer = connect(&server.url()).await;
    for (id, size, count) in [("many", 1000, 1700), ("few", 400_000, 3), ("none", 1000, 0)] {
        let store = connect(&server.url()).await;
        let key = crate::redis_store::steps::key(id);
        let (epoch, bytes) = fill(&writer, &key, size - AROUND, count).await;
        let event = bytes::Bytes::from(format!("event: done\ndata: {}\n", "x".repeat(1_000_000)));
        let ending = Ending::with_event(StreamState::Completed, event.clone());
        finish(&writer, Close { ending, ..close(&key, epoch) }).await;
        for from in [ReadFrom::After(EventId::new(epoch, 0)), ReadFrom::Newest, ReadFrom::Start] {
            let (sent, given) = sends(&server, read_all(&store, &key, from)).await;
            assert_eq!((given.events, given.ends, given.bytes), (count as u64, 1, bytes + event.len()));
            println!("{id}, {from:?}: {:.3}, {given:?}", sent as f64 / given.bytes as f64);
            assert!(sent * 10 <= given.bytes * 12, "{id}, {from:?}: {sent} bytes for {}", given.bytes);
        }
    }
}

/// A page of a stream with much metadata does not load the metadata.
#[tokio::test(flavor = "multi_thread")]
async fn g8_a_page_brings_no_metadata() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let epoch = open_as(&store, open("chat")).await;
    let key = crate::redis_store::steps::key("chat");
    put(&store, Append { metadata: vec![("k".to_owned(), "x".repeat(4000))], ..append(&key, epoch, 1, &["x"]) }).await;
    let (sent, given) = sends(&server, read_all(&store, &key, ReadFrom::After(EventId::new(epoch, 0)))).await;
    assert_eq!(given.events, 1);
    assert!(sent < 3000, "{sent} bytes");
}
