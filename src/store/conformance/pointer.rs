//! Checks of the pointers of conversations: how they move, go back and expire.

use std::time::Duration;

use super::{
    bench::{Bench, LONG, SOON, owner},
    pointer_bench::{brief, stream},
};
use crate::{
    model::id::StreamKey,
    store::{Expected, Place, Pointed, Renew, Store},
};

/// A pointer names the newest stream. Until that has begun, the pointer also keeps the streams that it named before.
pub async fn a_pointer_names_the_newest(store: impl Store) {
    let bench = Bench::new(store);
    assert_eq!(bench.pointer_of("chat").await, "-");
    assert_eq!(bench.moved("chat", "a").await, "a");
    assert_eq!(bench.moved("chat", "b").await, "b a");
    assert_eq!(bench.moved("chat", "c").await, "c b a");
    assert_eq!(bench.moved("other", "a").await, "a", "each conversation has its own");
    bench.give_way(bench.key("chat"), vec![stream("a"), stream("b"), stream("c")]).await.expect("the store answers");
    assert_eq!(bench.pointer_of("chat").await, "c", "the one that is named stays");
    bench.give_way(bench.key("none"), vec![stream("a")]).await.expect("nothing to do is no error");
    assert_eq!(bench.pointer_of("none").await, "-");
}

/// A pointer moves only if it names the stream that the caller expects. A repeat is no error.
pub async fn a_pointer_is_moved_from_where_it_is_expected(store: impl Store) {
    let bench = Bench::new(store);
    let kept = |pointed| match pointed {
        Pointed::Kept(pointer) => brief(pointer),
        moved @ Pointed::Moved(_) => panic!("moved: {moved:?}"),
    };
    let moved = |pointed| match pointed {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
    };
    let to = async |to, expected| bench.move_to("chat", to, expected, LONG).await;
    assert_eq!(kept(to("a", Expected::Stream(stream("x"))).await), "-");
    assert_eq!(moved(to("a", Expected::Nothing).await), "a");
    assert_eq!(moved(to("a", Expected::Nothing).await), "a", "a repeat");
    assert_eq!(kept(to("b", Expected::Nothing).await), "a");
    assert_eq!(kept(to("b", Expected::Stream(stream("x"))).await), "a");
    assert_eq!(moved(to("b", Expected::Stream(stream("a"))).await), "b a");
    assert_eq!(moved(to("b", Expected::Stream(stream("a"))).await), "b a", "a repeat");
    assert_eq!(moved(to("c", Expected::Stream(stream("b"))).await), "c b a");
    assert_eq!(moved(to("b", Expected::Stream(stream("a"))).await), "c b a", "a repeat that comes late");
}

/// A stream that fails to begin is taken out of its pointer, in any order, and the pointer names the stream before it
/// again.
pub async fn a_pointer_goes_back(store: impl Store) {
    let bench = Bench::new(store);
    for id in ["a", "b", "c", "d"] {
        bench.begin_turn(id, "chat").await;
    }
    assert_eq!(bench.take_out("chat", "x").await, "d c b a", "a stale one changes nothing");
    assert_eq!(bench.take_out("chat", "c").await, "d b a");
    assert_eq!(bench.take_out("chat", "d").await, "b a");
    assert_eq!(bench.take_out("chat", "d").await, "b a", "a repeat");
    assert_eq!(bench.take_out("chat", "b").await, "a");
    assert_eq!(bench.take_out("chat", "a").await, "-");
    assert_eq!(bench.take_out("chat", "a").await, "-", "a repeat");
    assert_eq!(bench.pointer_of("chat").await, "-");
}

/// A pointer holds a limited number of streams that have not begun.
pub async fn a_pointer_is_bounded(store: impl Store) {
    let bench = Bench::new(store);
    for number in 0..=64 {
        bench.moved("chat", &format!("s{number}")).await;
    }
    let kept = bench.move_to("chat", "late", Expected::Stream(stream("s64")), LONG).await;
    assert!(matches!(&kept, Pointed::Kept(Some(pointer)) if pointer.stream == stream("s64")), "{kept:?}");
    bench.give_way(bench.key("chat"), vec![stream("s7")]).await.expect("the store answers");
    assert!(bench.moved("chat", "late").await.starts_with("late s64 "));
}

/// A request about an older run changes nothing in a pointer that holds a newer run of the same stream. This happens
/// when a client repeats a request while its first run is being withdrawn.
pub async fn a_newer_run_stays_in_its_pointer(store: impl Store) {
    let bench = Bench::new(store);
    let run = |epoch| Place { epoch, since: Duration::ZERO };
    let move_on = async |to, epoch| match bench.move_on("chat", to, run(epoch), LONG).await {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        Pointed::Kept(pointer) => format!("kept {}", brief(pointer)),
    };
    let move_run = async |to, epoch, expected| match bench.move_run("chat", to, run(epoch), expected, LONG).await {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        Pointed::Kept(pointer) => format!("kept {}", brief(pointer)),
    };
    let take_out = async |epoch| {
        brief(bench.unpoint(bench.key("chat"), stream("k"), Some(epoch)).await.expect("the store answers"))
    };
    move_on("a", 1).await;
    assert_eq!(move_on("k", 5).await, "k a");
    assert_eq!(move_on("k", 7).await, "k a");
    assert_eq!(take_out(5).await, "k a", "the older run's withdrawal");
    assert_eq!(move_on("b", 1).await, "b k a");
    assert_eq!(move_on("k", 5).await, "b k a", "the older run's move");
    assert_eq!(take_out(5).await, "b k a");
    assert_eq!(move_on("k", 9).await, "k b a", "a new run is a new turn");
    assert_eq!(
        bench.pointer(bench.key("chat")).await.expect("the store answers").map(|pointer| pointer.epoch),
        Some(9)
    );
    assert_eq!(move_run("k", 11, Expected::Nothing).await, "kept b a", "the older run is over all the same");
    assert_eq!(bench.pointer_of("chat").await, "b a");
    assert_eq!(move_run("k", 11, Expected::Stream(stream("b"))).await, "k b a");
    assert_eq!(take_out(11).await, "-", "no stream is held that it could go back to");
}

