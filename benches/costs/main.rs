//! Measures what the library costs: every row of the table "What it costs", side by side in one run, as ratios.
//!
//! `cargo bench --features redis --bench costs -- [options] [row…]`
//!
//! | option | |
//! |---|---|
//! | `--list` | names the rows |
//! | `--rounds N` | rounds of each comparison, at least 1 [5] |
//! | `--full` | also the measurements that take minutes: all sizes of a trickle, 1,000 logs of 1 MiB |
//! | `--out FOLDER` | where `RESULTS.md` and the plots go [`benches`]; only a run of all rows writes them |
//!
//! Variants take turns in every round, and the first round warms up and does not count. A figure is the median of the
//! rounds' figures, with the least and the greatest beside it.
//!
//! Servers under test are processes of their own with tokio's multi-thread runtime, so that their CPU time and memory
//! are theirs alone. The suite starts Redis on a port of its own. Every client checks that the numbers of its events
//! have no gap and no repeat; otherwise the run fails.

#[path = "../../tests/support/redis/mod.rs"]
mod redis_servers;

mod child;
mod client;
mod distance;
mod figure;
mod floor;
mod hubs;
mod page;
mod plot;
mod proc;
mod rows;
mod source;

use std::{env, path::PathBuf, time::Instant};

use figure::Line;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The options of the command line.
struct Options {
    rounds: usize,
    full: bool,
    out: PathBuf,
    rows: Vec<String>,
}

fn main() -> Result<()> {
    // Cargo passes `--bench` to every bench.
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench").peekable();
    if args.next_if(|arg| arg == "child").is_some() {
        return child::run(args.collect());
    }
    let benches = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"));
    let mut options = Options { rounds: 5, full: false, out: benches, rows: Vec::new() };
    while let Some(arg) = args.next() {
        match &*arg {
            "--list" => {
                rows::ALL.iter().for_each(|row| println!("{:<10} {}", row.name, row.what));
                return Ok(());
            }
            "--full" => options.full = true,
            "--rounds" => options.rounds = args.next().ok_or("`--rounds` needs a number")?.parse::<usize>()?.max(1),
            "--out" => options.out = args.next().ok_or("`--out` needs a folder")?.into(),
            row if rows::ALL.iter().any(|known| known.name == row) => options.rows.push(arg),
            _ => return Err(format!("there is no row `{arg}`: `--list` names them").into()),
        }
    }
    run(&options)
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let mut lines: Vec<Line> = Vec::new();
    for row in rows::ALL {
        if !options.rows.is_empty() && !options.rows.iter().any(|wanted| wanted == row.name) {
            continue;
        }
        println!("\n== {} ({:.0?})", row.what, begun.elapsed());
        for line in (row.measure)(options).map_err(|error| format!("{}: {error}", row.name))? {
            println!("{line}");
            lines.push(line);
        }
    }
    if options.rows.is_empty() {
        page::write(options, &lines, begun.elapsed())?;
    }
    println!("\n{:.0?} in all", begun.elapsed());
    Ok(())
}
