//! G3: the hook of every ended stream runs until it is acknowledged, few at a time, whichever node ended the stream.

use std::{
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use resilient_sse::{
    EndedStream, Event, MemoryStore, Owner, Publication, StreamId, StreamKey, StreamSpec, StreamState,
    test_util::{Fault, FaultStore, TestHub},
};

const SECOND: Duration = Duration::from_secs(1);

fn id(id: &str) -> StreamId {
    StreamId::new(id).unwrap()
}

async fn open(hub: &TestHub, owner: &str, name: &str) -> Publication {
    hub.sse.publisher().open(StreamSpec::new(Owner::new(owner).unwrap(), id(name))).await.unwrap()
}

fn key(owner: &str, name: &str) -> StreamKey {
    StreamKey::new(Owner::new(owner).unwrap(), id(name))
}

/// Counts how many hooks run at the same time.
#[derive(Clone, Debug, Default)]
struct Count(Arc<(AtomicUsize, AtomicUsize, AtomicUsize)>);

struct One(Count);

impl Count {
    fn enter(&self) -> One {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        self.0.2.fetch_add(1, Ordering::SeqCst);
        One(self.clone())
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn all(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_hook_that_fails_panics_or_hangs_is_run_again_within_any_recovery_window() {
    for window in [2, 10, 30, 300] {
        for how in 0..3 {
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&calls);
            let hook = move |_: EndedStream| {
                let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
                assert!(!(first && how == 1), "told to panic");
                async move {
                    match how {
                        0 if first => Err("the database is away"),
                        2 if first => pending().await,
                        _ => Ok(()),
                    }
                }
            };
            let mut hub = TestHub::with(|builder| {
                builder.anonymous().recovery_window(SECOND * window).hook_limit(SECOND).on_end(hook)
            })
            .unwrap();
            let job = open(&hub, "a", "a").await;
            // Not in step with the sweeps.
            hub.advance(Duration::from_millis(700)).await;
            job.complete(Event::new("done")).await.unwrap();
            hub.advance(SECOND * (window + 60)).await;
            assert_eq!(calls.load(Ordering::SeqCst), 2, "window {window}, {how}");
            assert_eq!(hub.sse.health().hooks_failed, 1);
        }
    }
}

/// The node that ended a stream dies before its hook has run. Another node runs it within the window.
#[tokio::test(start_paused = true)]
async fn g3_the_hook_of_a_node_that_dies_is_run_by_another_within_any_recovery_window() {
    for window in [10, 30, 300] {
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let dying = TestHub::on(store.clone(), |builder| {
            // Tasks that it spawns no longer run.
            builder.anonymous().recovery_window(SECOND * window).on_end(|_| pending::<()>()).executor(drop)
        })
        .unwrap();
        let mut other = TestHub::on(store, |builder| {
            builder.anonymous().recovery_window(SECOND * window).on_end(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                ready(())
            })
        })
        .unwrap();
        other.advance(Duration::from_millis(700)).await;
        open(&dying, "a", "a").await.complete(Event::new("done")).await.unwrap();
        drop(dying);
        other.advance(SECOND * (window + 60)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1, "window {window}");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_at_most_sixteen_hooks_run_at_a_time_each_of_them_once() {
    let running = Count::default();
    let counted = running.clone();
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().on_end(move |_| {
            let one = counted.enter();
            async move {
                tokio::time::sleep(SECOND * 20).await;
                drop(one);
            }
        })
    })
    .unwrap();
    let mut jobs = Vec::new();
    for n in 0..100 {
        jobs.push(open(&hub, "many", &n.to_string()).await);
    }
    for job in jobs {
        job.complete(Event::new("done")).await.unwrap();
    }
    hub.advance(SECOND * 290).await;
    assert_eq!((running.most(), running.all()), (16, 100));
}

#[tokio::test(start_paused = true)]
async fn g3_hooks_that_hang_are_no_more_than_sixteen_and_are_begun_anew() {
    let running = Count::default();
    let counted = running.clone();
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().on_end(move |_| {
            let one = counted.enter();
            async move {
                pending::<()>().await;
                drop(one);
            }
        })
    })
    .unwrap();
    for n in 0..200 {
        open(&hub, "many", &n.to_string()).await.complete(Event::new("done")).await.unwrap();
    }
    hub.advance(SECOND * 120).await;
    assert_eq!(running.most(), 16);
    assert!(running.all() >= 48, "each of them gives up its place after 30 s: {}", running.all());
    assert_eq!(hub.sse.health().hooks_failed, running.all() as u64 - 16);
}

