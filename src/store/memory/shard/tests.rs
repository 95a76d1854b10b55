//! What a shard keeps of streams that are gone, and when it visits its streams.

use super::*;
use crate::store::{
    Interrupt,
    memory::tests::{key, open, publication},
};

/// The overdue time and the lifetime of the streams here, in milliseconds.
const STALE: u64 = 1000;
const LIFETIME: u64 = 60_000;

fn opened(shard: &mut Shard, id: &str, now: u64) {
    let mut open = open(id, 1);
    open.retention.stale = std::time::Duration::from_millis(STALE);
    assert!(matches!(shard.open(&open, false, now, &mut Woken::default()), Opened::New { .. }), "{id} is new");
}

/// Sweeps, and returns how many streams were due.
fn swept(shard: &mut Shard, now: u64) -> usize {
    let (due, gone, woken) = (Vec::new(), Vec::new(), Woken::default());
    let mut sweep = Sweep { now, lease: 1, limit: 10, claim: Some(now), due, gone, woken };
    shard.sweep(&mut sweep);
    sweep.due.len()
}

fn timers(shard: &Shard) -> Vec<u64> {
    shard.timers.iter().map(|(at, _)| *at).collect()
}

#[test]
fn the_epoch_of_a_removed_stream_is_kept_until_the_clock_has_passed_it() {
    let mut shard = Shard::default();
    for id in ["a", "b"] {
        opened(&mut shard, id, 100);
    }
    for id in ["a", "b"] {
        shard.remove(&key(id), 100, &mut Woken::default());
    }
    assert_eq!((shard.next_epoch(&key("a"), 100), shard.next_epoch(&key("b"), 100)), (101, 101));
    opened(&mut shard, "c", 101);
    shard.remove(&key("c"), 101, &mut Woken::default());
    assert_eq!(shard.removed.len(), 1, "the others' epochs have passed");
    assert_eq!(swept(&mut shard, 101), 0);
    assert_eq!(shard.removed.len(), 1);
    swept(&mut shard, 102);
    assert_eq!(shard.removed.len(), 0);
}

#[test]
fn the_tail_of_a_stream_that_is_gone_is_kept_for_its_holder_only() {
    let mut shard = Shard::default();
    opened(&mut shard, "a", 100);
    shard.remove(&key("a"), 100, &mut Woken::default());
    assert_eq!(shard.waiting.len(), 0, "nobody follows");
    let waits = shard.await_stream(&key("b")).tail();
    swept(&mut shard, 100);
    assert_eq!(shard.waiting.len(), 1, "it is still awaited");
    opened(&mut shard, "b", 100);
    assert_eq!(shard.waiting.len(), 0);
    shard.remove(&key("b"), 100, &mut Woken::default());
    assert_eq!(shard.waiting.len(), 1, "the holder of the tail waits for a new one");
    drop(waits);
    swept(&mut shard, 100);
    assert_eq!(shard.waiting.len(), 0);
}

/// A sweep costs O(streams due): it leaves the timers of the others as they are.
#[test]
fn a_sweep_visits_no_stream_before_its_time() {
    let mut shard = Shard::default();
    opened(&mut shard, "a", 100);
    assert_eq!(timers(&shard), [100 + STALE]);
    let entry = shard.held(&key("a"), 200).expect("held");
    entry.beat(200, STALE);
    assert_eq!((swept(&mut shard, 99 + STALE), timers(&shard)), (0, vec![100 + STALE]), "beats move no timers");
    assert_eq!((swept(&mut shard, 100 + STALE), timers(&shard)), (0, vec![200 + STALE]), "a visit does");

    let entry = shard.held(&key("a"), 200).expect("held");
    let interrupt = Interrupt { key: key("a"), epoch: 100, last: None, if_deadline: None };
    assert_eq!(entry.interrupt(&interrupt), crate::store::Interrupted::Done);
    assert_eq!(swept(&mut shard, 200 + STALE), 0);
    assert_eq!(timers(&shard), [200 + LIFETIME], "one that is interrupted has no deadline");
}

#[test]
fn a_published_stream_is_visited_at_the_end_of_its_lifetime() {
    let mut shard = Shard::default();
    let publish = publication();
    shard.insert(&key("a"), 100, &mut Woken::default(), |tail| Entry::published(&publish, 100, tail, 100));
    assert_eq!(timers(&shard), [100 + LIFETIME]);
}
