//! The CPU time of a server per event, over loopback sockets.

use crate::{
    Options, Result,
    child::{Child, Variant},
    client::{self, Load},
    figure::{Goal, Line, over},
    proc,
    redis_servers::RedisServer,
    rows::in_turns,
};

pub(crate) const READY: &str = "server CPU per event against plain axum, ready together";
pub(crate) const TRICKLE: &str = "server CPU per event against plain axum, a trickle";

const SIZES: [usize; 3] = [64, 256, 1024];
/// The variants that are measured side by side. The last one explains the others.
const MEASURED: [Variant; 5] =
    [Variant::Plain, Variant::Memory, Variant::Buffered, Variant::BeforeSend, Variant::Floor];
const STREAMS: [usize; 3] = [1, 64, 1000];

pub(crate) fn ready(options: &Options) -> Result<Vec<Line>> {
    let load = |streams: usize, size: usize| {
        // So many events that the cost of opening and ending 1,000 streams is negligible.
        let total = if streams == 1000 { 400_000 } else { 200_000 };
        Load { streams, events: total / streams as u64, size, rate: 0.0, alone: false }
    };
    compare(options, READY, &SIZES, load, [0.7, 0.8, 1.0].map(Goal::AtMost))
}

pub(crate) fn trickle(options: &Options) -> Result<Vec<Line>> {
    let sizes = if options.full { &SIZES[..] } else { &SIZES[..1] };
    let load = |streams: usize, size: usize| {
        let (rate, events) = match streams {
            1 => (500.0, 500),
            64 => (100.0, 100),
            _ => (15.0, 20),
        };
        Load { streams, events, size, rate, alone: false }
    };
    compare(options, TRICKLE, sizes, load, [1.0, 0.8, 1.0].map(Goal::AtMost))
}

fn compare(
    options: &Options,
    row: &'static str,
    sizes: &[usize],
    load: impl Fn(usize, usize) -> Load,
    goals: [Goal; 3],
) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let mut lines = Vec::new();
    for size in sizes {
        for streams in STREAMS {
            let load = load(streams, *size);
            // Each load has its own processes. The logs of a round are gone before the next one, as those of a server that has run
            // for a while: their memory is used again. The first touch of a page costs as much as several events.
            let settings = [("window", "1".to_owned()), ("sweep", "0.2".to_owned())];
            let children = MEASURED.map(|variant| Child::start(variant, &redis.url(), &settings));
            let children: Vec<_> = children.into_iter().collect::<Result<_>>()?;
            // The bytes that the logs will hold, in the servers and in Redis.
            let held = load.streams as f64 * load.events as f64 * (*size as f64 + 30.0) * 3.0;
            proc::warm(held * (options.rounds + 1) as f64)?;
            let figures: [Vec<f64>; 5] = in_turns(options, |variant, round| {
                let took = client::run(&children[variant], load, round as u64 + 1)?;
                Ok(took.cpu * 1e6 / (load.streams as f64 * load.events as f64))
            })?;
            let what = |variant: &str| format!("{streams} × {size} B, {variant}");
            lines.push(Line::new(row, what("plain axum"), "µs", Goal::None, figures[0].clone()));
            for ((variant, own), goal) in
                MEASURED.iter().zip(&figures).skip(1).zip(goals.into_iter().chain([Goal::None]))
            {
                let ratios = over(own, &figures[0]);
                lines.push(Line::new(row, what(variant.name()), "×", goal, ratios));
            }
            drop(children);
            redis.flushall();
        }
    }
    Ok(lines)
}
