//! 100,000 streams of one node: the cost of keeping them alive, of searching for dead ones, and of closing them all.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use resilient_sse::{Owner, RedisStore, StreamId, StreamSpec, store::Store as _};

use crate::{
    Options, Result,
    figure::{Goal, Line, percentile},
    hubs::{Hub, on_runtime},
    proc,
    redis_servers::RedisServer,
};

pub(crate) const WHAT: &str = "100,000 streams: heartbeats and sweeps";

const STREAMS: usize = 100_000;
const STALE: Duration = Duration::from_secs(30);
/// A node beats three times within its stale threshold.
const BEAT: f64 = 10.0;
/// How many streams a sweep asks for at a time.
const PAGE: usize = 250;
/// The time, in µs, above which Redis logs a command as slow.
const SLOW: &str = "4000";

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    redis.command(&["CONFIG", "SET", "slowlog-log-slower-than", SLOW]);
    on_runtime(async {
        let mut lines = Vec::new();
        let node = Hub::with(&redis.url(), |builder| builder.stale_after(STALE)).await?;
        let opened = Instant::now();
        open(&node).await?;
        println!("   {STREAMS} streams were opened in {:.1?}", opened.elapsed());
        // The first round of beats does not count, since it also handles the new streams.
        tokio::time::sleep(Duration::from_secs_f64(1.5 * BEAT)).await;
        // Sixteen rounds name every stream once.
        let rounds = if options.full { 16 } else { 3 };
        let (mut of_redis, mut of_node) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (redis_before, own_before) = (busy(&redis)?, proc::own_cpu()?);
            tokio::time::sleep(Duration::from_secs_f64(BEAT)).await;
            of_redis.push((busy(&redis)? - redis_before) / BEAT * 100.0);
            of_node.push((proc::own_cpu()? - own_before) / BEAT * 100.0);
        }
        lines.push(Line::new(WHAT, "heartbeats: of a Redis core", "%", Goal::AtMost(0.5), of_redis));
        lines.push(Line::new(WHAT, "heartbeats: of a core of the node", "%", Goal::AtMost(0.3), of_node));
        lines.extend(nothing_due(&redis).await?);
        // Dropping the node stops its beats, as if it had died.
        let other =
            Hub::with(&redis.url(), |builder| builder.stale_after(STALE).sweep_every(Duration::from_secs(1))).await?;
        drop(node);
        lines.extend(orphans(&redis, &other).await?);
        Ok(lines)
    })
}

/// Opens the streams and leaves them open.
async fn open(node: &Hub) -> Result<()> {
    let opens = stream::iter(0..STREAMS).map(|number| async move {
        let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new(format!("s{number}"))?);
        // Dropping the publication would end the stream.
        std::mem::forget(node.sse.publisher().open(spec).await?);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    opens.buffer_unordered(200).try_collect().await
}

/// Measures a sweep that finds nothing.
async fn nothing_due(redis: &RedisServer) -> Result<Vec<Line>> {
    const SWEEPS: usize = 20;
    let store = RedisStore::connect(&redis.url()).await?;
    let (mut took, before) = (Vec::new(), commands(redis)?);
    let lease = Duration::from_secs(30);
    for _ in 0..SWEEPS {
        let begun = Instant::now();
        let due = store.due(PAGE, lease, Some(0)).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        if !due.is_empty() {
            return Err(format!("{} live streams are due", due.len()).into());
        }
    }
    // One of the commands is the INFO that read the count before.
    let commands = (commands(redis)? - before - 1.0) / SWEEPS as f64;
    Ok(vec![
        Line::new(WHAT, "sweep with nothing due", "ms", Goal::AtMost(1.0), took),
        Line::new(WHAT, "… commands, those of other tasks of the node included", "", Goal::None, vec![commands]),
    ])
}

/// Measures how another node closes all streams, which are orphans at the same time.
async fn orphans(redis: &RedisServer, other: &Hub) -> Result<Vec<Line>> {
    redis.command(&["SLOWLOG", "RESET"]);
    let deadline = Instant::now() + 3 * STALE;
    let (mut begun, mut closed, mut cpu) = (None, 0, 0.0);
    while closed < STREAMS as u64 {
        if Instant::now() > deadline {
            return Err(format!("{closed} of {STREAMS} orphans are closed").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        closed = other.sse.health().orphaned;
        if closed > 0 && begun.is_none() {
            begun = Some(Instant::now());
            cpu = busy(redis)?;
        }
    }
    let took = begun.ok_or("nothing was closed")?.elapsed().as_secs_f64();
    let slow: Vec<redis::Value> = redis.ask(&["SLOWLOG", "GET", "1000"]);
    let slowest = slow.iter().filter_map(|entry| match entry {
        redis::Value::Array(fields) => match fields.get(2) {
            Some(redis::Value::Int(micros)) => Some(*micros as f64 / 1e3),
            _ => None,
        },
        _ => None,
    });
    let slowest: Vec<_> = slowest.collect();
    let slowest = if slowest.is_empty() { 0.0 } else { percentile(&slowest, 1.0) };
    Ok(vec![
        Line::new(WHAT, "100,000 orphans are closed in", "s", Goal::AtMost(0.7), vec![took]),
        Line::new(WHAT, "… CPU of Redis", "s", Goal::None, vec![busy(redis)? - cpu]),
        Line::new(WHAT, "… slowest command, if any took 4 ms", "ms", Goal::AtMost(4.0), vec![slowest]),
    ])
}

/// Returns the CPU seconds of Redis' main thread.
fn busy(redis: &RedisServer) -> Result<f64> {
    let field = |name| redis.info(name).ok_or("INFO has no CPU").map(|value| value.parse::<f64>());
    Ok(field("used_cpu_user_main_thread")?? + field("used_cpu_sys_main_thread")??)
}

/// Returns the number of commands that Redis has processed.
fn commands(redis: &RedisServer) -> Result<f64> {
    Ok(redis.info("total_commands_processed").ok_or("INFO has no commands")?.parse()?)
}
