//! Checks of ends and interruptions.

use std::future::poll_fn;

use tokio::task::JoinSet;

use super::bench::{Bench, LONG, close, finished, interrupt};
use crate::{
    model::{
        id::EventId,
        stream::{Ending, StreamState, reason},
    },
    store::{Close, Closed, Fence, Interrupt, Interrupted, Store},
};

/// Guarantee G3: the first end of a stream counts, and every later close returns it. Its id is `<epoch+1>-0`, no matter
/// which node closes.
pub async fn the_first_end_wins(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("first").await;
    bench.write(&key, epoch, 1, &["a"]).await;
    let first = Close { ending: finished("done"), ..close(&key, Some(epoch)) };
    let Closed::Now { ended, node } = bench.end(first.clone()).await else { panic!("not closed") };
    assert_eq!(node, Some(bench.node.clone()));
    assert_eq!((ended.id, ended.last), (EventId::terminal(epoch), EventId::new(epoch, 1)));
    assert_eq!(ended.ending, first.ending);
    assert_eq!(bench.end(first).await, Closed::Before(ended.clone()), "a repeat");
    assert_eq!(bench.end(close(&key, Some(epoch))).await, Closed::Before(ended.clone()), "another end");
    assert_eq!(bench.end(close(&key, None)).await, Closed::Before(ended.clone()));
    let late = bench.interrupt(interrupt(&key, epoch)).await.expect("the store answers");
    assert_eq!(late, Interrupted::Fenced(Fence::Ended(ended.clone())));
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.top, info.ended), (StreamState::Completed, ended.id, Some(ended)));
    assert_eq!(bench.end(close(&bench.key("none"), None)).await, Closed::Missing);
}

/// One of several racing ends counts, and all callers get that one.
pub async fn racing_ends_agree(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("race").await;
    let mut racing = JoinSet::new();
    for number in 0..20 {
        let (bench, key) = (bench.clone(), key.clone());
        racing.spawn(async move {
            tokio::task::yield_now().await;
            bench.end(Close { ending: finished(&number.to_string()), ..close(&key, Some(epoch)) }).await
        });
    }
    let stored = |closed| match closed {
        Closed::Now { ended, .. } => (true, ended),
        Closed::Before(ended) => (false, ended),
        other => panic!("neither closed nor before: {other:?}"),
    };
    let ends: Vec<_> = racing.join_all().await.into_iter().map(stored).collect();
    assert_eq!(ends.iter().filter(|(won, _)| *won).count(), 1);
    assert!(ends.iter().all(|(_, ended)| *ended == ends[0].1));
}

/// The end stores the id of the last event that was made, recorded or not, so that a reader notices a loss at the end.
pub async fn the_end_says_what_was_made_last(store: impl Store) {
    let bench = Bench::new(store);
    for (id, said, kept) in [("said", Some(9), 9), ("unsaid", None, 2), ("less", Some(1), 2)] {
        let (key, epoch) = bench.begin(id).await;
        bench.write(&key, epoch, 1, &["a", "b"]).await;
        let closed = bench.end(Close { last: said, ..close(&key, Some(epoch)) }).await;
        let Closed::Now { ended, .. } = closed else { panic!("not closed: {closed:?}") };
        assert_eq!(ended.last, EventId::new(epoch, kept), "{id}");
    }
}

/// Each of many ends in one request gets the same outcome as in a request of its own.
pub async fn many_are_ended_each_for_itself(store: impl Store) {
    let bench = Bench::new(store);
    let mut closes = Vec::new();
    // More ends than a store handles in one step.
    for number in 0..70 {
        let (key, epoch) = bench.begin(&format!("many-{number}")).await;
        closes.push(Close { ending: finished(&number.to_string()), ..close(&key, Some(epoch)) });
    }
    let before = bench.end(closes[10].clone()).await;
    let Closed::Now { ended: before, .. } = before else { panic!("not closed: {before:?}") };
    closes[20].if_deadline = Some(1);
    closes[30].epoch = closes[30].epoch.map(|epoch| epoch - 1);
    closes[40].key = bench.key("none");
    let all = bench.end_all(closes.clone()).await;
    assert_eq!(all.len(), closes.len());
    for (number, (close, closed)) in closes.iter().zip(all).enumerate() {
        match (number, closed.expect("the store says what became of it")) {
            (10, closed) => assert_eq!(closed, Closed::Before(before.clone())),
            (20, closed) => assert_eq!(closed, Closed::Moved),
            (30, closed) => assert_eq!(closed, Closed::Newer),
            (40, closed) => assert_eq!(closed, Closed::Missing),
            (_, Closed::Now { ended, .. }) => {
                assert_eq!(ended.ending, close.ending);
                assert_eq!(bench.info_of(&close.key).await.ended, Some(ended));
            }
            (_, closed) => panic!("{number}: {closed:?}"),
        }
    }
    assert_eq!(bench.info_of(&closes[20].key).await.state, StreamState::Active);
    assert_eq!(bench.end_all(Vec::new()).await, []);
}

