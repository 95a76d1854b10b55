//! Checks of opening a stream: which request becomes the producer.

use std::time::Duration;

use tokio::task::JoinSet;

use super::bench::{Bench, close, epoch_of, finished};
use crate::{
    model::{
        id::EventId,
        stream::{Origin, StreamState},
    },
    store::{Close, Closed, Interrupt, Open, Opened, ReadFrom, Store},
};

/// A stream that is not held is created. It is active, has not started, and belongs to the caller.
pub async fn a_new_stream_is_the_callers(store: impl Store) {
    let bench = Bench::new(store);
    let metadata = vec![("job".to_owned(), "7".to_owned())];
    let opened = bench.ask(Open { metadata: metadata.clone(), ..bench.request("new") }).await;
    let epoch = epoch_of(&opened);
    assert_eq!(opened, Opened::New { epoch, previous: None, inner_id: None, origin: Origin::Named });
    let info = bench.info_of(&bench.key("new")).await;
    assert_eq!((info.state, info.epoch, info.started, info.reruns), (StreamState::Active, epoch, false, true));
    assert_eq!((info.node, info.metadata, info.kind.as_ref()), (Some(bench.node.clone()), metadata, "check"));
    assert_eq!((info.top, info.ended), (EventId::new(epoch, 0), None));
    assert!(info.deadline > info.last_heartbeat && info.last_heartbeat >= info.started_at);
}

/// A request that is repeated after a lost reply gets the same outcome, not a second run.
pub async fn a_repeat_is_known_by_its_token(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("repeat");
    let first = bench.ask(request.clone()).await;
    assert_eq!(bench.ask(request.clone()).await, first);
    let key = request.key.clone();
    bench.write(&key, epoch_of(&first), 1, &["a"]).await;
    bench.stand_still(&key, epoch_of(&first)).await;
    let again = bench.request("repeat");
    let second = bench.ask(again.clone()).await;
    assert!(epoch_of(&second) > epoch_of(&first));
    assert_eq!(bench.ask(again).await, second, "also of a second run");
    assert_eq!(bench.held(&key).await, ["r", "a", "r"]);
}

/// While a producer runs, no other producer begins. The caller learns whether that producer has begun to answer.
pub async fn an_active_stream_is_anothers(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("active").await;
    let other = bench.on("node-2");
    assert_eq!(other.ask(other.request("active")).await, Opened::Active { started: false });
    bench.start(&key, epoch).await;
    assert_eq!(other.ask(other.request("active")).await, Opened::Active { started: true });
    assert!(bench.info_of(&key).await.started);
}

/// After an interruption a request starts a run with a higher epoch, and the log is kept.
pub async fn an_interrupted_stream_is_run_again_in_a_higher_epoch(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("again").await;
    bench.write(&key, first, 1, &["a", "b"]).await;
    let interrupt = Interrupt { key: key.clone(), epoch: first, last: Some(3), if_deadline: None };
    bench.interrupt(interrupt).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Interrupted);
    let other = bench.on("node-2");
    let opened = other.ask(Open { create: false, ..other.request("again") }).await;
    let second = epoch_of(&opened);
    assert!(second > first);
    let previous = Some(EventId::new(first, 3));
    assert_eq!(
        opened,
        Opened::New { epoch: second, previous, inner_id: None, origin: Origin::Named },
        "the third was made, not recorded"
    );
    let info = bench.info_of(&key).await;
    assert_eq!(
        (info.state, info.epoch, info.started, info.node),
        (StreamState::Active, second, false, Some(other.node))
    );
    bench.write(&key, second, 1, &["c"]).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "b", "r", "c"]);
}

/// A request for an ended stream gets the end.
pub async fn an_ended_stream_is_not_run_again(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("ended").await;
    let close = Close { ending: finished("done"), ..close(&key, Some(epoch)) };
    let Closed::Now { ended, .. } = bench.end(close).await else { panic!("not closed") };
    assert_eq!(bench.ask(bench.request("ended")).await, Opened::Ended(ended.clone()));
    assert_eq!(bench.info_of(&key).await.ended, Some(ended));
}

