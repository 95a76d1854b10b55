//! The latency that recording adds to events that come one at a time.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use resilient_sse::Durability;
use tokio::sync::mpsc;

use crate::{
    Options, Result,
    figure::{Goal, Line, percentile},
    hubs::{Hub, Reading, on_runtime},
    redis_servers::RedisServer,
    rows::in_turns,
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "a trickle: delay added per event";

const EVENTS: u64 = 300;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let figures: [Vec<f64>; 4] = in_turns(options, |variant, round| {
        on_runtime(async {
            let (trigger, triggered) = mpsc::channel(1);
            let source = Source::new(u64::MAX, 64, Pace::Triggered(triggered));
            let durability = if variant == 2 { Durability::BeforeSend } else { Durability::Buffered };
            let id = format!("{durability:?}-{round}");
            // Spawn a task, as a server does for a connection: tokio schedules the main future differently.
            if variant == 0 {
                return tokio::spawn(deliver(Reading::plain(source), trigger)).await?;
            }
            if variant == 3 {
                let client = redis::Client::open(redis.url())?;
                return tokio::spawn(pings(client.get_multiplexed_async_connection().await?)).await?;
            }
            let hub = Hub::on_redis(&redis.url()).await?;
            tokio::spawn(deliver(hub.open(durability, &id, None, source).await?, trigger)).await?
        })
    })?;
    let [plain, buffered, before, trips] = &figures;
    let rounds = 0..options.rounds;
    let added: Vec<_> = rounds.clone().map(|round| buffered[round] - plain[round]).collect();
    let held: Vec<_> = rounds.map(|round| (before[round] - plain[round]) / trips[round]).collect();
    Ok(vec![
        Line::new(WHAT, "a round trip to Redis (PING)", "µs", Goal::None, trips.clone()),
        Line::new(WHAT, "plain axum, from an event's making to its frame", "µs", Goal::None, plain.clone()),
        Line::new(WHAT, "Buffered adds", "µs", Goal::AtMost(10.0), added),
        Line::new(WHAT, "BeforeSend adds", "trips", Goal::AtMost(1.1), held),
    ])
}

/// Returns the median time from an event's making to its frame, in µs.
async fn deliver(mut reading: Reading, trigger: mpsc::Sender<()>) -> Result<f64> {
    let mut took = Vec::new();
    for number in 0..EVENTS {
        // Pause, so that the events come one at a time.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        trigger.send(()).await?;
        reading.until(number).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(&took, 0.5))
}

/// Returns the median round trip to Redis in µs, with the same pauses.
pub(crate) async fn pings(connection: MultiplexedConnection) -> Result<f64> {
    some_pings(connection, EVENTS as usize).await
}

/// Returns the median of `count` round trips, in µs.
pub(crate) async fn some_pings(mut connection: MultiplexedConnection, count: usize) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        redis::cmd("PING").exec_async(&mut connection).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(&took, 0.5))
}
