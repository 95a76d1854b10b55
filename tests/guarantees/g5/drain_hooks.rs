//! G3, G8: the `on_end` hooks of a process that drains. They run, failed ones again, and the report counts the others.

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use resilient_sse::{
    Builder, Event, MemoryStore, Owner, StreamId, StreamSpec,
    test_util::{FaultStore, TestHub},
};
use tokio::time::Instant;

use super::drain_limits::{MILLI, SECOND, drain, drain_alone, hub, open};
use crate::support::bodies::{Client, Step, Watch, app, numbers, request, send, then};

#[tokio::test(start_paused = true)]
async fn g3_a_drain_waits_for_the_hooks_of_what_ended_here() {
    for batched in [false, true] {
        let saved = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&saved);
        let mut hub = hub(batched, |builder| {
            builder.on_end(move |_| {
                let counted = Arc::clone(&counted);
                async move {
                    tokio::time::sleep(MILLI * 700).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let watch = Watch::default();
        // One stream ends by itself five seconds into the drain, one has just ended, and one is cut short.
        let soon =
            app(hub.sse.generation().id(StreamId::path("/s/{id}")), &watch, then(numbers(1), Step::Sleep(SECOND * 5)));
        let never = app(hub.sse.generation().id(StreamId::path("/n/{id}")), &watch, then(numbers(1), Step::Hang));
        let job = open(&hub, "done").await;
        let mut clients = [
            Client::new(send(&soon, request("/s/a")).await.into_body()),
            Client::new(send(&never, request("/n/b")).await.into_body()),
        ];
        clients.iter_mut().for_each(Client::drain);
        hub.advance(SECOND).await;
        let ending = tokio::spawn(job.complete(Event::new("done")));
        hub.step().await;
        let (report, took) = drain(&mut hub, &mut clients).await;
        assert!(took <= SECOND * 25, "{took:?}");
        assert_eq!(saved.load(Ordering::SeqCst), 3, "batched {batched}: {report:?}");
        assert_eq!((report.closed, report.hooks_unfinished, report.unsettled), (1, 0, 0), "{report:?}");
        assert!(ending.await.unwrap().is_ok());
        for client in &mut clients {
            client.finish(&mut hub).await;
        }
        assert_eq!(clients[0].names().last(), Some(&"completed"), "it was served on");
        assert_eq!(clients[1].names().last(), Some(&"failed"), "and this one told");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_drain_says_how_many_hooks_have_not_run() {
    let mut hub = hub(false, |builder| builder.drain_limit(SECOND * 10).on_end(|_| pending::<()>()));
    for n in 0..20 {
        open(&hub, &n.to_string()).await.complete(Event::new("done")).await.unwrap();
    }
    let (report, took) = drain_alone(&mut hub).await;
    assert_eq!((report.hooks_unfinished, took), (20, SECOND * 10), "{report:?}");
}

/// A hook that fails while the process shuts down is run again, since no later sweep of the process does it.
#[tokio::test(start_paused = true)]
async fn g3_a_hook_that_fails_is_run_again_before_the_process_is_gone() {
    // The hook fails once before the drain, once in it, or always. A sweep would run it again after 75 s.
    for (before, fails, runs, unfinished) in [(true, 1, 2, 0), (false, 1, 2, 0), (true, 99, 6, 1), (false, 99, 5, 1)] {
        for how in ["returns an error", "panics"] {
            let tried = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&tried);
            let mut hub = hub(false, |builder| {
                builder.on_end(move |_| {
                    let failed = counted.fetch_add(1, Ordering::SeqCst) < fails;
                    async move {
                        assert!(!failed || how != "panics", "the hook panics");
                        if failed { Err(std::io::Error::other("the database is away")) } else { Ok(()) }
                    }
                })
            });
            let job = open(&hub, "a").await;
            if before {
                job.complete(Event::new("done")).await.unwrap();
                hub.advance(SECOND).await;
                assert_eq!(tried.load(Ordering::SeqCst), 1);
            } else {
                drop(job);
            }
            let (report, took) = drain_alone(&mut hub).await;
            let case = format!("before {before}, fails {fails}, {how}: {report:?}");
            assert_eq!(tried.load(Ordering::SeqCst), runs, "{case}");
            assert_eq!(report.hooks_unfinished, unfinished, "{case}");
            assert!(took < SECOND * 5, "a hook that always fails does not hold the process up: {took:?}, {case}");
        }
    }
}

/// A hook whose lease is over has been left to the sweeps of other nodes, which may have run it.
#[tokio::test(start_paused = true)]
async fn g3_a_hook_that_failed_long_ago_is_left_to_other_nodes() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let failing = move |builder: Builder| {
        builder.anonymous().sweep_every(SECOND * 3000).on_end(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            ready(Err::<(), _>(std::io::Error::other("the database is away")))
        })
    };
    let mut hub = TestHub::on(store.clone(), failing).unwrap();
    let runs = |builder: Builder| builder.anonymous().seed(2).sweep_every(SECOND * 5).on_end(|_| ready(()));
    let mut other = TestHub::on(store, runs).unwrap();
    open(&hub, "a").await.complete(Event::new("done")).await.unwrap();
    hub.step().await;
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    other.advance(SECOND * 45).await;
    let (report, _) = drain_alone(&mut hub).await;
    assert_eq!((report.hooks_unfinished, tried.load(Ordering::SeqCst)), (0, 1), "{report:?}");
}

/// When the lease of a failed hook is over and no sweep has come since, the node asks the store for it.
#[tokio::test(start_paused = true)]
async fn g3_a_failed_hook_is_run_again_whenever_the_drain_comes() {
    for drain_at in [20, 35, 45, 55] {
        let tried = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tried);
        let mut hub = hub(false, |builder| {
            builder.on_end(move |_| {
                let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
                ready(if first { Err(std::io::Error::other("the database is away")) } else { Ok(()) })
            })
        });
        let began = Instant::now();
        hub.advance(SECOND * 2).await;
        open(&hub, "a").await.complete(Event::new("done")).await.unwrap();
        while began.elapsed() < SECOND * drain_at {
            hub.advance(SECOND).await;
        }
        let (report, _) = drain_alone(&mut hub).await;
        assert_eq!((tried.load(Ordering::SeqCst), report.hooks_unfinished), (2, 0), "drain at {drain_at} s");
    }
}

/// A hook that runs longer than its lease is leased to this node again by a sweep, and belongs to it until then.
#[tokio::test(start_paused = true)]
async fn g3_a_hook_that_was_leased_again_while_it_ran_belongs_to_this_node() {
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let mut hub = hub(false, |builder| {
        builder.hook_limit(SECOND * 60).sweep_every(SECOND * 5).on_end(move |_| {
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    tokio::time::sleep(SECOND * 40).await;
                    return Err(std::io::Error::other("the database is away"));
                }
                Ok(())
            }
        })
    });
    let began = Instant::now();
    open(&hub, "a").await.complete(Event::new("done")).await.unwrap();
    while began.elapsed() < SECOND * 43 {
        hub.advance(SECOND).await;
    }
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    let (report, _) = drain_alone(&mut hub).await;
    assert_eq!((tried.load(Ordering::SeqCst), report.hooks_unfinished), (2, 0), "{report:?}");
}