/// The clock of the pointer decides which of two turns is newer, not the epochs of their streams.
pub async fn a_turn_that_began_earlier_goes_behind(store: impl Store) {
    let bench = Bench::new(store);
    let long_ago = |since| Place { epoch: u64::MAX >> 12, since };
    let moved = async |conversation, to, since| match bench.move_on(conversation, to, long_ago(since), LONG).await {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
    };
    bench.moved("chat", "a").await;
    bench.until_clock(bench.now().await + 400).await;
    bench.moved("chat", "b").await;
    let hour = Duration::from_secs(3600);
    assert_eq!(moved("chat", "oldest", hour).await, "b a oldest");
    assert_eq!(moved("chat", "older", hour / 2).await, "b a older oldest");
    bench.until_clock(bench.now().await + 400).await;
    assert_eq!(moved("chat", "newest", Duration::from_millis(50)).await, "newest b a older oldest");
    assert_eq!(moved("chat", "older", hour / 2).await, "newest b a older oldest", "a repeat");
    assert_eq!(bench.moved("chat", "now").await, "now newest b a older oldest");
    let put_back = Some(long_ago(hour));
    let renew = Renew { conversation: bench.key("other"), stream: stream("back"), ttl: LONG, put_back };
    bench.renew(vec![renew]).await.expect("the store answers");
    assert_eq!(moved("other", "older", 2 * hour).await, "back older");
    assert_eq!(moved("other", "newer", hour / 2).await, "newer back older");
}

/// After many racing moves the pointer holds each stream once.
pub async fn racing_moves_lose_nobody(store: impl Store) {
    let bench = Bench::new(store);
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..32 {
        let bench = bench.clone();
        racing.spawn(async move { bench.moved("chat", &format!("s{number}")).await });
    }
    let mut lengths: Vec<_> = racing.join_all().await.iter().map(|pointer| pointer.split(' ').count()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (1..=32).collect::<Vec<_>>(), "one after the other");
    let mut all: Vec<_> = bench.pointer_of("chat").await.split(' ').map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 32);
}

/// One of many racing moves from the same stream succeeds.
pub async fn of_racing_moves_from_one_place_one_wins(store: impl Store) {
    let bench = Bench::new(store);
    bench.moved("from", "first").await;
    for (conversation, expected) in [("chat", Expected::Nothing), ("from", Expected::Stream(stream("first")))] {
        let mut racing = tokio::task::JoinSet::new();
        for number in 0..16 {
            let (bench, expected) = (bench.clone(), expected.clone());
            racing.spawn(async move { bench.move_to(conversation, &format!("s{number}"), expected, LONG).await });
        }
        let outcomes = racing.join_all().await;
        let won = outcomes.iter().filter(|pointed| matches!(pointed, Pointed::Moved(_))).count();
        assert_eq!(won, 1, "{outcomes:?}");
    }
}

/// A pointer lives for the time that its last move or renewal set. Only the stream that it names can renew it.
pub async fn a_pointer_expires(store: impl Store) {
    let bench = Bench::new(store);
    bench.move_to("chat", "a", Expected::Nothing, SOON).await;
    bench.move_to("kept", "a", Expected::Nothing, SOON).await;
    assert_eq!(bench.renew_one("kept", "a", LONG, false).await, "a");
    bench.until("it expires", async || bench.pointer_of("chat").await == "-").await;
    assert_eq!(bench.pointer_of("kept").await, "a");
    assert_eq!(bench.renew_one("kept", "b", SOON, true).await, "a", "another one's");
    assert_eq!(bench.renew_one("chat", "a", LONG, false).await, "-", "not put back unasked");
    assert_eq!(bench.renew_one("chat", "a", LONG, true).await, "a", "the store lost it");
    bench.begin("a").await;
    bench.moved("kept", "b").await;
    assert_eq!(bench.renew_one("kept", "a", SOON, true).await, "b a", "one that is not named any more");
    bench.until_clock(bench.now().await + 3 * SOON.as_millis() as u64).await;
    assert_eq!((bench.pointer_of("chat").await, bench.pointer_of("kept").await), ("a".to_owned(), "b a".to_owned()));
    assert_eq!(bench.take_out("kept", "b").await, "a");
    assert_eq!(bench.renew_one("kept", "a", SOON, false).await, "a");
    bench.give_way(bench.key("kept"), vec![stream("x")]).await.expect("the store answers");
    bench.until("it expires after changes, too", async || bench.pointer_of("kept").await == "-").await;
}

/// A conversation of another owner with the same name is a different conversation.
pub async fn a_foreign_conversation_is_a_missing_one(store: impl Store) {
    let bench = Bench::new(store);
    bench.moved("chat", "a").await;
    for name in ["mallory", "a/b", "{chat}"] {
        let foreign = StreamKey::new(owner(name), stream("chat"));
        assert_eq!(bench.pointer(foreign.clone()).await.expect("the store answers"), None, "{name}");
        let kept = bench.unpoint(foreign.clone(), stream("a"), None).await.expect("the store answers");
        assert_eq!(kept, None, "{name}");
        bench.give_way(foreign, vec![stream("a")]).await.expect("the store answers");
    }
    assert_eq!(bench.pointer_of("chat").await, "a");
}
