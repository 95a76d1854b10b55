//! Checks of registering a running producer again in a store that forgot it.

use super::bench::{Bench, append, close, epoch_of, interrupt, reopen};
use crate::{
    model::{
        id::EventId,
        stream::{RecordKind, StreamState},
    },
    store::{Appended, Closed, Fence, Interrupted, Open, Opened, Reopen, Reopened, Store},
};

/// The producer keeps its epoch and goes on after the last event that the store had acknowledged. Readers see the gap.
pub async fn a_forgotten_stream_is_registered_again(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("forgotten");
    let key = request.key.clone();
    let epoch = bench.begin_forgotten(request.clone()).await;
    let metadata = vec![("job".to_owned(), "7".to_owned())];
    let request = Open { metadata: metadata.clone(), ..request };
    let registered = bench.reopen(reopen(request, epoch, 3)).await.expect("the store answers");
    assert_eq!(registered, Reopened::Registered);
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.epoch, info.started), (StreamState::Active, epoch, true));
    assert_eq!((info.metadata, info.node), (metadata, Some(bench.node.clone())));
    assert_eq!(bench.listed().await.len(), 1);
    bench.write(&key, epoch, 4, &["d"]).await;
    let page = bench.after(&key, EventId::new(epoch, 2)).await;
    assert!(page.known, "the stream had that run");
    assert_eq!(page.records.iter().map(|record| record.id.seq).collect::<Vec<_>>(), [4], "the third is missing");
    let lost = bench.heartbeat(&[(key, epoch)], super::bench::LONG).await.lost;
    assert!(lost.is_empty(), "{lost:?}");
}

/// A stream that had not started when the store forgot it has not started once it is registered again, unless the store
/// had acknowledged events of it.
pub async fn a_producer_that_had_not_begun_may_still_withdraw(store: impl Store) {
    let bench = Bench::new(store);
    for (id, acknowledged, started) in [("waits", 0, false), ("made", 3, true)] {
        let request = bench.request(id);
        let key = request.key.clone();
        let epoch = bench.begin_forgotten(request.clone()).await;
        let again = Reopen { open: request.clone(), ..reopen(request.clone(), epoch, acknowledged) };
        assert_eq!(bench.reopen(again).await.expect("the store answers"), Reopened::Registered);
        assert_eq!(bench.info_of(&key).await.started, started, "{id}");
        bench.withdraw(key.clone(), request.token).await.expect("the store answers");
        assert_eq!(bench.known(&key).await.is_some(), started, "{id}");
    }
}

/// Registering a stream again restores the last id and the reconnect delay of the inner service.
pub async fn the_inner_id_comes_back(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("forgotten");
    let key = request.key.clone();
    let epoch = bench.begin_forgotten(request.clone()).await;
    let again = Reopen { inner_id: Some("row-7".to_owned()), inner_retry: Some(7), ..reopen(request, epoch, 3) };
    assert_eq!(bench.reopen(again).await.expect("the store answers"), Reopened::Registered);
    let info = bench.info_of(&key).await;
    assert_eq!((info.inner_id.as_deref(), info.inner_retry), (Some("row-7"), Some(7)));
    bench.stand_still(&key, epoch).await;
    let Opened::New { inner_id, .. } = bench.ask(bench.request("forgotten")).await else { panic!("not the caller's") };
    assert_eq!(inner_id.as_deref(), Some("row-7"));
}

/// Guarantee G1: an end or an interruption has the last event id that the store had acknowledged before it forgot the
/// stream, even if the caller does not name one.
pub async fn what_was_lost_is_known_at_the_end(store: impl Store) {
    let bench = Bench::new(store);
    let mut keys = Vec::new();
    for id in ["ends", "stands"] {
        let request = bench.request(id);
        let epoch = bench.begin_forgotten(request.clone()).await;
        bench.reopen(reopen(request, epoch, 3)).await.expect("the store answers");
        assert_eq!(bench.info_of(&bench.key(id)).await.top, EventId::new(epoch, 3));
        keys.push((bench.key(id), epoch));
    }
    let [(ends, epoch), (stands, first)] = &keys[..] else { panic!("two streams") };
    assert_eq!(bench.finish(ends, *epoch).await.last, EventId::new(*epoch, 3));
    bench.stand_still(stands, *first).await;
    let Opened::New { previous, .. } = bench.ask(bench.request("stands")).await else { panic!("not the caller's") };
    assert_eq!(previous, Some(EventId::new(*first, 3)));
}

/// A producer that repeats the request, or that was not forgotten at all, is registered.
pub async fn a_repeat_is_registered(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("there");
    let key = request.key.clone();
    let epoch = epoch_of(&bench.ask(request.clone()).await);
    bench.write(&key, epoch, 1, &["a"]).await;
    for _ in 0..2 {
        let again = bench.reopen(reopen(request.clone(), epoch, 1)).await.expect("the store answers");
        assert_eq!(again, Reopened::Registered);
    }
    assert_eq!(bench.held(&key).await, ["r", "a"]);
}

