//! The lines of the results.

use std::fmt;

/// The goal of a line's figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// The median is at most this value.
    AtMost(f64),
    /// The median is at least this value.
    AtLeast(f64),
    /// The greatest value is at most this value.
    NeverAbove(f64),
    /// The figure has no goal; it explains other figures.
    None,
}

/// A line of the results, with one figure for each round.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The row of the table that the line belongs to.
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// Sorted.
    values: Vec<f64>,
}

impl Line {
    pub(crate) fn new(
        row: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        goal: Goal,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        Self { row, what: what.into(), unit, goal, values }
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.values.last().copied().unwrap_or(f64::NAN)
    }

    /// Returns the factor by which the goal is missed; 1 or less meets it.
    pub(crate) fn distance(&self) -> Option<f64> {
        match self.goal {
            Goal::AtMost(goal) => Some(self.median() / goal),
            Goal::AtLeast(goal) => Some(goal / self.median()),
            Goal::NeverAbove(goal) => Some(self.greatest() / goal),
            Goal::None => None,
        }
    }

    /// Returns the goal as text.
    pub(crate) fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(goal) => format!("≤ {}", number(goal)),
            Goal::AtLeast(goal) => format!("≥ {}", number(goal)),
            Goal::NeverAbove(goal) => format!("max ≤ {}", number(goal)),
            Goal::None => String::new(),
        }
    }

    /// Returns the distance from the goal as text.
    pub(crate) fn verdict(&self) -> String {
        match self.distance() {
            Some(distance) if distance <= 1.0 => "met".to_owned(),
            Some(distance) => format!("{} × off", number(distance)),
            None => String::new(),
        }
    }

    /// Returns the least and the greatest value as text.
    pub(crate) fn spread(&self) -> String {
        format!("{}–{}", number(self.least()), number(self.greatest()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figure, spread) = (number(self.median()), self.spread());
        let (what, unit, goal, verdict) = (&self.what, self.unit, self.goal(), self.verdict());
        write!(f, "{what:<74} {figure:>9} [{spread}] {unit:<6} {goal:<10} {verdict}")
    }
}

/// Returns the median of sorted values.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the value at a share of all values, such as 0.5 for the median.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Divides each value by the base of its round.
pub(crate) fn over(values: &[f64], bases: &[f64]) -> Vec<f64> {
    values.iter().zip(bases).map(|(value, base)| value / base).collect()
}

/// Writes a number with about three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