/// Hooks that fail again and again take no place from the others: the pause between two tries occupies none.
#[tokio::test(start_paused = true)]
async fn g8_hooks_that_fail_in_a_drain_do_not_hold_up_healthy_ones() {
    for failing in [1, 16, 40] {
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let mut hub = hub(false, |builder| {
            builder.on_end(move |ended| {
                let is_healthy = ended.key().id.as_str() == "good";
                counted.fetch_add(usize::from(is_healthy), Ordering::SeqCst);
                ready(if is_healthy { Ok(()) } else { Err(std::io::Error::other("bad data")) })
            })
        });
        let mut jobs = Vec::new();
        for n in 0..failing {
            jobs.push(open(&hub, &format!("bad{n}")).await);
        }
        let good = StreamSpec::new(Owner::new("zoe").unwrap(), StreamId::new("good").unwrap());
        jobs.push(hub.sse.publisher().open(good).await.unwrap());
        hub.advance(SECOND).await;
        let (report, _) = drain_alone(&mut hub).await;
        assert_eq!((ran.load(Ordering::SeqCst), report.hooks_unfinished), (1, failing), "{report:?}");
    }
}

/// A hook is not tried again after the node's lease of it, when another node may have run it.
#[tokio::test(start_paused = true)]
async fn g3_no_hook_is_tried_again_after_another_node_has_acknowledged_it() {
    let store = FaultStore::new(MemoryStore::starting_at(1_700_000_000_000));
    let (tried, acknowledged) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (ours, theirs) = (Arc::clone(&tried), Arc::clone(&acknowledged));
    let fails = move |builder: Builder| {
        builder.anonymous().sweep_every(SECOND * 3000).on_end(move |_| {
            ours.fetch_add(1, Ordering::SeqCst);
            ready(Err::<(), _>(std::io::Error::other("the database is away")))
        })
    };
    let runs = move |builder: Builder| {
        builder.anonymous().seed(2).sweep_every(MILLI * 100).on_end(move |_| {
            theirs.fetch_add(1, Ordering::SeqCst);
            ready(())
        })
    };
    let mut hub = TestHub::on(store.clone(), fails).unwrap();
    let mut other = TestHub::on(store, runs).unwrap();
    let began = Instant::now();
    open(&hub, "a").await.complete(Event::new("done")).await.unwrap();
    hub.step().await;
    while began.elapsed() < MILLI * 29_000 {
        other.advance(MILLI * 100).await;
    }
    hub.shut_down_on(ready(()));
    let mut tried_before = 0;
    while hub.report().is_none() {
        hub.step().await;
        other.step().await;
        if acknowledged.load(Ordering::SeqCst) == 0 {
            tried_before = tried.load(Ordering::SeqCst);
        }
        tokio::time::advance(MILLI * 10).await;
    }
    assert_eq!(acknowledged.load(Ordering::SeqCst), 1, "the other node has run it");
    assert!(tried_before > 1, "the drain has tried it again before");
    assert_eq!(tried.load(Ordering::SeqCst), tried_before, "and not after that");
}
