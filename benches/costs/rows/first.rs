//! The time from a request to its first event, over loopback sockets.

use std::time::Duration;

use crate::{
    Options, Result,
    child::{Child, Variant},
    client, distance,
    figure::{Goal, Line, percentile},
    hubs::on_runtime,
    redis_servers::RedisServer,
    rows::{in_turns, trickle::some_pings},
};

pub(crate) const WHAT: &str = "time to first event added";

const REQUESTS: usize = 200;
/// The requests of each round with a distant Redis.
const FAR_REQUESTS: usize = 30;
/// The time that the goal allows in addition to a round trip, in µs.
const ALLOWED: f64 = 60.0;

/// The delay that is added each way for a distant Redis.
pub(crate) const AWAY: Duration = Duration::from_millis(5);

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let figures = compare(options, &redis.url(), REQUESTS)?;
    let [plain, .., asked, pings] = &figures;
    let near = trips(&figures);
    let added = |own: &[f64]| own.iter().zip(plain).map(|(own, plain)| own - plain).collect();
    let line = |what: &str, unit, goal, values| Line::new(WHAT, what, unit, goal, values);
    let allowed = Goal::AtMost(1.0);
    let mut lines = vec![
        line("plain axum", "µs", Goal::None, plain.clone()),
        line("plain axum, after a PING to Redis", "µs", Goal::None, asked.clone()),
        line("a round trip to Redis (PING) in a server", "µs", Goal::None, near),
        line("a round trip to Redis (PING) in a loop", "µs", Goal::None, pings.clone()),
        line("memory adds", "µs", Goal::AtMost(ALLOWED), added(&figures[1])),
        line("Redis, Buffered, adds", "µs", Goal::None, added(&figures[2])),
        line("… against a round trip + 60 µs", "×", allowed, against_allowed(&figures, 2)),
        line("Redis, BeforeSend, adds", "µs", Goal::None, added(&figures[3])),
    ];
    redis.flushall();
    let far = compare(options, &distance::away(&redis.address().to_string(), AWAY)?, FAR_REQUESTS)?;
    lines.push(line("a round trip to a Redis that is 5 ms away", "µs", Goal::None, trips(&far)));
    let what = "there, Redis, Buffered, adds, against a round trip + 60 µs";
    lines.push(line(what, "×", allowed, against_allowed(&far, 2)));
    Ok(lines)
}

/// What a round trip adds to plain axum. In a loop it takes less, since nothing comes between two of them.
fn trips(figures: &[Vec<f64>; 6]) -> Vec<f64> {
    figures[4].iter().zip(&figures[0]).map(|(asked, plain)| asked - plain).collect()
}

/// Divides the time that a variant adds by the allowed time.
fn against_allowed(figures: &[Vec<f64>; 6], variant: usize) -> Vec<f64> {
    let rounds = figures[variant].iter().zip(&figures[0]).zip(trips(figures));
    rounds.map(|((own, plain), trip)| (own - plain) / (trip + ALLOWED)).collect()
}

/// Measures each variant's time to the first event, and round trips to this Redis, in a server and in a loop.
fn compare(options: &Options, redis: &str, requests: usize) -> Result<[Vec<f64>; 6]> {
    const VARIANTS: [Variant; 5] =
        [Variant::Plain, Variant::Memory, Variant::Buffered, Variant::BeforeSend, Variant::Trip];
    let children = VARIANTS.map(|variant| Child::start(variant, redis, &[]));
    let children: Vec<_> = children.into_iter().collect::<Result<_>>()?;
    in_turns(options, |variant, round| {
        on_runtime(async {
            let Some(child) = children.get(variant) else {
                let connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
                return tokio::spawn(some_pings(connection, requests)).await?;
            };
            let mut took = Vec::new();
            for request in 0..requests {
                let path = format!("/s/{round}-{request}?n=1&size=64");
                took.push(client::first_event(child.address, &path).await?.as_secs_f64() * 1e6);
            }
            Ok(percentile(&took, 0.5))
        })
    })
}
