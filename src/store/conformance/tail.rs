//! Checks of wake-ups. A store may wake a tail too often, but must not miss a change.

use super::bench::{ALL, Bench, LONG, close, settle, woken};
use crate::store::Store;

/// An append wakes the tails of its stream, once the events can be read.
pub async fn an_append_wakes(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("wakes").await;
    let (mut one, mut two) = (bench.tail(&key), bench.tail(&key));
    for seq in 1..=3 {
        settle(&mut one).await;
        settle(&mut two).await;
        let (writer, at) = (bench.clone(), key.clone());
        let write = tokio::spawn(async move { writer.write(&at, epoch, seq, &["x"]).await });
        woken(&mut one, "an append").await;
        woken(&mut two, "an append").await;
        write.await.expect("appended");
        bench.until("it can be read", async || bench.info_of(&key).await.top.seq == seq).await;
    }
}

/// An end wakes the tails of its stream.
pub async fn an_end_wakes(store: impl Store) {
    let bench = Bench::new(store);
    let (key, _) = bench.begin("ends").await;
    let mut tail = bench.tail(&key);
    settle(&mut tail).await;
    bench.on("node-2").end(close(&key, None)).await;
    woken(&mut tail, "an end").await;
}

/// An interruption wakes the tails of its stream, and so does the next run.
pub async fn an_interruption_wakes(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("stands").await;
    let mut tail = bench.tail(&key);
    settle(&mut tail).await;
    bench.stand_still(&key, epoch).await;
    woken(&mut tail, "an interruption").await;
    settle(&mut tail).await;
    bench.begin("stands").await;
    woken(&mut tail, "a new run").await;
}

/// Opening a stream wakes the tails that were taken before the stream existed.
pub async fn a_stream_that_does_not_exist_yet_can_be_waited_for(store: impl Store) {
    let bench = Bench::new(store);
    let key = bench.key("later");
    let mut tails = [bench.tail(&key), bench.tail(&key)];
    settle(&mut tails[0]).await;
    // A sweep forgets streams, but nobody who waits.
    bench.sweep(LONG, ALL).await;
    let (_, epoch) = bench.begin("later").await;
    for tail in &mut tails {
        woken(tail, "an opening").await;
        settle(tail).await;
    }
    bench.write(&key, epoch, 1, &["x"]).await;
    for tail in &mut tails {
        woken(tail, "its first event").await;
    }
}

/// A withdrawal wakes the requests that wait for the producer to begin, so that they are admitted again.
pub async fn a_withdrawal_wakes(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("withdrawn");
    let (key, token) = (request.key.clone(), request.token);
    bench.ask(request).await;
    let mut tail = bench.tail(&key);
    settle(&mut tail).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    woken(&mut tail, "a withdrawal").await;

    let (_, epoch) = bench.begin("withdrawn").await;
    bench.stand_still(&key, epoch).await;
    let request = bench.request("withdrawn");
    let token = request.token;
    bench.ask(request).await;
    settle(&mut tail).await;
    bench.withdraw(key, token).await.expect("the store answers");
    woken(&mut tail, "a withdrawal of a second run").await;
}

/// A tail belongs to a key, not to one stream: it also wakes for a new stream that is opened after the old one is gone.
pub async fn a_tail_outlives_what_it_follows(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("again");
    let (key, token) = (request.key.clone(), request.token);
    bench.ask(request).await;
    let mut tail = bench.tail(&key);
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    settle(&mut tail).await;
    let (_, epoch) = bench.begin("again").await;
    woken(&mut tail, "an opening after a withdrawal").await;
    settle(&mut tail).await;
    bench.write(&key, epoch, 1, &["x"]).await;
    woken(&mut tail, "an append after a withdrawal").await;
    bench.delete(key.clone()).await.expect("the store answers");
    woken(&mut tail, "a deletion").await;
    settle(&mut tail).await;
    let (_, epoch) = bench.begin("again").await;
    woken(&mut tail, "an opening after a deletion").await;
    settle(&mut tail).await;
    bench.write(&key, epoch, 1, &["x"]).await;
    woken(&mut tail, "an append after a deletion").await;
}

/// A published event wakes the tails of its stream, including the first event and the terminal one.
pub async fn a_publication_wakes(store: impl Store) {
    let bench = Bench::new(store);
    let mut tail = bench.tail(&bench.key("published"));
    for data in ["a", "b"] {
        settle(&mut tail).await;
        bench.sent(bench.event("published", data)).await;
        woken(&mut tail, "a publication").await;
    }
    settle(&mut tail).await;
    let ends = Some(crate::StreamState::Completed);
    bench.send(crate::store::Publish { ends, ..bench.event("published", "end") }).await;
    woken(&mut tail, "a published end").await;
}
