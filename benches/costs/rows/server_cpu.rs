//! CPU of a server per event, over loopback sockets.

use crate::{
    Options, Result,
    child::{Child, Variant},
    client::{self, Load},
    figure::{Goal, Line, over},
    redis_servers::RedisServer,
    rows::in_turns,
};

pub(crate) const READY: &str = "server CPU per event against plain axum, ready together";
pub(crate) const TRICKLE: &str = "server CPU per event against plain axum, a trickle";

const SIZES: [usize; 3] = [64, 256, 1024];
const STREAMS: [usize; 3] = [1, 64, 1000];

pub(crate) fn ready(options: &Options) -> Result<Vec<Line>> {
    let load = |streams: usize, size: usize| {
        // So many that opening and ending 1,000 streams is no part of it.
        let total = if streams == 1000 { 400_000 } else { 200_000 };
        Load { streams, events: total / streams as u64, size, rate: 0.0, alone: false }
    };
    compare(options, READY, &SIZES, load, [0.7, 0.8, 1.0])
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
    compare(options, TRICKLE, sizes, load, [1.0, 0.8, 1.0])
}

fn compare(
    options: &Options,
    row: &'static str,
    sizes: &[usize],
    load: impl Fn(usize, usize) -> Load,
    goals: [f64; 3],
) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let mut lines = Vec::new();
    for size in sizes {
        for streams in STREAMS {
            let load = load(streams, *size);
            // Processes of their own for each load, since logs stay for the recovery window.
            let children = Variant::ALL.map(|variant| Child::start(variant, &redis.url(), &[]));
            let children: Vec<_> = children.into_iter().collect::<Result<_>>()?;
            let figures: [Vec<f64>; 4] = in_turns(options, |variant, round| {
                let took = client::run(&children[variant], load, round as u64 + 1)?;
                Ok(took.cpu * 1e6 / (load.streams as f64 * load.events as f64))
            })?;
            let what = |variant: &str| format!("{streams} × {size} B, {variant}");
            lines.push(Line::new(row, what("plain axum"), "µs", Goal::None, figures[0].clone()));
            for ((variant, own), goal) in Variant::ALL.iter().zip(&figures).skip(1).zip(goals) {
                let ratios = over(own, &figures[0]);
                lines.push(Line::new(row, what(variant.name()), "×", Goal::AtMost(goal), ratios));
            }
            drop(children);
            redis.flushall();
        }
    }
    Ok(lines)
}
