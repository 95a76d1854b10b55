//! Plots as SVG, for light and dark pages.

use std::fmt::Write as _;

use crate::{figure::Line, rows};

const WIDTH: f64 = 960.0;
const BAR: f64 = 18.0;
/// The left end of the bars. The names stand before it.
const LEFT: f64 = 430.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-size:16px;font-weight:600}.m{fill:#59636e}\
.g{stroke:#d1d9e0}.x{stroke:#1f2328;stroke-width:1.5}.one{stroke:#cf222e;stroke-dasharray:4 3;stroke-width:1.5}\
.ok{fill:#2da44e}.no{fill:#bf8700}.a{fill:#0969da}.b{fill:#8250df}.c{fill:#bc4c00}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}.x{stroke:#e6edf3}.one{stroke:#ff7b72}\
.ok{fill:#3fb950}.no{fill:#d29922}.a{fill:#4493f8}.b{fill:#ab7df8}.c{fill:#f0883e}}";

/// A bar.
struct Bar {
    name: String,
    value: f64,
    /// The least and the greatest value.
    spread: Option<(f64, f64)>,
    class: &'static str,
}

/// Returns all plots, by file name.
pub(crate) fn all(lines: &[Line]) -> Vec<(&'static str, String)> {
    vec![("goals.svg", goals(lines)), ("cpu.svg", cpu(lines))]
}

/// Plots the distance of each figure from its goal.
fn goals(lines: &[Line]) -> String {
    let mut bars = Vec::new();
    for row in rows::ALL {
        for line in lines.iter().filter(|line| line.row == row.what) {
            let Some(distance) = line.distance() else { continue };
            let class = if distance <= 1.0 { "ok" } else { "no" };
            bars.push(Bar { name: format!("{}: {}", row.name, line.what), value: distance, spread: None, class });
        }
    }
    chart("How far each figure is from its goal", "times the goal; 1 or less meets it; from 4 on cut off", &bars, 4.0)
}

/// Plots the server's cost of an event.
fn cpu(lines: &[Line]) -> String {
    let mut bars = Vec::new();
    for row in rows::ALL.iter().filter(|row| matches!(row.name, "cpu" | "trickle")) {
        for line in lines.iter().filter(|line| line.row == row.what && line.distance().is_some()) {
            let class = match line.what.rsplit(", ").next() {
                Some("memory") => "a",
                Some("Buffered") => "b",
                _ => "c",
            };
            let kind = if row.name == "cpu" { "ready" } else { "trickle" };
            let spread = Some((line.least(), line.greatest()));
            bars.push(Bar { name: format!("{kind}, {}", line.what), value: line.median(), spread, class });
        }
    }
    chart("Server CPU per event, median and spread", "times plain axum Sse + KeepAlive", &bars, 3.0)
}

fn chart(title: &str, axis: &str, bars: &[Bar], most: f64) -> String {
    let end = bars.iter().map(|bar| bar.spread.map_or(bar.value, |(_, greatest)| greatest)).fold(1.25, f64::max);
    let end = end.min(most);
    let at = |value: f64| LEFT + value.clamp(0.0, end) / end * (WIDTH - LEFT - RIGHT);
    let bottom = TOP + BAR * bars.len() as f64;
    let height = bottom + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\
         <style>{STYLE}</style>\n<text class=\"t\" x=\"12\" y=\"28\">{title}</text>\n"
    );
    let mut put = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for tick in 0..=(end / 0.25) as usize {
        let value = tick as f64 * 0.25;
        let x = at(value);
        if end > 2.0 && tick % 2 == 1 {
            continue;
        }
        put(format!("<line class=\"g\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"));
        put(format!("<text class=\"m\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", bottom + 16.0));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    put(format!("<text class=\"m\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{axis}</text>", bottom + 36.0));
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + BAR * index as f64;
        let (text, width) = (y + 13.0, at(bar.value) - LEFT);
        put(format!("<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, escaped(&bar.name)));
        put(format!(
            "<rect class=\"{}\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\"/>",
            bar.class,
            y + 3.0,
            BAR - 6.0
        ));
        let mut end = at(bar.value);
        if let Some((least, greatest)) = bar.spread {
            let (from, to, y) = (at(least), at(greatest), y + BAR / 2.0);
            put(format!("<line class=\"x\" x1=\"{from:.1}\" y1=\"{y}\" x2=\"{to:.1}\" y2=\"{y}\"/>"));
            end = end.max(to);
        }
        put(format!("<text class=\"m\" x=\"{:.1}\" y=\"{text}\">{:.2}</text>", end + 6.0, bar.value));
    }
    let x = at(1.0);
    put(format!("<line class=\"one\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>", TOP - 8.0));
    let _ = svg.write_str("</svg>\n");
    svg
}

/// Shortens a name to fit its place.
fn escaped(name: &str) -> String {
    let mut short: String = name.chars().take(66).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    short.replace('&', "&amp;").replace('<', "&lt;")
}