#[tokio::test(start_paused = true)]
async fn g3_the_hooks_of_one_owner_do_not_hold_up_another_owner_s() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().on_end(move |stream| {
            seen.lock().unwrap().push(stream.key().clone());
            tokio::time::sleep(SECOND)
        })
    })
    .unwrap();
    let mut jobs = Vec::new();
    for n in 0..200 {
        jobs.push(open(&hub, "many", &n.to_string()).await);
    }
    jobs.push(open(&hub, "one", "a").await);
    for job in jobs {
        job.complete(Event::new("done")).await.unwrap();
    }
    hub.advance(SECOND * 2).await;
    let place = order.lock().unwrap().iter().position(|seen| *seen == key("one", "a")).expect("it has had its turn");
    assert!(place <= 17, "{place}");
}

#[tokio::test(start_paused = true)]
async fn g3_the_hook_of_an_end_whose_acknowledgement_was_lost_runs_at_once() {
    for batched in [false, true] {
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let store = if batched { store.batched() } else { store };
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let mut hub = TestHub::on(store, |builder| {
            builder.anonymous().on_end(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                ready(())
            })
        })
        .unwrap();
        let job = open(&hub, "a", "a").await;
        hub.advance(SECOND).await;
        hub.store.fail_on("close", Fault::LoseReply);
        let ending = tokio::spawn(job.complete(Event::new("done")));
        hub.advance(SECOND * 2).await;
        assert_eq!(ending.await.unwrap().unwrap().ending.state, StreamState::Completed);
        assert_eq!(calls.load(Ordering::SeqCst), 1, "batched {batched}");
        assert_eq!(hub.sse.health().ended["completed"], 1);
        hub.store.heal();
        hub.advance(SECOND * 120).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1, "and once");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_the_hook_of_a_stream_that_is_deleted_runs_with_its_data_still_there() {
    for running in [false, true] {
        let saved = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&saved);
        let mut hub = TestHub::with(|builder| {
            builder.anonymous().on_end(move |stream| {
                let seen = Arc::clone(&seen);
                async move {
                    tokio::time::sleep(SECOND).await;
                    let events = stream.events().await.expect("held");
                    seen.lock().unwrap().push((stream.ended().ending.state, events));
                }
            })
        })
        .unwrap();
        let mut job = open(&hub, "a", "a").await;
        job.send(Event::new("one")).await.unwrap();
        if !running {
            job.complete(Event::new("done")).await.unwrap();
        }
        hub.sse.registry().delete(&key("a", "a")).await.unwrap();
        let state = if running { StreamState::Cancelled } else { StreamState::Completed };
        assert_eq!(*saved.lock().unwrap(), [(state, vec!["one".to_owned()])]);
        assert_eq!(hub.sse.registry().stream(&key("a", "a")).await.unwrap(), None);
        hub.advance(SECOND * 120).await;
        assert_eq!(saved.lock().unwrap().len(), 1);
    }
}

/// A hook that has not run yet needs the stream, so a stream that may still run is not deleted.
#[tokio::test(start_paused = true)]
async fn g3_a_stream_whose_end_is_not_stored_is_not_deleted() {
    for (batched, refused, ends) in [
        (true, false, false),
        (true, true, false),
        (false, true, false),
        // The stream is ending by itself.
        (true, true, true),
        (false, true, true),
    ] {
        let case = format!("batched {batched}, refused {refused}, ends {ends}");
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
        let store = if batched { store.batched() } else { store };
        let mut hub = TestHub::on(store, |builder| {
            builder.anonymous().on_end(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                ready(())
            })
        })
        .unwrap();
        let mut job = open(&hub, "a", "a").await;
        job.send(Event::new("one")).await.unwrap();
        hub.advance(SECOND).await;
        if refused {
            hub.store.fail_on("close", Fault::Refuse);
        }
        if ends {
            drop(tokio::spawn(job.complete(Event::new("done"))));
            hub.step().await;
        }
        let sse = hub.sse.clone();
        let deleting = tokio::spawn(async move { sse.registry().delete(&key("a", "a")).await });
        tokio::task::yield_now().await;
        for _ in 0..30 {
            // If the store refuses nothing, the guardian is late.
            if refused {
                hub.step().await;
            }
            tokio::time::advance(SECOND / 10).await;
            tokio::task::yield_now().await;
        }
        let error = deleting.await.unwrap().expect_err(&case);
        assert!(error.is_timeout(), "{case}: {error}");
        hub.store.heal();
        hub.advance(SECOND * 5).await;
        let info = hub.sse.registry().stream(&key("a", "a")).await.unwrap().expect("held");
        let state = if ends { StreamState::Completed } else { StreamState::Cancelled };
        assert_eq!((info.state, calls.load(Ordering::SeqCst)), (state, 1), "{case}");
        hub.sse.registry().delete(&key("a", "a")).await.unwrap();
        assert_eq!(hub.sse.registry().stream(&key("a", "a")).await.unwrap(), None, "{case}");
        hub.advance(SECOND * 120).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{case}");
        drop(job);
    }
}

