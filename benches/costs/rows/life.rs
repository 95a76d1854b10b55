//! The cost of a stream's whole life to a Redis that does nothing else.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use resilient_sse::Durability;

use crate::{
    Options, Result,
    figure::{Goal, Line},
    hubs::{Hub, on_runtime},
    redis_servers::RedisServer,
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "a stream's whole life in Redis: open, 10 events, close";

const LIVES: usize = 1000;
const EVENTS: u64 = 10;

/// The counters that Redis reports.
struct Counters {
    /// The CPU time of the main thread, in seconds.
    cpu: f64,
    reads: f64,
    /// Calls and µs, by command.
    commands: BTreeMap<String, (f64, f64)>,
}

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    on_runtime(async {
        let hub = Hub::on_redis(&redis.url()).await?;
        let mut lines = Vec::new();
        let mut connection = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
        for (name, durability, at_once, goals) in [
            ("one after the other, Buffered", Durability::Buffered, 1, [Goal::AtMost(50.0), Goal::AtMost(3.0)]),
            ("one after the other, BeforeSend", Durability::BeforeSend, 1, [Goal::None, Goal::None]),
            ("64 at a time, Buffered", Durability::Buffered, 64, [Goal::None, Goal::None]),
        ] {
            let (mut cpu, mut trips, mut woken, mut calls) = (Vec::new(), Vec::new(), Vec::new(), String::new());
            for round in 0..=options.rounds {
                let pinged = if at_once == 1 { pings(&mut connection, &redis).await? } else { 0.0 };
                let before = counters(&redis)?;
                let lives = stream::iter(0..LIVES).map(|life| {
                    let id = format!("{at_once}-{durability:?}-{round}-{life}");
                    let hub = &hub;
                    async move {
                        let source = Source::new(EVENTS, 64, Pace::Ready);
                        hub.open(durability, &id, None, source).await?.finish(EVENTS).await
                    }
                });
                lives.buffer_unordered(at_once).try_collect::<()>().await?;
                // The library sends some commands after a stream's end. Wait for them too.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let after = counters(&redis)?;
                if round > 0 {
                    woken.push(pinged);
                    cpu.push((after.cpu - before.cpu) * 1e6 / LIVES as f64);
                    trips.push((after.reads - before.reads) / LIVES as f64);
                    calls = commands(&before, &after);
                }
            }
            println!("   {name}: a life is {calls}");
            let [cpu_goal, trips_goal] = goals;
            lines.push(Line::new(WHAT, format!("CPU of Redis, {name}"), "µs", cpu_goal, cpu));
            if at_once == 1 {
                lines.push(Line::new(WHAT, "… three PINGs beside it", "µs", Goal::None, woken));
            }
            lines.push(Line::new(WHAT, format!("reads of Redis from its sockets, {name}"), "trips", trips_goal, trips));
        }
        Ok(lines)
    })
}

/// Returns the CPU time of Redis for three round trips without work, in µs. An idle Redis wakes up for each.
async fn pings(connection: &mut redis::aio::MultiplexedConnection, redis: &RedisServer) -> Result<f64> {
    let before = counters(redis)?;
    for _ in 0..LIVES * 3 {
        redis::cmd("PING").exec_async(connection).await?;
    }
    Ok((counters(redis)?.cpu - before.cpu) * 1e6 / LIVES as f64)
}

fn counters(redis: &RedisServer) -> Result<Counters> {
    let info: String = redis.ask(&["INFO", "everything"]);
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse::<f64>().ok());
    let need = |name: &str| field(name).ok_or_else(|| format!("INFO has no `{name}`"));
    let command = |line: &str| {
        let (name, fields) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let number = |name: &str| fields.split(',').find_map(|field| field.strip_prefix(name)?.parse().ok());
        Some((name.to_owned(), (number("calls=")?, number("usec=")?)))
    };
    Ok(Counters {
        cpu: need("used_cpu_user_main_thread")? + need("used_cpu_sys_main_thread")?,
        reads: need("total_reads_processed")?,
        commands: info.lines().filter_map(command).collect(),
    })
}

/// Returns the commands of a stream's life, by cost.
fn commands(before: &Counters, after: &Counters) -> String {
    let mut commands: Vec<_> = after
        .commands
        .iter()
        .map(|(name, (calls, usec))| {
            let (calls_before, usec_before) = before.commands.get(name).copied().unwrap_or_default();
            (name, (calls - calls_before) / LIVES as f64, (usec - usec_before) / LIVES as f64)
        })
        .filter(|(_, calls, _)| *calls > 0.05)
        .collect();
    commands.sort_by(|one, other| other.2.total_cmp(&one.2));
    let words: Vec<_> =
        commands.iter().map(|(name, calls, usec)| format!("{calls:.1} {name} ({usec:.1} µs)")).collect();
    words.join(", ")
}
