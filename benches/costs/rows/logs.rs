//! The memory that logs hold, and whether it is returned: resident memory of server processes, with the system's
//! allocator.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Options, Result,
    child::{Child, Variant},
    client::{self, Load},
    figure::{Goal, Line, over},
};

pub(crate) const WHAT: &str = "memory held per byte of log";
pub(crate) const RETURNS: &str = "memory after a burst";

const MIB: f64 = 1024.0 * 1024.0;

/// Starts a server on the memory store whose logs may hold 1,000,000 events.
fn server(settings: &[(&str, String)]) -> Result<Child> {
    let mut settings = settings.to_vec();
    settings.push(("max_events", 1_000_000.to_string()));
    Child::start(Variant::Memory, "", &settings)
}

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let streams = if options.full { 1000 } else { 200 };
    for (name, size, alone) in [
        ("64 B, ready together", 64, false),
        ("256 B, ready together", 256, false),
        ("1,024 B, ready together", 1024, false),
        ("256 B, one at a time", 256, true),
        ("64 B, one at a time", 64, true),
    ] {
        let held = times(options.rounds.min(3), || held(streams, size, alone))?;
        let goal = if alone { Goal::None } else { Goal::AtMost(1.15) };
        lines.push(Line::new(WHAT, format!("{streams} logs of about 1 MiB, {name}"), "×", goal, held));
    }
    let bounded = times(options.rounds.min(3), || bounded(streams))?;
    lines.push(Line::new(
        WHAT,
        format!("{streams} streams of 3 MiB, `max_bytes` 1 MiB"),
        "×",
        Goal::AtMost(1.15),
        bounded,
    ));
    let pinned = times(options.rounds.min(3), pinned)?;
    lines.push(Line::new(WHAT, "an event of 31 B in each chunk of 64 KiB", "KiB", Goal::AtMost(4.0), pinned));
    Ok(lines)
}

fn times(rounds: usize, measure: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    std::iter::repeat_with(measure).take(rounds).collect()
}

/// Divides the growth of resident memory by the bytes that clients received, which the logs hold.
fn held(streams: usize, size: usize, alone: bool) -> Result<f64> {
    let child = server(&[("max_bytes", (64 << 20).to_string())])?;
    // An event's id takes about 20 bytes.
    let events = (1 << 20) / (size as u64 + 20);
    let load = Load { streams, events, size, rate: 0.0, alone };
    client::run(&child, Load { events: 10, ..load }, 1)?;
    let before = child.resident()?;
    let took = client::run(&child, load, 2)?;
    Ok((child.resident()? - before) / took.bytes as f64)
}

/// Divides the growth of resident memory by the bytes that `max_bytes` allows, after three times as many were made.
fn bounded(streams: usize) -> Result<f64> {
    let child = server(&[("max_bytes", (1 << 20).to_string())])?;
    let load = Load { streams, events: 3 << 12, size: 236, rate: 0.0, alone: false };
    client::run(&child, Load { events: 10, ..load }, 1)?;
    let before = child.resident()?;
    client::run(&child, load, 2)?;
    Ok((child.resident()? - before) / (streams as f64 * MIB))
}

/// Returns the KiB of resident memory for each chunk with one small event.
fn pinned() -> Result<f64> {
    const STREAMS: usize = 20;
    const CHUNKS: u64 = 500;
    let child = server(&[])?;
    client::read_all(&child, STREAMS, 10, |stream| format!("/s/a{stream}?n=10&padded=1"))?;
    let before = child.resident()?;
    client::read_all(&child, STREAMS, CHUNKS, |stream| format!("/s/b{stream}?n={CHUNKS}&padded=1"))?;
    Ok((child.resident()? - before) / 1024.0 / (STREAMS as f64 * CHUNKS as f64))
}

/// Compares the memory left by a burst of 5,000 streams with that left by 500, once their recovery windows are over.
///
/// With glibc this measures the allocator more than the library, so plain axum is measured too, for comparison.
pub(crate) fn returns(options: &Options) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (variant, goal) in [(Variant::Plain, Goal::None), (Variant::Memory, Goal::AtMost(1.5))] {
        let (mut small, mut turns, mut peak, mut large) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if options.full { options.rounds } else { 1 } {
            let child = Child::start(variant, "", &[("window", "2".to_owned()), ("sweep", "1".to_owned())])?;
            let load = Load { streams: 500, events: 400, size: 256, rate: 200.0, alone: false };
            client::run(&child, load, 1)?;
            small.push(settled(&child)? / MIB);
            for batch in 2..=10 {
                client::run(&child, load, batch)?;
                // Wait until their windows are over and a sweep has removed them.
                thread::sleep(Duration::from_millis(3500));
            }
            turns.push(settled(&child)? / MIB);
            client::run(&child, Load { streams: 5000, ..load }, 11)?;
            peak.push(child.resident()? / MIB);
            large.push(settled(&child)? / MIB);
        }
        let (ratios, of_turns) = (over(&large, &small), over(&turns, &small));
        let name = variant.name();
        let line = |what: &str, values| Line::new(RETURNS, format!("{name}: {what}"), "MiB", Goal::None, values);
        lines.push(line("500 streams, 2 s each, and their windows", small));
        lines.push(line("5,000 streams at a time, at their end", peak));
        lines.push(line("5,000 streams and their windows", large));
        let ratio =
            |what: &str, goal, values| Line::new(RETURNS, format!("{name}: {what}, against 500"), "×", goal, values);
        lines.push(ratio("5,000, 500 at a time and their windows", goal, of_turns));
        lines.push(ratio("5,000 at a time and their windows", goal, ratios));
    }
    Ok(lines)
}

/// Returns the resident memory once it stops shrinking.
fn settled(child: &Child) -> Result<f64> {
    let begun = Instant::now();
    let (mut least, mut since) = (f64::MAX, begun);
    // After 5 s all windows of 2 s and sweeps of 1 s are over.
    while begun.elapsed() < Duration::from_secs(5) || since.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(100));
        let now = child.resident()?;
        if now < least * 0.99 {
            (least, since) = (now, Instant::now());
        }
    }
    child.resident()
}
