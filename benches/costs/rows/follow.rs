//! The delay of an event on another node.

use std::time::{Duration, Instant};

use resilient_sse::Durability;
use tokio::sync::mpsc;

use crate::{
    Options, Result,
    figure::{Goal, Line, percentile},
    hubs::{Hub, on_runtime},
    redis_servers::RedisServer,
    rows::trickle::pings,
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "a trickle: delay to a follower on another node";

/// The number of nodes in each round. Each is new, so it has never followed a stream.
const NODES: usize = 5;
const EVENTS: u64 = 40;
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    on_runtime(async {
        let producer = Hub::on_redis(&redis.url()).await?;
        let (mut first, mut medians, mut all, mut against) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            let client = redis::Client::open(redis.url())?;
            let trip = tokio::spawn(pings(client.get_multiplexed_async_connection().await?)).await?? / 1e3;
            let (mut firsts, mut delays) = (Vec::new(), Vec::new());
            for node in 0..NODES {
                let late = late(&producer, &redis, format!("{round}-{node}")).await?;
                firsts.push(late[0]);
                delays.extend_from_slice(&late[1..]);
            }
            if round > 0 {
                let median = percentile(&delays, 0.5);
                first.push(percentile(&firsts, 1.0));
                all.push(percentile(&delays, 1.0));
                medians.push(median);
                against.push(median / (3.0 * trip + 2.0));
            }
        }
        Ok(vec![
            Line::new(WHAT, "p50", "ms", Goal::None, medians),
            Line::new(WHAT, "p50 against 3 round trips + 2 ms", "×", Goal::AtMost(1.0), against),
            Line::new(WHAT, "the very first event, the latest of five new nodes", "ms", Goal::NeverAbove(20.0), first),
            Line::new(WHAT, "the latest of those after it", "ms", Goal::NeverAbove(20.0), all),
        ])
    })
}

/// Returns the delay of each event, in ms, on a node that has never followed a stream.
async fn late(producer: &Hub, redis: &RedisServer, id: String) -> Result<Vec<f64>> {
    let (trigger, triggered) = mpsc::channel(1);
    let source = Source::new(EVENTS + 1, 64, Pace::Triggered(triggered));
    let mut client = producer.open(Durability::Buffered, &id, None, source).await?;
    trigger.send(()).await?;
    client.until(0).await?;
    let client = tokio::spawn(client.finish(EVENTS + 1));
    let node = Hub::on_redis(&redis.url()).await?;
    let mut follower = node.follow(&id).await?;
    // The follower has the first event, so it is attached.
    follower.until(0).await?;
    let follower = tokio::spawn(async move {
        let mut came = Vec::new();
        for number in 1..=EVENTS {
            follower.until(number).await?;
            came.push(Instant::now());
        }
        follower.finish(EVENTS + 1).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(came)
    });
    let mut sent = Vec::new();
    for _ in 0..EVENTS {
        sent.push(Instant::now());
        trigger.send(()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    drop(trigger);
    let came = follower.await??;
    client.await??;
    Ok(sent.iter().zip(came).map(|(sent, came)| (came - *sent).as_secs_f64() * 1e3).collect())
}
