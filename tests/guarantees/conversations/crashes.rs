//! A node dies between any two steps of a turn. A sweep or a resume on another node completes the missing steps.

use std::time::Duration;

use http::StatusCode;
use resilient_sse::{Overlap, StreamState};

use crate::{
    conversations::stage::{Asked, SECOND, Stage, endless, turn},
    support::handlers::{Finish, Handler, Script},
};

/// More steps than any turn has.
const STEPS: u64 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heals {
    /// Time passes, and sweeps run.
    Sweep,
    /// A client resumes at once, and again once the dead node's streams are found.
    Resume,
    /// The next turn begins.
    Turn,
}

/// A turn of another node runs, and this turn's node dies after a number of steps. Returns whether the turn had
/// started.
async fn dies_after(steps: u64, overlap: Overlap, heals: Heals, ends: bool) -> bool {
    let case = format!("{steps} steps, {overlap:?}, {heals:?}, ends: {ends}");
    let mut stage = Stage::nodes(2);
    let mut old = turn(&stage.chat(0, &endless())).await;
    old.read(1).await;
    stage.advance(40 * SECOND).await;
    let script =
        if ends { Script::events(1).every(Duration::ZERO) } else { Script::events(u64::MAX).then(Finish::Never) };
    let dying = stage.chat_with(1, &Handler::plays(script), |layer| layer.overlap(overlap));
    stage.hubs[1].store.die_after(steps);
    let dead = tokio::spawn(async move {
        let mut asked: Asked = turn(&dying).await;
        asked.read(3).await;
        std::future::pending::<()>().await;
    });
    for _ in 0..20 {
        stage.step().await;
    }
    // The node is killed: none of its guards reaches the store any more.
    stage.hubs[1].store.die_after(0);
    stage.alive[1] = false;
    dead.abort();
    let before = stage.infos().await;
    let new = before.iter().find(|info| info.key.id.as_str() != old.id());
    let started = new.is_some_and(|info| info.started);

    match heals {
        Heals::Sweep => {}
        Heals::Resume => {
            let resumed = stage.resume(0, None).await;
            if resumed.status() == StatusCode::OK {
                let pointed = stage.pointer().await;
                assert_eq!(resumed.headers()["x-stream-id"], *pointed[0], "{case}");
            }
        }
        Heals::Turn => {
            let mut next = turn(&stage.chat(0, &endless())).await;
            next.read(1).await;
            stage.advance(2 * SECOND).await;
            assert_eq!(stage.stands(&old.id()).await, (StreamState::Cancelled, "replaced".to_owned()), "{case}");
            // The sweep finds a stream that no pointer names yet.
            stage.advance(70 * SECOND).await;
            assert_eq!(stage.running().await, [next.id()], "{case}: all before it have given way");
            drop(next);
            drop(old);
            stage.verdict().await;
            return started;
        }
    }
    // A node renews its pointers each minute, and then learns whether its turn stands behind another. A dead node's
    // streams are found sooner.
    stage.advance(130 * SECOND).await;
    let replaced = started && overlap == Overlap::Replace;
    let stands = stage.stands(&old.id()).await;
    if replaced {
        assert_eq!(stands, (StreamState::Cancelled, "replaced".to_owned()), "{case}");
        assert_eq!(stage.running().await.len(), 0, "{case}");
    } else {
        assert_eq!(stands.0, StreamState::Active, "{case}: a turn that failed to begin costs nothing");
        assert_eq!(stage.running().await, [old.id()], "{case}");
    }
    if !started {
        let resumed = stage.resume(0, None).await;
        assert_eq!(resumed.headers()["x-stream-id"], *old.id(), "{case}");
        assert_eq!(stage.pointer().await, [old.id()], "{case}");
        old.read(1).await;
    }
    drop(old);
    stage.verdict().await;
    started
}

async fn dies_after_each_step(overlap: Overlap, heals: Heals, ends: bool) {
    let (mut before, mut after) = (0, 0);
    for steps in 0..STEPS {
        if dies_after(steps, overlap, heals, ends).await { after += 1 } else { before += 1 }
    }
    assert!(before >= 2 && after >= 3, "it died {before} times before its turn had started, {after} times after that");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_each_step_is_healed_by_a_sweep() {
    dies_after_each_step(Overlap::Replace, Heals::Sweep, false).await;
    dies_after_each_step(Overlap::Replace, Heals::Sweep, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_each_step_is_healed_by_a_resume() {
    dies_after_each_step(Overlap::Replace, Heals::Resume, false).await;
    dies_after_each_step(Overlap::Replace, Heals::Resume, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_each_step_is_healed_by_the_next_turn() {
    dies_after_each_step(Overlap::Replace, Heals::Turn, false).await;
    dies_after_each_step(Overlap::Replace, Heals::Turn, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_turn_that_lets_others_run_stops_nothing() {
    for heals in [Heals::Sweep, Heals::Resume] {
        dies_after_each_step(Overlap::Allow, heals, false).await;
        dies_after_each_step(Overlap::Allow, heals, true).await;
    }
}

/// The node dies halfway through a withdrawal: the stream is gone, and the pointer still names it.
#[tokio::test(start_paused = true)]
async fn a_pointer_to_a_stream_that_is_gone_is_taken_out() {
    let stage = Stage::nodes(1);
    let old = turn(&stage.chat(0, &endless())).await;
    let named = |id: &str| resilient_sse::store::Expected::Stream(resilient_sse::StreamId::new(id).unwrap());
    let point = |stream: &str, expected: &str| resilient_sse::store::Point {
        conversation: crate::conversations::stage::key("c"),
        stream: resilient_sse::StreamId::new(stream).unwrap(),
        place: resilient_sse::store::Place { epoch: 1, since: Duration::ZERO },
        expected: named(expected),
        ttl: 60 * SECOND,
    };
    for (gone, before) in [("gone1", old.id()), ("gone2", "gone1".to_owned())] {
        resilient_sse::Store::point(&stage.store, point(gone, &before)).await.unwrap();
    }
    let resumed = stage.resume(0, None).await;
    assert_eq!(resumed.headers()["x-stream-id"], *old.id());
    assert_eq!(stage.pointer().await, [old.id()]);
    drop((old, resumed));
    stage.verdict().await;
}
