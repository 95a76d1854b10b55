//! A snapshot of a node's health.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use serde::Serialize;

use super::{Bypassed, ENDINGS, Telemetry};

/// A snapshot of this node's state and counters.
///
/// Its JSON form (through `serde`) has the fields in camel case.
///
/// ```
/// use resilient_sse::ResilientSse;
///
/// /// Ready for requests: the guardian is polled, and the store answers.
/// fn is_ready(sse: &ResilientSse) -> bool {
///     let health = sse.health();
///     health.guarded && health.breaker == "closed" && !health.draining
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Streams whose producer is on this node.
    pub active: u64,
    /// Active streams without a reader on any node.
    pub detached: u64,
    /// Consumers that read from the log.
    pub followers: u64,
    /// Events that the store acknowledged.
    pub recorded: u64,
    /// Events that could not be recorded. Consumers are told of each in a gap.
    pub lost: u64,
    /// Ends of streams that were given up, because the store did not take them within the recovery window.
    pub ends_given_up: u64,
    /// Events that were produced while the stream had no reader.
    pub unheard: u64,
    /// Events that inner bodies produced after their terminal event. They are dropped.
    pub late_events: u64,
    /// Producers that were started.
    pub started: u64,
    /// Streams that this node closed, by state.
    pub ended: BTreeMap<&'static str, u64>,
    /// Streams that this node closed as `orphaned`.
    pub orphaned: u64,
    /// Requests that continued a stream.
    pub resumed: u64,
    /// Gaps that were reported to consumers.
    pub gaps: u64,
    /// Requests that the library itself answered with an error.
    pub rejected: u64,
    /// Event streams that were not protected.
    pub bypassed: u64,
    /// Event streams that were not protected, by reason.
    pub bypassed_by: BTreeMap<&'static str, u64>,
    /// Panics of inner code that were caught.
    pub panics: u64,
    /// Runs of an `on_end` hook that failed, panicked or took too long. A failed hook runs again until the recovery
    /// window of its stream is over.
    pub hooks_failed: u64,
    /// Store requests that failed or timed out.
    pub store_errors: u64,
    /// `open` while streams do not wait for the store, else `closed`. For a Cluster it is `open` only if it is open for
    /// all masters.
    pub breaker: &'static str,
    /// The number of parts of the store with an open breaker. A Cluster has a part for each master, any other store has
    /// one.
    pub store_parts_away: u64,
    /// Whether the guardian may not claim orphans, because it does not trust the store yet.
    pub frozen: bool,
    /// Whether the process is draining.
    pub draining: bool,
    /// Whether the guardian is polled. Without it this node sends no beats, sweeps or heartbeats.
    pub guarded: bool,
    /// When the last sweep ended, by the store's clock, in unix milliseconds.
    pub last_sweep: Option<u64>,
    /// The time from the request to the first event.
    pub first_event_seconds: HistogramSnapshot,
    /// The time between two events of a running stream.
    pub event_gap_seconds: HistogramSnapshot,
}

/// A snapshot of a histogram.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistogramSnapshot {
    /// Upper bounds in seconds, each with the number of values up to it.
    pub buckets: Vec<(f64, u64)>,
    /// The number of values.
    pub count: u64,
    /// The sum of the values, in seconds.
    pub sum: f64,
}

