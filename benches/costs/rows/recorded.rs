//! Events recorded per second, against single `XADD`s of `redis-benchmark -P 64`.

use std::{process::Command, time::Instant};

use resilient_sse::Durability;
use tokio::task::JoinSet;

use crate::{
    Options, Result,
    child::{Child, Variant},
    client::{self, Load},
    figure::{Goal, Line, over},
    hubs::{Hub, on_runtime},
    redis_servers::RedisServer,
    rows::in_turns,
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "events recorded per second, against single XADDs of redis-benchmark -P 64";

const EVENTS: u64 = 320_000;
const SIZE: usize = 64;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let settings = [("window", "20".to_owned())];
    let child = Child::start(Variant::BeforeSend, &redis.url(), &settings)?;
    let mut lines = Vec::new();
    for (streams, goal) in [(64, 2.0), (1, 1.0)] {
        let figures: [Vec<f64>; 4] = in_turns(options, |variant, round| match variant {
            0 => benchmark(&redis),
            1 => in_place(&redis, Durability::BeforeSend, streams, round),
            2 => in_place(&redis, Durability::Buffered, streams, round),
            _ => {
                let load = Load { streams, events: EVENTS / streams as u64, size: SIZE, rate: 0.0, alone: false };
                let run = (if streams == 1 { 1000 } else { 0 }) + round as u64 + 1;
                Ok(EVENTS as f64 / client::run(&child, load, run)?.wall.as_secs_f64())
            }
        })?;
        let names = ["BeforeSend", "Buffered", "BeforeSend, over sockets and with a client beside it"];
        let goals = [Goal::AtLeast(goal), Goal::None, Goal::AtLeast(goal)];
        let single = figures[0].iter().map(|rate| rate / 1e6).collect();
        lines.push(Line::new(WHAT, format!("redis-benchmark, beside {streams} × 64 B"), "M/s", Goal::None, single));
        for ((name, goal), own) in names.into_iter().zip(goals).zip(&figures[1..]) {
            lines.push(Line::new(WHAT, format!("{streams} × 64 B, {name}"), "×", goal, over(own, &figures[0])));
        }
    }
    Ok(lines)
}

/// Returns the events a second that `redis-benchmark` adds to 64 streams.
fn benchmark(redis: &RedisServer) -> Result<f64> {
    // The payload is as long as an event with its id.
    let value = "x".repeat(SIZE + 20);
    let output = Command::new("redis-benchmark")
        .args(["-p", &redis.port().to_string(), "-P", "64", "-c", "50", "-n", &EVENTS.to_string()])
        .args(["-r", "64", "--csv", "XADD", "bench:__rand_int__", "*", "e", &value])
        .output()
        .map_err(|error| format!("redis-benchmark: {error} (apt-get install -y redis-tools)"))?;
    let text = String::from_utf8(output.stdout)?;
    let rate =
        text.lines().nth(1).and_then(|line| line.split("\",\"").nth(1)).ok_or("redis-benchmark printed no rate")?;
    let rate = rate.trim_matches('"').parse()?;
    redis.keys().iter().filter(|key| key.starts_with("bench:")).for_each(|key| _ = redis.command(&["DEL", key]));
    Ok(rate)
}

/// Returns the events a second of bodies that are polled directly.
fn in_place(redis: &RedisServer, durability: Durability, streams: usize, round: usize) -> Result<f64> {
    on_runtime(async {
        let hub = Hub::on_redis(&redis.url()).await?;
        let events = EVENTS / streams as u64;
        let begun = Instant::now();
        let mut reads = JoinSet::new();
        for stream in 0..streams {
            let id = format!("in-place-{durability:?}-{streams}-{round}-{stream}");
            let reading = hub.open(durability, &id, None, Source::new(events, SIZE, Pace::Ready)).await?;
            reads.spawn(reading.finish(events));
        }
        while let Some(read) = reads.join_next().await {
            read??;
        }
        let took = begun.elapsed();
        match hub.sse.health().lost {
            0 => Ok(EVENTS as f64 / took.as_secs_f64()),
            lost => Err(format!("{lost} events were lost").into()),
        }
    })
}
