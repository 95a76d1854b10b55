//! The page of results.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{Options, Result, figure::Line, plot, rows};

/// Writes `RESULTS.md` and its plots.
pub(crate) fn write(options: &Options, lines: &[Line], took: Duration) -> Result<()> {
    let folder = options.out.join("results");
    fs::create_dir_all(&folder)?;
    for (name, plot) in plot::all(lines) {
        fs::write(folder.join(name), plot)?;
    }
    fs::write(options.out.join("RESULTS.md"), page(options, lines, took)?)?;
    println!("\nwritten: {}", options.out.join("RESULTS.md").display());
    Ok(())
}

fn page(options: &Options, lines: &[Line], took: Duration) -> Result<String> {
    let mut page = String::from(
        "# What it costs, measured\n\n\
         Written by `cargo bench --features redis --bench costs`; do not edit. CONTRIBUTING.md says how to read it.\n\n",
    );
    let rounds = options.rounds;
    let full = if options.full { ", `--full`" } else { "" };
    writeln!(page, "| | |\n|---|---|\n| date | {} |", first_line_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    writeln!(page, "| commit | {} |", first_line_of("git", &["describe", "--always", "--dirty", "--abbrev=10"]))?;
    writeln!(page, "| machine | {} |", machine())?;
    writeln!(page, "| versions | {}; {} |", first_line_of("rustc", &["--version"]), redis())?;
    writeln!(page, "| run | {rounds} rounds of each comparison{full}, {:.0} s |\n", took.as_secs_f64())?;
    let asked: Vec<_> = lines.iter().filter(|line| line.distance().is_some()).collect();
    let met = asked.iter().filter(|line| line.distance().is_some_and(|distance| distance <= 1.0)).count();
    writeln!(page, "{met} of {} goals are met. Zero gaps and zero repeats were seen in all runs.\n", asked.len())?;
    page.push_str("![distance of each figure from its goal](results/goals.svg)\n\n");
    page.push_str("![server CPU per event against plain axum](results/cpu.svg)\n");
    for row in rows::ALL {
        let mut of_row = lines.iter().filter(|line| line.row == row.what).peekable();
        if of_row.peek().is_none() {
            continue;
        }
        writeln!(page, "\n## {}\n\n| | median | least–greatest | | goal | |\n|---|--:|:-:|---|---|---|", row.what)?;
        for line in of_row {
            let (figure, spread) = (crate::figure::number(line.median()), line.spread());
            writeln!(
                page,
                "| {} | {figure} | {spread} | {} | {} | {} |",
                line.what,
                line.unit,
                line.goal(),
                line.verdict()
            )?;
        }
    }
    Ok(page)
}

/// Returns the first line of a program's output, if the program is installed.
fn first_line_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match text.lines().next() {
        Some(line) => line.trim().to_owned(),
        None => format!("{:?}", SystemTime::now()),
    }
}

fn redis() -> String {
    let version = first_line_of("redis-server", &["--version"]);
    let number = version.split(' ').find_map(|word| word.strip_prefix("v="));
    format!("Redis {}", number.unwrap_or("unknown"))
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let kernel = first_line_of("uname", &["-sr"]);
    format!("{cores} × {}, {kernel}, load {load} at the end of the run", model.trim_start_matches(['\t', ' ', ':']))
}
