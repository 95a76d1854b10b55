//! The rows of the table of costs, one or a few in a file.

mod beats;
mod crates;
mod fan;
mod first;
mod follow;
pub(crate) mod idle;
mod life;
mod logs;
mod poll;
mod recorded;
mod resume;
mod scan;
mod server_cpu;
mod trickle;

use crate::{Options, Result, figure::Line};

/// A part of the table that is measured together.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) measure: fn(&Options) -> Result<Vec<Line>>,
}

const fn row(name: &'static str, what: &'static str, measure: fn(&Options) -> Result<Vec<Line>>) -> Row {
    Row { name, what, measure }
}

pub(crate) const ALL: &[Row] = &[
    row("cpu", server_cpu::READY, server_cpu::ready),
    row("trickle", server_cpu::TRICKLE, server_cpu::trickle),
    row("recorded", recorded::WHAT, recorded::measure),
    row("delay", trickle::WHAT, trickle::measure),
    row("first", first::WHAT, first::measure),
    row("life", life::WHAT, life::measure),
    row("follow", follow::WHAT, follow::measure),
    row("idle", idle::WHAT, idle::measure),
    row("logs", logs::WHAT, logs::measure),
    row("returns", logs::RETURNS, logs::returns),
    row("resume", resume::WHAT, resume::measure),
    row("beats", beats::WHAT, beats::measure),
    row("fan", fan::WHAT, fan::measure),
    row("poll", poll::WHAT, poll::measure),
    row("scan", scan::WHAT, scan::measure),
    row("crates", crates::WHAT, crates::measure),
];

/// Measures variants in turns. Each round begins with another variant, and the first round only warms up. Returns the
/// figures of each variant, in the order of the rounds.
pub(crate) fn in_turns<const N: usize>(
    options: &Options,
    mut measure: impl FnMut(usize, usize) -> Result<f64>,
) -> Result<[Vec<f64>; N]> {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..=options.rounds {
        for turn in 0..N {
            let variant = (turn + round) % N;
            let figure = measure(variant, round)?;
            if round > 0 {
                figures[variant].push(figure);
            }
        }
    }
    Ok(figures)
}
