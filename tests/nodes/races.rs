//! G4: of all requests that race for one stream, on any node, one produces.

use http_body_util::Full;
use resilient_sse::test_util::{Seen, collect};

use crate::{
    figure,
    line::Line,
    node, sum,
    support::{
        example::{eventually, get, numbers},
        redis::RedisServer,
    },
};

const STREAMS: usize = 1000;
/// Requests for each stream, half of them to each node.
const RACERS: usize = 10;
/// How many streams are raced for at a time.
const LANES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn g4_ten_thousand_racing_opens_have_one_producer_each() {
    let redis = RedisServer::start();
    let [a, b] = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let addresses = [a.address, b.address];
            tokio::spawn(async move {
                let mut lines: Vec<_> = (0..RACERS).map(|racer| Line::to(addresses[racer % 2])).collect();
                for stream in (lane..STREAMS).step_by(LANES) {
                    race(&mut lines, stream).await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let started = [figure(&a, "started").await, figure(&b, "started").await];
    eprintln!("{started:?} producers on the nodes");
    assert_eq!(started.iter().sum::<u64>(), STREAMS as u64, "one each");
    assert!(started.iter().all(|started| *started > 0), "each node won some: {started:?}");
    eventually(async || (sum(&[&a, &b], "active").await == 0).then_some(())).await;
    assert_eq!(sum(&[&a, &b], "lost").await + sum(&[&a, &b], "gaps").await, 0);
}

/// All racers see the whole of one run of the stream.
async fn race(lines: &mut [Line], stream: usize) {
    // Some streams end before the last racer comes, some do not.
    let rate = [0, 500][stream % 2];
    let path = format!("/api/stream/race-{stream}?n=3&rate={rate}");
    let visits = lines.iter_mut().map(async |line| {
        let response = line.ask(get(&path).body(Full::default()).unwrap()).await.expect("the node answers");
        assert_eq!(response.headers()["x-stream-id"], format!("race-{stream}"));
        assert!(!response.headers().contains_key("x-stream-recorded"));
        collect(response.into_body()).await
    });
    let seen = futures_util::future::join_all(visits).await;
    let events = |seen: &resilient_sse::test_util::Transcript| -> Vec<Seen> {
        seen.events.iter().filter(|event| event.name != "connected").cloned().collect()
    };
    let first = events(&seen[0]);
    assert_eq!((numbers(&seen[0]), seen[0].names().last()), (vec![0, 1, 2], Some(&"completed")), "{path}");
    for other in &seen[1..] {
        assert_eq!(events(other), first, "{path}: one run, one epoch");
    }
}