/// A newer run is registered again over an older run, and its readers see the gap. A failover may lose the registration
/// of the newer run and keep the older run.
pub async fn a_run_that_was_lost_is_registered_over_an_older_one(store: impl Store) {
    let bench = Bench::new(store);
    let (key, old) = bench.begin("again").await;
    bench.write(&key, old, 1, &["a", "b"]).await;
    bench.stand_still(&key, old).await;
    let before = bench.info_of(&key).await;
    let run = old + 5;
    assert_eq!(bench.put(append(&key, run, 4, &["d"])).await, Appended::Gone);
    assert_eq!(bench.end(close(&key, Some(run))).await, Closed::Missing);
    let missing = bench.interrupt(interrupt(&key, run)).await.expect("the store answers");
    assert_eq!(missing, Interrupted::Missing);
    assert_eq!(bench.info_of(&key).await, before, "nothing has changed");

    let request = bench.on("node-2").request("again");
    for _ in 0..2 {
        let again = bench.reopen(reopen(request.clone(), run, 3)).await.expect("the store answers");
        assert_eq!(again, Reopened::Registered);
    }
    let info = bench.info_of(&key).await;
    assert_eq!((info.state, info.epoch, info.started), (StreamState::Active, run, true));
    assert_eq!((info.node, info.previous), (Some(request.node), Some(EventId::new(old, 2))));
    bench.write(&key, run, 4, &["d"]).await;
    let page = bench.after(&key, EventId::new(old, 1)).await;
    let of_runs: Vec<_> = page.records.iter().map(|record| record.id).collect();
    assert_eq!(of_runs, [EventId::new(old, 2), EventId::new(run, 0), EventId::new(run, 4)]);
    assert_eq!(page.records[1].kind, RecordKind::Run { previous: None }, "nobody knows how far the run before came");
    let fenced = bench.put(append(&key, old, 3, &["c"])).await;
    assert_eq!(fenced, Appended::Fenced(Fence::Newer));
    assert_eq!(bench.heartbeat(&[(key.clone(), run)], super::bench::LONG).await.lost, [0; 0]);
    assert_eq!(bench.listed().await.len(), 1);
    assert_eq!(bench.finish(&key, run).await.last, EventId::new(run, 4));
}

/// A run that is registered again over an older run has started if the store had acknowledged events of it.
pub async fn a_run_over_an_older_one_has_started_if_it_made_something(store: impl Store) {
    let bench = Bench::new(store);
    for (id, acknowledged, started) in [("waits", 0, false), ("made", 1, true)] {
        let (key, old) = bench.begin(id).await;
        bench.start(&key, old).await;
        bench.stand_still(&key, old).await;
        let request = bench.request(id);
        let again = Reopen { open: request.clone(), ..reopen(request, old + 5, acknowledged) };
        assert_eq!(bench.reopen(again).await.expect("the store answers"), Reopened::Registered);
        assert_eq!(bench.info_of(&key).await.started, started, "{id}");
    }
}

/// A newer run that is registered again replaces an older run that had ended, and nothing of the older run is left. The
/// older run must have been deleted or have expired when the newer one began.
pub async fn a_run_that_was_lost_replaces_one_that_had_ended(store: impl Store) {
    let bench = Bench::new(store);
    for (id, deleted) in [("ended", false), ("deleted", true)] {
        let (key, old) = bench.begin(id).await;
        bench.write(&key, old, 1, &["a"]).await;
        bench.finish(&key, old).await;
        if deleted {
            bench.delete(key.clone()).await.expect("the store answers");
        }
        let run = old + 5;
        assert_eq!(bench.put(append(&key, run, 2, &["b"])).await, Appended::Gone, "{id}");
        assert_eq!(bench.end(close(&key, Some(run))).await, Closed::Missing, "{id}");
        let again = bench.reopen(reopen(bench.request(id), run, 1)).await.expect("the store answers");
        assert_eq!(again, Reopened::Registered, "{id}");
        bench.write(&key, run, 2, &["b"]).await;
        assert_eq!(bench.held(&key).await, ["r", "b"], "{id}");
        let info = bench.info_of(&key).await;
        assert_eq!((info.state, info.epoch, info.ended), (StreamState::Active, run, None), "{id}");
        assert_eq!(bench.finish(&key, run).await.id, EventId::terminal(run), "{id}");
    }
}

/// A producer is fenced if a newer run has begun meanwhile, or the stream was interrupted or has ended.
pub async fn a_newer_run_fences(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("taken");
    let key = request.key.clone();
    let old = bench.begin_forgotten(request.clone()).await;
    let other = bench.on("node-2");
    let (_, new) = other.begin("taken").await;
    let late = bench.reopen(reopen(request.clone(), old, 0)).await.expect("the store answers");
    assert_eq!(late, Reopened::Fenced(Fence::Newer));
    assert_eq!(bench.info_of(&key).await.epoch, new);

    bench.stand_still(&key, new).await;
    let late = bench.reopen(reopen(request, new, 0)).await.expect("the store answers");
    assert_eq!(late, Reopened::Fenced(Fence::Newer), "interrupted, by whom ever");
    let (_, newest) = other.begin("taken").await;
    let ended = bench.finish(&key, newest).await;
    let late = bench.reopen(reopen(other.request("taken"), newest, 0)).await.expect("the store answers");
    assert_eq!(late, Reopened::Fenced(Fence::Ended(ended)));
}
