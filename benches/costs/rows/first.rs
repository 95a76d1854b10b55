//! From a request to its first event, over loopback sockets.

use crate::{
    Options, Result,
    child::{Child, Variant},
    client,
    figure::{Goal, Line, percentile},
    hubs::on_runtime,
    redis_servers::RedisServer,
    rows::{in_turns, trickle::pings},
};

pub(crate) const WHAT: &str = "time to first event added";

const REQUESTS: usize = 200;
/// What is allowed beside the round trip, in µs.
const ALLOWED: f64 = 60.0;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let children = Variant::ALL.map(|variant| Child::start(variant, &redis.url(), &[]));
    let children: Vec<_> = children.into_iter().collect::<Result<_>>()?;
    let figures: [Vec<f64>; 5] = in_turns(options, |variant, round| {
        on_runtime(async {
            let Some(child) = children.get(variant) else {
                let client = redis::Client::open(redis.url())?;
                return tokio::spawn(pings(client.get_multiplexed_async_connection().await?)).await?;
            };
            let mut took = Vec::new();
            for request in 0..REQUESTS {
                let path = format!("/s/{round}-{request}?n=1&size=64");
                took.push(client::first_event(child.address, &path).await?.as_secs_f64() * 1e6);
            }
            Ok(percentile(&took, 0.5))
        })
    })?;
    let [plain, .., trips] = &figures;
    let added = |own: &[f64], allowed: &dyn Fn(usize) -> f64| -> Vec<f64> {
        own.iter().enumerate().map(|(round, own)| (own - plain[round]) / allowed(round)).collect()
    };
    let line = |what: &str, unit, goal, values| Line::new(WHAT, what, unit, goal, values);
    Ok(vec![
        line("plain axum", "µs", Goal::None, plain.clone()),
        line("a round trip to Redis (PING)", "µs", Goal::None, trips.clone()),
        line("memory adds", "µs", Goal::AtMost(ALLOWED), added(&figures[1], &|_| 1.0)),
        line("Redis, Buffered, adds", "µs", Goal::None, added(&figures[2], &|_| 1.0)),
        line(
            "… against a round trip + 60 µs",
            "×",
            Goal::AtMost(1.0),
            added(&figures[2], &|round| trips[round] + ALLOWED),
        ),
        line("Redis, BeforeSend, adds", "µs", Goal::None, added(&figures[3], &|_| 1.0)),
    ])
}