/// A hook that could not read its stream has not run.
#[tokio::test(start_paused = true)]
async fn g3_a_deletion_runs_its_hook_also_where_the_store_is_slow_for_a_moment() {
    for fault in [Fault::Refuse, Fault::Hang] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let mut hub = TestHub::with(|builder| {
            builder.anonymous().on_end(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                ready(())
            })
        })
        .unwrap();
        let _job = open(&hub, "a", "a").await;
        hub.advance(SECOND).await;
        hub.store.fail_on("info", fault);
        let sse = hub.sse.clone();
        let deleting = tokio::spawn(async move { sse.registry().delete(&key("a", "a")).await });
        hub.advance(SECOND).await;
        hub.store.heal();
        hub.advance(SECOND * 5).await;
        deleting.await.unwrap().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{fault:?}");
        assert_eq!(hub.sse.registry().stream(&key("a", "a")).await.unwrap(), None, "{fault:?}");
    }
}

/// A deletion runs its hook once, even while other hooks hang, and is not delayed for ever.
#[tokio::test(start_paused = true)]
async fn g3_a_deletion_is_not_held_up_by_hooks_that_fail_or_hang() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut hub = TestHub::with(|builder| {
        builder.anonymous().on_end(move |stream: EndedStream| {
            let failing = stream.key().id.as_str() == "deleted";
            counted.fetch_add(usize::from(failing), Ordering::SeqCst);
            async move { if failing { Err("no") } else { pending().await } }
        })
    })
    .unwrap();
    for n in 0..40 {
        open(&hub, "many", &n.to_string()).await.complete(Event::new("done")).await.unwrap();
    }
    let _job = open(&hub, "a", "deleted").await;
    let start = tokio::time::Instant::now();
    hub.sse.registry().delete(&key("a", "deleted")).await.unwrap();
    assert!(start.elapsed() <= SECOND * 31, "it is the next one: {:?}", start.elapsed());
    assert_eq!(hub.sse.registry().stream(&key("a", "deleted")).await.unwrap(), None);
    hub.advance(SECOND * 120).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// A hook is told which part of the log is missing.
async fn missing(
    events: usize,
    setup: impl FnOnce(resilient_sse::Builder) -> resilient_sse::Builder,
) -> (usize, Option<u64>) {
    let told = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&told);
    let mut hub = TestHub::with(|builder| {
        setup(builder.anonymous()).on_end(move |stream| {
            let seen = Arc::clone(&seen);
            async move {
                let answer = (stream.events().await.unwrap().len(), stream.missing().await.unwrap());
                *seen.lock().unwrap() = Some(answer);
            }
        })
    })
    .unwrap();
    let mut job = open(&hub, "a", "a").await;
    for n in 0..events {
        job.send(Event::new(n.to_string())).await.unwrap();
    }
    job.complete(Event::new("done")).await.unwrap();
    hub.advance(SECOND).await;
    let told = told.lock().unwrap().take();
    told.expect("it ran")
}

#[tokio::test(start_paused = true)]
async fn g1_a_hook_is_told_how_many_events_are_missing() {
    assert_eq!(missing(5, |builder| builder).await, (5, Some(0)));
    assert_eq!(missing(0, |builder| builder).await, (0, Some(0)));
    assert_eq!(missing(5000, |builder| builder).await, (5000, Some(0)), "many pages");
    assert_eq!(missing(250, |builder| builder.max_log_events(100)).await, (100, Some(150)));
}

#[tokio::test(start_paused = true)]
async fn g1_a_hook_is_told_of_what_was_lost_in_an_outage_and_with_a_store() {
    for forgets in [false, true] {
        let told = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&told);
        let mut hub = TestHub::with(|builder| {
            builder.anonymous().max_event_bytes(1000).recorder_bytes(1000).on_end(move |stream| {
                let seen = Arc::clone(&seen);
                async move {
                    *seen.lock().unwrap() =
                        Some((stream.events().await.unwrap().len(), stream.missing().await.unwrap()));
                }
            })
        })
        .unwrap();
        let mut job = open(&hub, "a", "a").await;
        job.send(Event::new("before")).await.unwrap();
        if forgets {
            hub.store.forget();
        } else {
            hub.store.fail(Fault::Refuse);
            for n in 0..300 {
                job.send(Event::new(n.to_string())).await.unwrap();
            }
            hub.store.heal();
        }
        hub.advance(SECOND * 15).await;
        job.send(Event::new("after")).await.unwrap();
        let ending = tokio::spawn(job.complete(Event::new("done")));
        hub.advance(SECOND * 15).await;
        ending.await.unwrap().unwrap();
        let (events, missing) = told.lock().unwrap().take().expect("it ran");
        let made = if forgets { 2 } else { 302 };
        assert!(events < made);
        assert_eq!(missing, Some((made - events) as u64), "forgets {forgets}: {events}");
    }
}
