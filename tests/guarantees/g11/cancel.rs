//! G11: every future and every body is dropped after each possible number of polls.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{Disconnect, ResilientSseLayer, StreamId, StreamState};
use tower::ServiceExt as _;

use crate::support::{
    bench::{Bench, ENOUGH},
    bodies::{Client, Step, Watch, app, chunk, numbered, request, resuming, send},
};

/// Four events and the terminal one, each after a pause of a poll.
fn steps() -> Vec<Step> {
    let events = (0..4).flat_map(|n| [Step::Yield, chunk(format!("data: {n}\n\n"))]);
    events.chain([Step::Yield, chunk("event: completed\ndata: 4\n\n")]).collect()
}

fn generation(bench: &Bench) -> ResilientSseLayer {
    bench.sse.generation().id(StreamId::path("/s/{id}"))
}

#[tokio::test(start_paused = true)]
async fn g11_a_request_dropped_at_any_poll_leaves_the_stream_to_the_next() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let watch = Watch::default();
        let app = app(generation(&bench), &watch, steps());
        let mut future = Box::pin(app.clone().oneshot(request("/s/a")));
        let done = bench.poll(future.as_mut(), k).await;
        drop(future);
        let over = done.is_some();
        drop(done);
        let mut next = bench.get(&app, request("/s/a")).await;
        bench.finish(&mut next).await;
        assert_eq!(next.data(), numbered(5), "dropped after {k} polls");
        assert_eq!(bench.state("a").await, Some(StreamState::Completed));
        drop(next);
        bench.assert_all_gone(&watch, k).await;
        if over {
            assert!(k > 3, "{k} polls are too few to say much");
            return;
        }
    }
    panic!("the request never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_a_request_for_a_made_up_id_dropped_at_any_poll_leaves_nothing() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let watch = Watch::default();
        let app = app(bench.sse.generation(), &watch, steps());
        let mut future = Box::pin(app.clone().oneshot(request("/")));
        let over = bench.poll(future.as_mut(), k).await.is_some();
        drop(future);
        let mut next = bench.get(&app, request("/")).await;
        bench.finish(&mut next).await;
        assert_eq!(next.data(), numbered(5));
        drop(next);
        bench.assert_all_gone(&watch, k).await;
        if over {
            assert!(k > 3);
            return;
        }
    }
    panic!("the request never ends");
}

/// Cuts a client of this policy's route after a number of polls, and lets it reconnect. Returns what it saw before and
/// after.
async fn cut(policy: Disconnect, k: usize) -> (Vec<String>, Vec<String>, Vec<String>, bool) {
    let mut bench = Bench::new();
    let watch = Watch::default();
    let app = app(generation(&bench).on_disconnect(policy), &watch, steps());
    let mut client = bench.get(&app, request("/s/a")).await;
    for _ in 0..k {
        if client.ended {
            break;
        }
        client.poll();
        bench.step().await;
    }
    let over = client.ended;
    client.body = None;
    let owned = |data: Vec<&str>| data.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (before, mut names, mut after) = (owned(client.data()), Vec::new(), Vec::new());
    let mut cursor = client.last_id();
    // A client that is told of an interruption, by an end without a terminal event, reconnects.
    for _ in 0..5 {
        let response = bench.run(send(&app, resuming("/s/a", &cursor))).await;
        if response.status() == 204 {
            break;
        }
        let mut again = Client::new(response.into_body());
        bench.finish(&mut again).await;
        names.extend(owned(again.names()));
        after.extend(owned(again.data()));
        if again.seen.iter().any(|event| !event.id.is_empty()) {
            cursor = again.last_id();
        }
    }
    drop(client);
    bench.assert_all_gone(&watch, k).await;
    (before, names, after, over)
}

