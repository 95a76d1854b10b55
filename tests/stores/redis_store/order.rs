//! Events are never doubled, reordered or lost, however requests interleave.

use resilient_sse::{
    RedisStore,
    store::{Appended, Store as _},
};

use crate::{
    redis_store::steps::{append, begin, connect, events, put, write},
    support::redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_twice_at_once_is_held_once() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
    let (key, epoch) = begin(&one, "chat").await;
    for first in (1..=300).step_by(3) {
        let data = [first, first + 1, first + 2].map(|seq: u64| seq.to_string());
        let batch = append(&key, epoch, first, &data);
        let sent = tokio::join!(put(&one, batch.clone()), put(&two, batch.clone()), put(&one, batch));
        assert_eq!(sent, (Appended::Stored, Appended::Stored, Appended::Stored));
    }
    let held = events(&two, &key).await;
    assert_eq!(held.iter().map(|(id, _)| id.seq).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
    assert!(held.iter().all(|(id, data)| *data == id.seq.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_many_streams_keeps_its_order() {
    const STREAMS: u64 = 100;
    const BATCHES: u64 = 200;
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let one = async |store: RedisStore, number: u64| {
        let (key, epoch) = begin(&store, &format!("s{number}")).await;
        let mut next = 1;
        for batch in 0..BATCHES {
            let count = 1 + (batch + number) % 3;
            let data: Vec<_> = (next..next + count).map(|seq| format!("{number}:{seq}")).collect();
            write(&store, &key, epoch, next, &data).await;
            next += count;
        }
        (key, epoch, next - 1)
    };
    let tasks: Vec<_> = (0..STREAMS).map(|number| tokio::spawn(one(store.clone(), number))).collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let (key, epoch, made) = task.await.unwrap();
        let held = events(&store, &key).await;
        assert_eq!(held.len() as u64, made);
        for (seq, (id, data)) in (1..).zip(held) {
            assert_eq!((id.epoch, id.seq, data), (epoch, seq, format!("{number}:{seq}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flight_for_many_streams_is_answered_stream_by_stream() {
    let server = RedisServer::start();
    let store = connect(&server.url()).await;
    let mut streams = Vec::new();
    for number in 0..20 {
        streams.push(begin(&store, &format!("s{number}")).await);
    }
    server.command(&["DEL", "sse:stream:{YWRh/s3}", "sse:events:{YWRh/s3}"]);
    server.command(&["DEL", "sse:events:{YWRh/s4}"]);
    server.command(&["SET", "sse:events:{YWRh/s4}", "a string", "PX", "60000"]);
    for first in 1..=50 {
        let flight = streams.iter().map(|(key, epoch)| append(key, *epoch, first, &[first.to_string()]));
        let outcomes = store.append(flight.collect()).await.unwrap();
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let expected = if matches!(number, 3 | 4) { Appended::Gone } else { Appended::Stored };
            assert_eq!(outcome, expected, "stream {number}");
        }
    }
    for (number, (key, _)) in streams.iter().enumerate().filter(|(number, _)| !matches!(number, 3 | 4)) {
        assert_eq!(events(&store, key).await.len(), 50, "stream {number}");
    }
}