/// A request with `create: false` creates nothing.
pub async fn a_missing_stream_is_not_created_unasked(store: impl Store) {
    let bench = Bench::new(store);
    let request = Open { create: false, ..bench.request("missing") };
    assert_eq!(bench.ask(request).await, Opened::Missing);
    let key = bench.key("missing");
    assert_eq!(bench.known(&key).await, None);
    assert_eq!(bench.page(&key, ReadFrom::Start, 1, 1).await, None);
    assert_eq!(bench.listed().await, []);
}

fn limited(request: Open) -> Open {
    Open { limit: Some(2), ..request }
}

/// The limit counts the owner's active streams. Ended and interrupted streams do not count, nor those of other owners.
pub async fn a_limit_counts_active_streams(store: impl Store) {
    let bench = Bench::new(store);
    let a = epoch_of(&bench.ask(limited(bench.request("a"))).await);
    let b = epoch_of(&bench.ask(limited(bench.request("b"))).await);
    assert_eq!(bench.ask(limited(bench.request("c"))).await, Opened::OverLimit);
    assert_eq!(bench.known(&bench.key("c")).await, None, "a refused stream leaves nothing");
    assert_eq!(bench.ask(limited(bench.request("a"))).await, Opened::Active { started: false }, "not a new one");
    let bob = bench.of("bob");
    epoch_of(&bob.ask(limited(bob.request("c"))).await);

    bench.stand_still(&bench.key("a"), a).await;
    epoch_of(&bench.ask(limited(bench.request("c"))).await);
    assert_eq!(bench.ask(limited(bench.request("a"))).await, Opened::OverLimit, "a second run counts too");
    bench.finish(&bench.key("b"), b).await;
    epoch_of(&bench.ask(limited(bench.request("a"))).await);
}

/// As many racing requests succeed as the owner's limit allows, and no more.
pub async fn of_racing_requests_exactly_the_limit_is_allowed(store: impl Store) {
    const LIMIT: usize = 7;
    let bench = Bench::new(store);
    let mut racing = JoinSet::new();
    for number in 0..40 {
        let bench = bench.clone();
        racing.spawn(async move {
            tokio::task::yield_now().await;
            bench.ask(Open { limit: Some(LIMIT), ..bench.request(&format!("race-{number}")) }).await
        });
    }
    let outcomes = racing.join_all().await;
    let opened = outcomes.iter().filter(|outcome| matches!(outcome, Opened::New { .. })).count();
    assert_eq!(opened, LIMIT);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Opened::New { .. } | Opened::OverLimit)));
}

/// Guarantee G4: one of all requests that race for a stream becomes the producer, and the others follow.
pub async fn of_ten_thousand_racing_requests_one_per_stream_produces(store: impl Store) {
    const STREAMS: usize = 1000;
    const TASKS: usize = 10;
    let bench = Bench::new(store);
    let mut racing = JoinSet::new();
    for task in 0..TASKS {
        let bench = bench.on(&format!("node-{task}"));
        racing.spawn(async move {
            let mut won = Vec::new();
            for number in 0..STREAMS {
                // Each task starts at another stream, so that each of them wins some.
                let stream = (number + task * STREAMS / TASKS) % STREAMS;
                match bench.ask(bench.request(&format!("race-{stream}"))).await {
                    Opened::New { .. } => won.push(stream),
                    Opened::Active { .. } => {}
                    other => panic!("neither opened nor active: {other:?}"),
                }
                if number % 16 == 0 {
                    tokio::time::sleep(Duration::from_micros(1)).await;
                }
            }
            won
        });
    }
    let mut won: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    assert!(won.iter().copied().eq(0..STREAMS), "{} runs of {STREAMS} streams", won.len());
    assert_eq!(bench.active_count().await.expect("the store answers"), STREAMS as u64);
}