/// A counter's name, its label if it has one, and its value.
type Counter = (&'static str, Option<(&'static str, &'static str)>, u64);

impl Health {
    pub(crate) fn of(telemetry: &Telemetry, guarded: bool, away: bool) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let gauge = |gauge: &AtomicI64| u64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(0);
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let ended = |(index, state): (usize, &crate::StreamState)| (state.as_str(), count(&telemetry.ended[index]));
        let bypassed = |reason: Bypassed| (reason.name(), count(&telemetry.bypassed[reason as usize]));
        let ended: BTreeMap<_, _> = ENDINGS.iter().enumerate().map(ended).collect();
        let bypassed_by: BTreeMap<_, _> = Bypassed::ALL.into_iter().map(bypassed).collect();
        Self {
            active: gauge(&telemetry.active),
            detached: gauge(&telemetry.detached),
            followers: gauge(&telemetry.followers),
            recorded: count(&telemetry.recorded),
            lost: count(&telemetry.lost),
            ends_given_up: count(&telemetry.ends_given_up),
            unheard: count(&telemetry.unheard),
            late_events: count(&telemetry.late_events),
            started: count(&telemetry.started),
            orphaned: ended["orphaned"],
            ended,
            resumed: count(&telemetry.resumed),
            gaps: count(&telemetry.gaps),
            rejected: count(&telemetry.rejected),
            bypassed: bypassed_by.values().sum(),
            bypassed_by,
            panics: count(&telemetry.panics),
            hooks_failed: count(&telemetry.hooks_failed),
            store_errors: count(&telemetry.store_errors),
            breaker: if away { "open" } else { "closed" },
            store_parts_away: count(&telemetry.parts_away),
            frozen: flag(&telemetry.frozen),
            draining: flag(&telemetry.draining),
            guarded,
            last_sweep: Some(count(&telemetry.last_sweep)).filter(|at| *at > 0),
            first_event_seconds: telemetry.first_event.snapshot(),
            event_gap_seconds: telemetry.event_gap.snapshot(),
        }
    }

    /// Returns the gauges, by metric name.
    fn gauges(&self) -> [(&'static str, u64); 7] {
        [
            ("resilient_sse_active", self.active),
            ("resilient_sse_detached", self.detached),
            ("resilient_sse_followers", self.followers),
            ("resilient_sse_breaker_open", u64::from(self.breaker == "open")),
            ("resilient_sse_store_parts_away", self.store_parts_away),
            ("resilient_sse_frozen", u64::from(self.frozen)),
            ("resilient_sse_draining", u64::from(self.draining)),
        ]
    }

    /// Returns the counters, by metric name, with their labels.
    fn counters(&self) -> Vec<Counter> {
        let mut counters = vec![
            ("resilient_sse_recorded_total", None, self.recorded),
            ("resilient_sse_lost_total", None, self.lost),
            ("resilient_sse_ends_given_up_total", None, self.ends_given_up),
            ("resilient_sse_unheard_total", None, self.unheard),
            ("resilient_sse_late_events_total", None, self.late_events),
            ("resilient_sse_started_total", None, self.started),
            ("resilient_sse_resumed_total", None, self.resumed),
            ("resilient_sse_gaps_total", None, self.gaps),
            ("resilient_sse_rejected_total", None, self.rejected),
            ("resilient_sse_panics_total", None, self.panics),
            ("resilient_sse_hooks_failed_total", None, self.hooks_failed),
            ("resilient_sse_store_errors_total", None, self.store_errors),
        ];
        let ended =
            |(state, count): (&&'static str, &u64)| ("resilient_sse_ended_total", Some(("state", *state)), *count);
        let bypassed = |(reason, count): (&&'static str, &u64)| {
            ("resilient_sse_bypassed_total", Some(("reason", *reason)), *count)
        };
        counters.extend(self.ended.iter().map(ended));
        counters.extend(self.bypassed_by.iter().map(bypassed));
        counters
    }

    /// Returns the figures in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut out = String::new();
        for (name, value) in self.gauges() {
            let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
        }
        let mut typed = "";
        for (name, label, value) in self.counters() {
            if typed != name {
                let _ = writeln!(out, "# TYPE {name} counter");
                typed = name;
            }
            let _ = match label {
                Some((key, label)) => writeln!(out, "{name}{{{key}=\"{label}\"}} {value}"),
                None => writeln!(out, "{name} {value}"),
            };
        }
        write_histogram(&mut out, "resilient_sse_first_event_seconds", &self.first_event_seconds);
        write_histogram(&mut out, "resilient_sse_event_gap_seconds", &self.event_gap_seconds);
        out
    }

    /// Reports gauges and counters to the `metrics` facade.
    #[cfg(feature = "metrics")]
    pub(crate) fn report(&self) {
        for (name, value) in self.gauges() {
            metrics::gauge!(name).set(value as f64);
        }
        for (name, label, value) in self.counters() {
            match label {
                Some((key, label)) => metrics::counter!(name, key => label).absolute(value),
                None => metrics::counter!(name).absolute(value),
            }
        }
    }
}

fn write_histogram(out: &mut String, name: &str, histogram: &HistogramSnapshot) {
    let HistogramSnapshot { buckets, count, sum } = histogram;
    let _ = writeln!(out, "# TYPE {name} histogram");
    for (bound, count) in buckets {
        let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_has_every_documented_metric_once() {
        let text = Health::of(&Telemetry::default(), true, false).to_prometheus();
        let documented = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let mut seen = 0;
        for line in documented {
            let name = line.split(['`', '{']).next().expect("a name");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            seen += 1;
        }
        assert_eq!(text.matches("# TYPE").count(), seen);
    }

    /// Records the registered metrics, by name.
    #[cfg(feature = "metrics")]
    #[derive(Default)]
    struct Names(std::sync::Mutex<Vec<String>>);

    #[cfg(feature = "metrics")]
    impl Names {
        fn keep(&self, key: &metrics::Key) {
            crate::runtime::sync::lock(&self.0).push(key.name().to_owned());
        }
    }

    #[cfg(feature = "metrics")]
    impl metrics::Recorder for Names {
        fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
        fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
        fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

        fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
            self.keep(key);
            metrics::Counter::noop()
        }

        fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
            self.keep(key);
            metrics::Gauge::noop()
        }

        fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
            self.keep(key);
            metrics::Histogram::noop()
        }
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn the_metrics_facade_gets_every_documented_metric() {
        let (names, telemetry) = (Names::default(), Telemetry::default());
        metrics::with_local_recorder(&names, || {
            Health::of(&telemetry, true, false).report();
            telemetry.first_event(std::time::Duration::from_millis(1));
            telemetry.event_gap(std::time::Duration::from_millis(1));
        });
        let reported = crate::runtime::sync::lock(&names.0).clone();
        let documented = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        for line in documented {
            let name = line.split(['`', '{']).next().expect("a name");
            assert!(reported.iter().any(|reported| reported == name), "{name}");
        }
    }
}
