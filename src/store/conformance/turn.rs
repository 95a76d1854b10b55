//! Checks of streams that are turns of a conversation: how their changes affect the pointer.

use std::time::Duration;

use super::{
    bench::{Bench, LONG, SOON, close, epoch_of, reopen, retention},
    pointer_bench::{NEW, stream},
};
use crate::{
    model::stream::StreamState,
    store::{Closed, Open, Opened, Place, Pointed, Retention, Store},
};

/// A request that is repeated while its first run is withdrawn stays in its pointer.
pub async fn a_key_that_is_sent_again_at_once_stays_in_its_pointer(store: impl Store) {
    let bench = Bench::new(store);
    for round in 0..30 {
        let id = format!("k{round}");
        let (key, _, token) = bench.begin_turn(&id, &id).await;
        let withdraws = bench.clone();
        let withdrawal = tokio::spawn(async move { withdraws.withdraw(key, token).await.expect("the store answers") });
        let again = loop {
            if let Opened::New { epoch, .. } = bench.ask(bench.turn(&id, &id)).await {
                break epoch;
            }
            tokio::task::yield_now().await;
        };
        let place = Place { epoch: again, since: Duration::ZERO };
        assert!(matches!(bench.move_on(&id, &id, place, LONG).await, Pointed::Moved(_)));
        withdrawal.await.expect("it ends");
    }
    bench.until_clock(bench.now().await + SOON.as_millis() as u64).await;
    for round in 0..30 {
        let id = format!("k{round}");
        assert_eq!(bench.pointer_of(&id).await, id);
    }
}

/// A withdrawn turn is taken out of the pointer, unless the stream had an earlier run.
pub async fn a_withdrawal_takes_its_stream_out(store: impl Store) {
    let bench = Bench::new(store);
    bench.begin_turn("a", "chat").await;
    let (key, _, token) = bench.begin_turn("b", "chat").await;
    assert_eq!(bench.pointer_of("chat").await, "b a");
    bench.withdraw(key.clone(), 1).await.expect("the store answers");
    bench.withdraw(key, token).await.expect("the store answers");
    bench.until("it goes back", async || bench.pointer_of("chat").await == "a").await;

    let (key, epoch, _) = bench.begin_turn("c", "chat").await;
    bench.stand_still(&key, epoch).await;
    let again = bench.turn("c", "chat");
    let token = again.token;
    bench.ask(again).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.info_of(&key).await.state, StreamState::Interrupted);
    assert_eq!(bench.pointer_of("chat").await, "c a", "there is still such a stream");
}

/// A pointer that goes back names a stream that is held, and expires together with that stream.
pub async fn a_pointer_that_goes_back_expires_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    let retention = Retention { recovery_window: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.turn("over", "chat") }).await);
    bench.moved("chat", "over").await;
    bench.moved("chat", "never").await;
    let (key, _, token) = bench.begin_turn("new", "chat").await;
    bench.finish(&bench.key("over"), epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "new never over");
    bench.withdraw(key, token).await.expect("the store answers");
    bench.until("it expires", async || bench.pointer_of("chat").await == "-").await;
    let (old, _, _) = bench.begin_turn("old", "other").await;
    bench.begin_turn("next", "other").await;
    assert_eq!(bench.take_out("other", "next").await, "old");
    assert_eq!(bench.info_of(&old).await.state, StreamState::Active);
}

/// A pointer expires together with the stream that it names, whether that was closed or interrupted.
pub async fn a_pointer_expires_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    for (name, ends) in [("closed", true), ("interrupted", false)] {
        let retention = Retention { recovery_window: SOON, lifetime: if ends { LONG } else { SOON }, ..retention() };
        let open = Open { retention, ..bench.turn(name, name) };
        let epoch = epoch_of(&bench.ask(open).await);
        let key = bench.key(name);
        bench.moved(name, name).await;
        if ends {
            bench.finish(&key, epoch).await;
        } else {
            bench.stand_still(&key, epoch).await;
        }
        bench.until("the pointer expires", async || bench.pointer_of(name).await == "-").await;
    }
    // The end of a stream does not affect a pointer that names another stream.
    let (key, epoch, _) = bench.begin_turn("old", "chat").await;
    bench.moved("chat", "new").await;
    bench.finish(&key, epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "new old");
}

/// A repeated end updates the pointer. The node that ended the stream may have died before it did so.
pub async fn a_repeated_end_reaches_the_pointer(store: impl Store) {
    let bench = Bench::new(store);
    for (name, ends) in [("closed", true), ("interrupted", false)] {
        // The second end must come before the stream expires, also on a busy machine.
        let held = SOON * 25;
        let retention = Retention { recovery_window: held, lifetime: if ends { LONG } else { held }, ..retention() };
        let epoch = epoch_of(&bench.ask(Open { retention, ..bench.turn(name, name) }).await);
        let key = bench.key(name);
        if ends {
            bench.finish(&key, epoch).await;
        } else {
            bench.stand_still(&key, epoch).await;
        }
        // Put the pointer back, as if the end had not reached it.
        bench.move_on(name, name, NEW, LONG).await;
        if ends {
            assert!(matches!(bench.end(close(&key, Some(epoch))).await, Closed::Before(_)));
        } else {
            bench.stand_still(&key, epoch).await;
        }
        bench.until("the pointer expires", async || bench.pointer_of(name).await == "-").await;
    }
}

/// A deleted stream is taken out of its pointer.
pub async fn a_deleted_stream_is_taken_out(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch, _) = bench.begin_turn("a", "chat").await;
    bench.finish(&key, epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "a");
    bench.delete(key).await.expect("the store answers");
    bench.until("it is gone", async || bench.pointer_of("chat").await == "-").await;
}

/// Registering a stream again restores the pointer that was lost with it, and changes no other pointer.
pub async fn a_lost_pointer_comes_back_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    let open = bench.turn("lost", "chat");
    let epoch = bench.begin_forgotten(open.clone()).await;
    bench.reopen(reopen(open, epoch, 3)).await.expect("the store answers");
    bench.until("it is back", async || bench.pointer_of("chat").await == "lost").await;
    let open = bench.turn("older", "chat");
    let epoch = bench.begin_forgotten(open.clone()).await;
    bench.reopen(reopen(open, epoch, 3)).await.expect("the store answers");
    bench.until_clock(bench.now().await + SOON.as_millis() as u64).await;
    assert_eq!(bench.pointer_of("chat").await, "lost");
    assert_eq!(bench.info_of(&bench.key("older")).await.turn.map(|turn| turn.conversation), Some(stream("chat")));
}
