//! The progress of a turn of this process.

use std::time::Duration;

use crate::{
    Overlap, Owner, StreamId, StreamKey, Turn,
    recorder::Begun,
    runtime::sync::lock,
    store::{Place, Pointer},
};

fn id(id: &str) -> StreamId {
    StreamId::new(id).expect("valid")
}

/// Creates the turn of the stream `s`.
fn turn(runs_again: bool) -> std::sync::Arc<Begun> {
    let turn = Turn { conversation: id("chat"), overlap: Overlap::Replace };
    Begun::new(&StreamKey::new(Owner::ANONYMOUS, id("s")), 5, turn, runs_again)
}

/// Creates a pointer to the first of these streams, with the others behind it.
fn pointer(streams: &[&str]) -> Pointer {
    Pointer { behind: streams[1..].iter().map(|behind| id(behind)).collect(), ..Pointer::new(id(streams[0]), 5) }
}

#[test]
fn a_turn_waits_for_its_pointer_or_begins_without_it() {
    let begun = turn(false);
    assert!(!begun.waits());
    lock(&begun.progress).waits = true;
    assert!(begun.waits() && !begun.is_to_point());
    begun.begins_anyway();
    assert!(!begun.waits() && begun.is_to_point());
    lock(&begun.progress).waits = true;
    begun.pointed(&id("s"), &pointer(&["s"]));
    assert!(!begun.waits() && !begun.is_to_point());
}

#[test]
fn a_turn_is_under_way_until_it_has_started_and_the_earlier_ones_are_stopped() {
    let begun = turn(false);
    begun.pointed(&id("s"), &pointer(&["s", "before"]));
    assert!(begun.is_under_way() && !begun.is_to_finish());
    lock(&begun.progress).started = true;
    assert!(begun.is_under_way() && begun.is_to_finish());
    lock(&begun.progress).behind.clear();
    assert!(!begun.is_under_way() && !begun.is_to_finish());
}

#[test]
fn one_task_at_a_time_moves_a_pointer() {
    let begun = turn(false);
    assert!(begun.begins_moving());
    assert!(!begun.begins_moving());
    begun.ends_moving();
    assert!(begun.begins_moving());
    begun.ends_moving();
    begun.pointed(&id("s"), &pointer(&["s"]));
    assert!(!begun.begins_moving());
}

#[test]
fn a_move_without_an_answer_may_still_arrive() {
    let begun = turn(false);
    assert!(!begun.is_unanswered());
    lock(&begun.progress).unanswered = true;
    assert!(begun.is_unanswered());
}

#[tokio::test(start_paused = true)]
async fn a_pointer_is_renewed_at_its_interval_and_always_while_another_stream_is_named() {
    let every = Duration::from_secs(10);
    let begun = turn(false);
    tokio::time::advance(every).await;
    assert!(!begun.is_due(every), "it does not name the stream yet");
    begun.pointed(&id("s"), &pointer(&["s"]));
    assert!(begun.is_due(every));
    assert!(!begun.take_renewed(&id("s"), Some(&pointer(&["s", "before"]))));
    tokio::time::advance(every - Duration::from_millis(1)).await;
    assert!(!begun.is_due(every));
    assert!(begun.take_renewed(&id("s"), Some(&pointer(&["newer", "s"]))));
    assert!(begun.is_due(every));
    assert!(!begun.take_renewed(&id("s"), Some(&pointer(&["s"]))));
    assert!(!begun.is_due(every));
    tokio::time::advance(every).await;
    assert!(!begun.take_renewed(&id("s"), None), "the store says nothing");
    assert!(!begun.is_due(every));
}

/// A stream that is run again may not have been the newest of its conversation.
#[tokio::test(start_paused = true)]
async fn only_the_first_run_of_a_turn_is_put_back_in_its_pointer() {
    let (first, again) = (turn(false), turn(true));
    assert!(first.is_to_point() && !again.is_to_point());
    for begun in [&first, &again] {
        begun.pointed(&id("s"), &pointer(&["s"]));
        assert!(!begun.take_renewed(&id("s"), Some(&pointer(&["newer"]))));
        assert!(!begun.is_due(Duration::ZERO));
    }
    assert!(first.is_to_point() && !again.is_to_point());
    assert_eq!(again.put_back(), None);
    assert_eq!(
        first.put_back(),
        Some(Place { epoch: 5, since: Duration::from_millis(1) }),
        "zero would mean the newest"
    );
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(first.put_back(), Some(Place { epoch: 5, since: Duration::from_secs(3) }));
}
