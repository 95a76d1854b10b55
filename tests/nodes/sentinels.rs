//! Nodes on a Redis behind Sentinels.

use crate::{
    clusters::{Traffic, heals, records},
    node, sum,
    support::{example::eventually, redis::Sentinels},
};

/// G1, G5, G7: the master changes while streams run. Live streams are not affected, others have at most a gap, and no
/// stream is taken for an orphan.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g7_streams_run_while_sentinels_fail_over() {
    runs_while("failover", |sentinels| {
        sentinels.failover();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g7_streams_run_while_sentinels_replace_a_dead_master() {
    runs_while("death", |sentinels| {
        sentinels.kill_master();
        sentinels.wait_promoted();
    })
    .await;
}

async fn runs_while(what: &str, fails: impl FnOnce(&Sentinels)) {
    let sentinels = Sentinels::start();
    let [a, b] = [(); 2].map(|()| node(&sentinels.url(), &["--stale", "2", "--sweep", "0.5"]));
    let nodes = [&a, &b];
    let traffic = Traffic::start(&a, &b, 6).await;
    records(&nodes, 100).await;
    fails(&sentinels);
    heals(&nodes, what).await;
    let gaps = traffic.stop(&b).await;
    eprintln!("{gaps} gaps, {} lost, {} store errors", sum(&nodes, "lost").await, sum(&nodes, "storeErrors").await);
    assert_eq!(sum(&nodes, "orphaned").await, 0);
    eventually(async || (sum(&nodes, "active").await == 0).then_some(())).await;
}

/// G1: a failover loses acknowledged events, and readers are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g1_a_tail_that_a_failover_loses_is_a_gap_at_most() {
    let sentinels = Sentinels::start();
    let [a, b] = [(); 2].map(|()| node(&sentinels.url(), &["--stale", "2", "--sweep", "0.5"]));
    let nodes = [&a, &b];
    let mut traffic = Traffic::start(&a, &b, 6).await;
    records(&nodes, 100).await;
    sentinels.detach_replica();
    // These events will be lost.
    records(&nodes, 200).await;
    sentinels.promote_with_lost_tail();
    heals(&nodes, "after-loss").await;
    // A client that has seen nothing of the tail can no longer get it.
    traffic.join(&a);
    traffic.join(&b);
    records(&nodes, 50).await;
    let gaps = traffic.stop(&b).await;
    eprintln!("{gaps} gaps, {} lost, {} store errors", sum(&nodes, "lost").await, sum(&nodes, "storeErrors").await);
    assert!(gaps >= 12, "told to each who came late");
    assert_eq!(sum(&nodes, "orphaned").await, 0);
}