#[tokio::test(start_paused = true)]
async fn g11_a_live_body_dropped_at_any_poll_runs_on_where_it_detaches() {
    for k in 0..ENOUGH {
        let (before, _, after, over) = cut(Disconnect::DETACH, k).await;
        assert_eq!([before, after].concat(), numbered(5), "dropped after {k} polls");
        if over {
            return assert!(k > 5);
        }
    }
    panic!("the body never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_a_live_body_dropped_at_any_poll_is_run_again_where_it_is_interrupted() {
    for k in 0..ENOUGH {
        let (before, names, after, over) = cut(Disconnect::Interrupt, k).await;
        if over {
            assert_eq!([before, after].concat(), numbered(5));
            return assert!(k > 5);
        }
        // The events of the first run come first, once, then all of the second run, unless the end was stored already.
        let after: Vec<_> = names.iter().zip(after).collect();
        let restart = after.iter().position(|(name, _)| *name == "restart");
        let (first, second) = after.split_at(restart.unwrap_or(if before.is_empty() { 0 } else { after.len() }));
        let mut first_run = before.clone();
        first_run.extend(first.iter().map(|(_, data)| data.clone()));
        assert_eq!(first_run, numbered(first_run.len()), "dropped after {k} polls: {after:?}");
        let second: Vec<_> =
            second.iter().filter(|(name, _)| *name != "restart").map(|(_, data)| data.clone()).collect();
        assert!(second == numbered(5) || first_run.len() == 5, "dropped after {k} polls: {after:?}");
    }
    panic!("the body never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_a_live_body_dropped_at_any_poll_ends_where_it_cancels() {
    for k in 0..ENOUGH {
        let (before, names, after, over) = cut(Disconnect::Cancel, k).await;
        let mut told = before;
        let last = names.last().cloned();
        told.extend(after);
        if last.as_deref() == Some("cancelled") {
            assert_eq!(told.pop().as_deref(), Some(r#"{"reason":"disconnected"}"#), "dropped after {k} polls");
            assert_eq!(told, numbered(told.len()), "dropped after {k} polls");
        } else {
            assert_eq!(told, numbered(5), "dropped after {k} polls");
        }
        if over {
            return assert!(k > 5);
        }
    }
    panic!("the body never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_a_follower_dropped_at_any_poll_changes_nothing() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let watch = Watch::default();
        let app = app(generation(&bench), &watch, steps());
        let mut producer = bench.get(&app, request("/s/a")).await;
        let mut follower = bench.get(&app, request("/s/a")).await;
        for _ in 0..k {
            if follower.ended {
                break;
            }
            producer.poll();
            follower.poll();
            bench.step().await;
        }
        let over = follower.ended;
        follower.body = None;
        let response = bench.run(send(&app, resuming("/s/a", &follower.last_id()))).await;
        let mut again = Client::new(response.into_body());
        while !again.ended {
            producer.drain();
            again.drain();
            bench.step().await;
        }
        assert_eq!([follower.data(), again.data()].concat(), numbered(5), "dropped after {k} polls");
        bench.finish(&mut producer).await;
        assert_eq!(producer.data(), numbered(5));
        drop((producer, follower, again));
        bench.assert_all_gone(&watch, k).await;
        if over {
            return assert!(k > 5);
        }
    }
    panic!("the follower never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_recovery_dropped_at_any_poll_changes_nothing() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let watch = Watch::default();
        let app = app(generation(&bench), &watch, steps());
        let mut client = bench.get(&app, request("/s/a")).await;
        client.poll();
        let mut recover = Box::pin(bench.sse.recover().oneshot(request("/a/recover")));
        let over = bench.poll(recover.as_mut(), k).await.is_some();
        drop(recover);
        bench.finish(&mut client).await;
        assert_eq!(client.data(), numbered(5));
        let recover = bench.sse.recover().oneshot(request("/a/recover"));
        assert_eq!(bench.run(recover).await.unwrap().status(), 200);
        drop(client);
        bench.assert_all_gone(&watch, k).await;
        if over {
            return assert!(k > 3);
        }
    }
    panic!("recovery never ends");
}

#[tokio::test(start_paused = true)]
async fn g11_a_guardian_dropped_at_any_poll_leaves_live_streams_flowing_and_others_clean_up() {
    for k in 0..60 {
        let mut bench = Bench::new();
        let mut other = Bench::on(bench.store.clone(), 2);
        let watch = Watch::default();
        let app = app(generation(&bench), &watch, steps());
        let response = {
            let mut future = Box::pin(send(&app, request("/s/a")));
            loop {
                if let Some(response) = future.as_mut().now_or_never() {
                    break response;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut client = Client::new(response.into_body());
        for _ in 0..k {
            client.poll();
            bench.step().await;
        }
        drop(bench.guardian.take());
        bench.finish(&mut client).await;
        assert_eq!(client.data(), numbered(5), "dropped after {k} polls");
        assert!(!bench.sse.health().guarded);
        drop((client, app));
        other.advance(Duration::from_secs(65)).await;
        // If the stream was completed in time, its window is over by now.
        let state = other.state("a").await;
        assert!(state.is_none_or(StreamState::is_terminal), "dropped after {k} polls: {state:?}");
        other.advance(Duration::from_secs(95)).await;
        assert!(other.store.inner.is_empty(), "dropped after {k} polls");
        assert_eq!(watch.alive(), 0);
    }
}
