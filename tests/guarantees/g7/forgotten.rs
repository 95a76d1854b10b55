//! The store comes back empty.

use std::time::Duration;

use resilient_sse::{Identity, StreamId, StreamState};

use crate::support::rig::{Rig, Script, account, assert_unharmed, millis, numbered, watch};

/// The producer registers again with its own epoch, and returning clients are told of the loss.
#[tokio::test(start_paused = true)]
async fn g7_a_store_that_forgets() {
    for batched in [false, true] {
        let script = Script::default();
        let rig = Rig::new(batched, script);
        let client = rig.client().await;
        tokio::time::sleep(millis(3005)).await;
        let before = rig.info().await.unwrap();
        rig.store.forget();
        tokio::time::sleep(millis(100)).await;
        let after = rig.info().await.expect("registered again");
        assert_eq!((after.epoch, after.state), (before.epoch, StreamState::Active));
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        assert!(rig.recorded().await.into_iter().eq(151..=script.events), "{:?}", rig.recorded().await);
        assert_eq!(account(&rig.resume(&seen[20].id).await, 21, script.events), 130);
        assert_eq!(account(&rig.resume(&seen[150].id).await, 151, script.events), 0, "it misses nothing");
        assert_eq!(rig.calls(), 1, "the work is done once");
    }
}

/// A follower ends, comes back with its cursor, and gets everything or is told what is missing.
#[tokio::test(start_paused = true)]
async fn g1_followers_skip_nothing_in_silence_when_the_store_forgets() {
    for batched in [false, true] {
        for forgets_at in [1005, 2990, 3000, 3020] {
            let script = Script::default();
            let rig = Rig::new(batched, script);
            let client = rig.client().await;
            tokio::time::sleep(millis(200)).await;
            let start = tokio::time::Instant::now();
            let follower = tokio::spawn(watch(rig.get("a", None).await.into_body(), start));
            tokio::time::sleep(millis(forgets_at - 200)).await;
            rig.store.forget();
            let mut seen = follower.await.unwrap();
            // The client reconnects as often as it is told to.
            for _ in 0..20 {
                if seen.last().is_some_and(|seen| seen.name == "completed") {
                    break;
                }
                tokio::time::sleep(millis(1500)).await;
                let cursor = seen.iter().rev().find(|seen| !seen.id.is_empty()).unwrap().id.clone();
                seen.extend(rig.resume(&cursor).await);
            }
            account(&seen, 1, script.events);
            assert_unharmed(&client.await.unwrap(), script);
            assert_eq!(rig.calls(), 1);
        }
    }
}

/// The host's metadata, from the opening and later, is stored again.
#[tokio::test(start_paused = true)]
async fn g7_metadata_survives_a_store_that_forgets() {
    for batched in [false, true] {
        let script = Script { metadata: true, ..Script::default() };
        let identify = |request: &http::request::Parts| {
            let id = StreamId::new(request.uri.path().rsplit('/').next().unwrap()).unwrap();
            Identity::id(id).metadata("user", "alice")
        };
        let rig = Rig::with(batched, script, |hub| hub, |layer| layer.id(identify));
        let client = rig.client().await;
        tokio::time::sleep(millis(1000)).await;
        let mut before = rig.info().await.unwrap().metadata;
        before.sort();
        assert_eq!(before.len(), 2);
        rig.store.forget();
        tokio::time::sleep(millis(100)).await;
        let mut after = rig.info().await.unwrap().metadata;
        after.sort();
        assert_eq!(after, before);
        assert_unharmed(&client.await.unwrap(), script);
    }
}

/// A silent producer is registered again by its beat.
#[tokio::test(start_paused = true)]
async fn g5_a_silent_stream_is_registered_again() {
    for batched in [false, true] {
        let script = Script { events: 2, every: Duration::from_secs(60), ..Script::default() };
        let rig = Rig::new(batched, script);
        let client = rig.client().await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        rig.store.forget();
        assert!(rig.info().await.is_none());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(rig.info().await.is_some(), "within a beat");
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        let first = &numbered(&seen).next().unwrap().id;
        assert_eq!(account(&rig.resume(first).await, 2, 2), 0);
    }
}

/// The end of a stream that the store forgot is stored all the same.
#[tokio::test(start_paused = true)]
async fn g3_an_end_lands_in_a_store_that_forgot_the_stream() {
    for batched in [false, true] {
        let script = Script { events: 50, ..Script::default() };
        let rig = Rig::new(batched, script);
        let client = rig.client().await;
        tokio::time::sleep(millis(999)).await;
        rig.store.forget();
        let seen = client.await.unwrap();
        assert_unharmed(&seen, script);
        assert_eq!(rig.recover().await["status"], "completed");
        let lost = 50 - rig.recorded().await.len() as u64;
        assert_eq!(account(&rig.resume(&seen[1].id).await, 2, 50), lost - 1);
    }
}
