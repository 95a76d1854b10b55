//! G11: every future of a publisher is dropped after each possible number of polls.

use std::time::Duration;

use futures_util::FutureExt as _;
use resilient_sse::{Event, Owner, PublishError, StreamSpec, StreamState};
use tower::ServiceExt as _;

use crate::support::{
    bench::{Bench, ENOUGH, id},
    bodies::{Client, Watch, numbered, request},
};

fn spec() -> StreamSpec {
    StreamSpec::new(Owner::ANONYMOUS, id("job"))
}

#[tokio::test(start_paused = true)]
async fn g11_opening_a_publication_dropped_at_any_poll_leaves_no_stuck_stream() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let publisher = bench.sse.publisher();
        let mut open = Box::pin({
            let publisher = publisher.clone();
            async move { publisher.open(spec()).await }
        });
        let over = bench.poll(open.as_mut(), k).await.is_some();
        drop(open);
        // A sweep finds every registration: a name without beats is free, or its stream has ended.
        bench.advance(Duration::from_secs(95)).await;
        let opened = bench.run(async move { publisher.open(spec()).await.map(drop) }).await;
        assert!(!matches!(opened, Err(PublishError::Conflict)), "dropped after {k} polls: {opened:?}");
        bench.assert_all_gone(&Watch::default(), k).await;
        if over {
            return assert!(k > 3);
        }
    }
    panic!("it never opens");
}

#[tokio::test(start_paused = true)]
async fn g11_a_send_dropped_at_any_poll_is_sent_or_was_never_polled() {
    for k in 0..200 {
        let mut bench = Bench::new();
        let publisher = bench.sse.publisher();
        let mut job = bench.run(async move { publisher.open(spec()).await.unwrap() }).await;
        // A send waits while more than 64 events wait.
        for n in 0..70 {
            let _ = job.send(Event::new(n.to_string())).now_or_never();
        }
        let mut send = Box::pin(job.send(Event::new("70")));
        let over = bench.poll(send.as_mut(), k).await.is_some();
        drop(send);
        let count = if k == 0 { 70 } else { 71 };
        let ended = bench.run(job.complete(Event::new("end"))).await.unwrap();
        assert_eq!(ended.last.seq, count);
        let relay = bench.sse.relay().oneshot(request("/job"));
        let mut client = Client::new(bench.run(relay).await.unwrap().into_body());
        bench.finish(&mut client).await;
        assert_eq!(client.data()[..count as usize], numbered(count as usize), "dropped after {k} polls");
        assert_eq!(client.data().last(), Some(&"end"));
        drop(client);
        bench.assert_all_gone(&Watch::default(), k).await;
        if over {
            return;
        }
    }
    panic!("it is never sent");
}

#[tokio::test(start_paused = true)]
async fn g11_a_completion_dropped_at_any_poll_ends_the_stream() {
    for k in 0..ENOUGH {
        let mut bench = Bench::new();
        let publisher = bench.sse.publisher();
        let mut job = bench.run(async move { publisher.open(spec()).await.unwrap() }).await;
        bench.run(job.send(Event::new("0"))).await.unwrap();
        let mut complete = Box::pin(job.complete(Event::new("1")));
        let over = bench.poll(complete.as_mut(), k).await.is_some();
        drop(complete);
        bench.advance(Duration::from_secs(1)).await;
        let expected = if k == 0 { StreamState::Active } else { StreamState::Completed };
        assert_eq!(bench.state("job").await, Some(expected), "dropped after {k} polls");
        drop(job);
        bench.advance(Duration::from_secs(1)).await;
        let expected = if k == 0 { StreamState::Failed } else { StreamState::Completed };
        assert_eq!(bench.state("job").await, Some(expected), "and then the publication");
        bench.assert_all_gone(&Watch::default(), k).await;
        if over {
            return assert!(k > 3);
        }
    }
    panic!("it never ends");
}
