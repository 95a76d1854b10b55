//! What is remembered of leases.

use std::{collections::HashSet, time::Duration};

use super::{
    held::{Listed, TURNS},
    number::{is_one, number, renewed_for},
    table::{Expected, Leases},
};
use crate::{model::id::NodeId, runtime::sync::lock, store::redis::clock::LONGEST};

const STALE: Duration = Duration::from_secs(30);
const ROUND: Duration = Duration::from_secs(10);

fn listed(hashes: impl IntoIterator<Item = u64>) -> Vec<Listed> {
    hashes.into_iter().map(|hash| Listed { hash, epoch: 1, slot: 0, part: 0 }).collect()
}

/// A beat that a server acknowledges: which streams it named.
fn beat(leases: &Leases, node: &NodeId, streams: &[Listed]) -> Vec<u64> {
    let newest = leases.renew(node, STALE, streams).newest;
    let mut naming = leases.name(node, newest, streams, |_| false);
    let named: Vec<Listed> = naming.named.iter().map(|index| streams[*index]).collect();
    naming.put(named.iter().copied());
    naming.answered();
    named.iter().map(|stream| stream.hash).collect()
}

fn expected(leases: &Leases, node: &NodeId, streams: &[Listed]) -> Vec<Expected> {
    leases.renew(node, STALE, streams).parts.remove(&0).unwrap_or_default()
}

#[test]
fn a_number_says_for_how_long_it_is_renewed() {
    for stale in [1, 2, 3, 1000, 30_000, 1 << 45, LONGEST] {
        for random in [0, 1, u64::MAX] {
            let lease = number(stale, random);
            assert!(is_one(lease) && (stale..2 * stale.max(2)).contains(&renewed_for(lease)), "{stale}");
            assert_eq!(lease as f64 as u64, lease, "it is exact in a score");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_stream_is_named_when_it_is_new_and_then_in_its_turn() {
    let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..1600));
    assert_eq!(beat(&leases, &node, &streams).len(), 1600);
    assert_eq!(beat(&leases, &node, &streams), [0; 0], "not twice in a round");
    for round in 0..3 * TURNS {
        tokio::time::advance(ROUND).await;
        assert_eq!(beat(&leases, &node, &streams).len(), 100, "round {round}");
        let expected = expected(&leases, &node, &streams);
        assert_eq!(expected.iter().map(|expected| expected.streams).sum::<usize>(), 1600);
        assert!(expected.len() as u64 <= TURNS + 1);
    }
    tokio::time::advance(ROUND * TURNS as u32).await;
    assert_eq!(beat(&leases, &node, &streams).len(), 1600, "after a pause in which all turns passed");
}

#[tokio::test(start_paused = true)]
async fn what_a_server_has_not_acknowledged_is_named_again_under_another_lease() {
    let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
    let first = leases.renew(&node, STALE, &streams).newest;
    drop(leases.name(&node, first, &streams, |_| false));
    let second = leases.renew(&node, STALE, &streams).newest;
    assert_ne!(first, second);
    let mut naming = leases.name(&node, second, &streams, |_| false);
    naming.put(streams[..3].iter().copied());
    naming.answered();
    drop(naming);
    assert_eq!(expected(&leases, &node, &streams), [Expected { lease: second, streams: 3 }]);
    assert_eq!(beat(&leases, &node, &streams), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_where_it_should_be_is_a_suspect_once() {
    let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
    beat(&leases, &node, &streams);
    let lease = leases.renew(&node, STALE, &streams).newest;
    leases.retain(&node, 0, lease, &HashSet::from([0, 1, 3, 9]));
    assert_eq!(leases.count(&node, 0, lease), 3);
    let mut naming = leases.name(&node, lease, &streams, |_| false);
    assert_eq!((&naming.named[..], &naming.suspects[..]), (&[2][..], &[2][..]));
    naming.answered();
    drop(naming);
    assert_eq!(leases.name(&node, lease, &streams, |_| false).suspects, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_streams_that_are_listed_no_more_is_not_renewed_for_long() {
    let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..160));
    beat(&leases, &node, &streams);
    let first = expected(&leases, &node, &streams)[0].lease;
    let kept = &streams[..80];
    for round in 0..=TURNS {
        tokio::time::advance(ROUND).await;
        beat(&leases, &node, kept);
        let renews = expected(&leases, &node, kept).iter().any(|expected| expected.lease == first);
        assert_eq!(renews, round + 1 < TURNS, "round {round}");
    }
    assert!(lock(&leases.nodes)[&node].streams.len() <= 80, "nothing is kept of those");
}

#[tokio::test(start_paused = true)]
async fn another_run_or_another_node_is_another_matter() {
    let (leases, node, streams) = (Leases::default(), NodeId::new("a"), listed(0..4));
    beat(&leases, &node, &streams);
    let run: Vec<Listed> = streams.iter().map(|stream| Listed { epoch: 2, ..*stream }).collect();
    assert_eq!(beat(&leases, &node, &run).len(), 4);
    assert_eq!(beat(&leases, &NodeId::new("b"), &streams).len(), 4);
    leases.forget_all(&node);
    assert_eq!(beat(&leases, &node, &run).len(), 4);
}