/// Guarantee G5: a stream whose deadline a heartbeat has moved is not closed as an orphan.
pub async fn a_deadline_that_moved_is_no_reason_to_close(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("moved").await;
    let deadline = bench.info_of(&key).await.deadline;
    bench.heartbeat(&[(key.clone(), epoch)], LONG * 2).await;
    let moved = Close { if_deadline: Some(deadline), ..close(&key, Some(epoch)) };
    assert_eq!(bench.end(moved).await, Closed::Moved);
    assert_eq!(bench.info_of(&key).await.state, StreamState::Active);
    let deadline = bench.info_of(&key).await.deadline;
    let still = Close { if_deadline: Some(deadline), ..close(&key, Some(epoch)) };
    assert!(matches!(bench.end(still).await, Closed::Now { .. }));
}

/// An end that names a run does not end another run.
pub async fn another_run_is_not_closed(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("runs").await;
    bench.stand_still(&key, first).await;
    let (_, second) = bench.begin("runs").await;
    assert_eq!(bench.end(close(&key, Some(first))).await, Closed::Newer);
    assert_eq!(bench.info_of(&key).await.state, StreamState::Active);
    assert_eq!(bench.finish(&key, second).await.id, EventId::terminal(second));
}

/// An end that names no run ends the current run, so that any node can stop the stream.
pub async fn whichever_runs_can_be_closed(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("any").await;
    let ending = Ending::supplied(StreamState::Cancelled, reason::STOPPED);
    let closed = bench.on("node-2").end(Close { ending: ending.clone(), ..close(&key, None) }).await;
    let Closed::Now { ended, node } = closed else { panic!("not closed: {closed:?}") };
    assert_eq!((ended.ending, ended.id, node), (ending, EventId::terminal(epoch), Some(bench.node.clone())));
}

/// An interrupted stream can be ended. The end has the last event id of the interrupted run.
pub async fn an_interrupted_stream_can_be_closed(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("still").await;
    bench.write(&key, epoch, 1, &["a"]).await;
    let interrupt = Interrupt { last: Some(4), ..interrupt(&key, epoch) };
    bench.interrupt(interrupt).await.expect("the store answers");
    let closed = bench.end(close(&key, None)).await;
    let Closed::Now { ended, .. } = closed else { panic!("not closed: {closed:?}") };
    assert_eq!((ended.id, ended.last), (EventId::terminal(epoch), EventId::new(epoch, 4)));
}

/// A node gets a notice when another node has ended one of its streams.
pub async fn a_foreign_end_is_posted_to_the_producing_node(store: impl Store) {
    let bench = Bench::new(store);
    let mut notices = bench.listening().await;
    let mut others = bench.notices(&bench.on("node-2").node);
    let (key, _) = bench.begin("posted").await;
    bench.begin("quiet").await;
    bench.on("node-2").end(close(&key, None)).await;
    let mut posted = Vec::new();
    let all = async {
        while !posted.contains(&key) {
            posted.extend(poll_fn(|cx| notices.poll(cx)).await.streams);
        }
    };
    tokio::time::timeout(LONG, all).await.expect("the node is told");
    assert!(!posted.contains(&bench.key("quiet")));
    let nothing = poll_fn(|cx| std::task::Poll::Ready(others.poll(cx).is_pending())).await;
    assert!(nothing, "it is not another node's stream");
}

/// A deletion is posted to the producing node, with the newest run of the stream.
pub async fn a_deletion_is_posted_to_the_producing_node(store: impl Store) {
    let bench = Bench::new(store);
    let mut notices = bench.listening().await;
    let (key, epoch) = bench.begin("posted").await;
    bench.on("node-2").delete(key.clone()).await.expect("the store answers");
    let mut deleted = Vec::new();
    let posted = async {
        while deleted.is_empty() {
            deleted.extend(poll_fn(|cx| notices.poll(cx)).await.deleted);
        }
    };
    tokio::time::timeout(LONG, posted).await.expect("the node is told");
    assert_eq!(deleted, [(key, epoch)]);
}

/// An interruption keeps the log and may be repeated. It is refused for an older run and for a missing stream.
pub async fn an_interruption_keeps_the_log(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("kept").await;
    bench.write(&key, first, 1, &["a"]).await;
    bench.stand_still(&key, first).await;
    bench.stand_still(&key, first).await;
    assert_eq!(bench.held(&key).await, ["r", "a"]);
    bench.begin("kept").await;
    let late = bench.interrupt(interrupt(&key, first)).await.expect("the store answers");
    assert_eq!(late, Interrupted::Fenced(Fence::Newer));
    assert_eq!(bench.info_of(&key).await.state, StreamState::Active);
    let none = bench.interrupt(interrupt(&bench.key("none"), first)).await.expect("the store answers");
    assert_eq!(none, Interrupted::Missing);
}

/// An interruption with `if_deadline` has an effect only while the stream still has that deadline.
pub async fn an_interruption_is_conditional(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("claimed").await;
    let deadline = bench.info_of(&key).await.deadline;
    bench.heartbeat(&[(key.clone(), epoch)], LONG * 2).await;
    let claim = Interrupt { if_deadline: Some(deadline), ..interrupt(&key, epoch) };
    assert_eq!(bench.interrupt(claim).await.expect("the store answers"), Interrupted::Moved);
    let deadline = bench.info_of(&key).await.deadline;
    let claim = Interrupt { if_deadline: Some(deadline), ..interrupt(&key, epoch) };
    assert_eq!(bench.interrupt(claim).await.expect("the store answers"), Interrupted::Done);
}
