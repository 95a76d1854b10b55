//! The events that the handlers stream: a text, token by token, at the pace that the request asks for.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::response::sse::Event;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::text::Text;

/// The largest payload that a request may ask for, in bytes.
pub(crate) const MAX_SIZE: usize = 1 << 20;
/// The most events that a request may ask for.
const MAX_EVENTS: u64 = 1_000_000_000;
/// The default rate, in events a second.
pub(crate) const DEFAULT_RATE: f64 = 20.0;

/// The parameters of a request: `?n=&rate=&size=&end=&file=`.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) n: u64,
    pub(crate) rate: f64,
    size: usize,
    end: End,
    text: &'static Text,
}

/// How the stream of events ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
    /// The body ends without a terminal event.
    Eof,
    /// The body fails with an error.
    Error,
    Never,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let text = Text::default_one();
        Self { n: text.len(), rate: DEFAULT_RATE, size: 0, end: End::Completed, text }
    }

    /// Reads the parameters of a query, and ignores unknown ones. The error names the parameter and its rule.
    pub(crate) fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mut plan = Self::new();
        if let Some(file) = find("file") {
            plan.text = Text::named(file).ok_or_else(|| format!("`file` is one of {}", Text::names()))?;
            plan.n = plan.text.len();
        }
        if let Some(n) = find("n") {
            plan.n = n.parse().ok().filter(|n| *n <= MAX_EVENTS).ok_or_else(rule_for_n)?;
        }
        if let Some(rate) = find("rate") {
            plan.rate = rate.parse().ok().filter(|rate| is_rate(*rate)).ok_or_else(rule_for_rate)?;
        }
        if let Some(size) = find("size") {
            let size = size.parse().ok().filter(|size| *size <= MAX_SIZE);
            plan.size = size.ok_or_else(|| format!("`size` is a number of bytes from 0 to {MAX_SIZE}"))?;
        }
        if let Some(end) = find("end") {
            plan.end = End::parse(end).ok_or("`end` is one of completed, failed, eof, error, never")?;
        }
        Ok(plan)
    }

    /// Returns the plan with another number of events or another rate, in events a second. The error names the field
    /// and its rule.
    pub(crate) fn paced(self, n: Option<u64>, rate: Option<f64>) -> Result<Self, String> {
        let (n, rate) = (n.unwrap_or(self.n), rate.unwrap_or(self.rate));
        if n > MAX_EVENTS {
            return Err(rule_for_n());
        }
        if !is_rate(rate) {
            return Err(rule_for_rate());
        }
        Ok(Self { n, rate, ..self })
    }

    /// Returns the payload of the token event with this number.
    pub(crate) fn token(&self, s: u64) -> String {
        let mut payload = String::with_capacity(self.size.max(64));
        let text = serde_json::Value::from(self.text.token(s));
        let _ = write!(payload, r#"{{"s":{s},"type":"token","data":{{"text":{text}}}"#);
        // Pad with spaces before the last brace, where JSON allows them.
        let blanks = self.size.saturating_sub(payload.len() + 1);
        payload.extend(std::iter::repeat_n(' ', blanks));
        payload.push('}');
        payload
    }

    /// Returns the payload of the terminal event `completed`.
    pub(crate) fn completed(&self) -> String {
        self.terminal("completed")
    }

    fn terminal(&self, kind: &str) -> String {
        format!(r#"{{"type":"{kind}","data":{{"tokens":{}}}}}"#, self.n)
    }

    /// Returns the time from one event to the next.
    fn pause(&self) -> Duration {
        if self.rate > 0.0 {
            Duration::try_from_secs_f64(1.0 / self.rate).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        }
    }
}

fn is_rate(rate: f64) -> bool {
    rate.is_finite() && rate >= 0.0
}

fn rule_for_n() -> String {
    format!("`n` is a number of events from 0 to {MAX_EVENTS}")
}

fn rule_for_rate() -> String {
    "`rate` is a number of events a second, 0 or more; 0 is as fast as it goes".to_owned()
}

impl End {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "eof" => Self::Eof,
            "error" => Self::Error,
            "never" => Self::Never,
            _ => return None,
        })
    }
}

/// A timer that keeps the average rate of a plan, even if it is polled late.
pub(crate) struct Pace {
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(plan: &Plan) -> Self {
        let pause = plan.pause();
        Self { pause, timer: (!pause.is_zero()).then(|| Box::pin(sleep_until(Instant::now()))) }
    }

    /// Ready when the next event is due, or at once if the plan has no rate limit.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Ready(()) };
        ready!(timer.as_mut().poll(cx));
        let next = timer.deadline().checked_add(self.pause);
        timer.as_mut().reset(next.unwrap_or_else(far_away));
        Poll::Ready(())
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

/// The events of a plan, as a `Stream` for axum's `Sse`.
pub(crate) struct Telling {
    plan: Plan,
    told: u64,
    ended: bool,
    pace: Pace,
}

impl Telling {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { pace: Pace::new(&plan), plan, told: 0, ended: false }
    }
}

impl Stream for Telling {
    type Item = Result<Event, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let plan = self.plan;
        if self.told < plan.n {
            ready!(self.pace.poll_due(cx));
            let event = Event::default().data(plan.token(self.told));
            self.told += 1;
            return Poll::Ready(Some(Ok(event)));
        }
        if plan.end == End::Never {
            return Poll::Pending;
        }
        self.ended = true;
        let terminal = |kind| Event::default().event(kind).data(plan.terminal(kind));
        Poll::Ready(match plan.end {
            End::Completed => Some(Ok(terminal("completed"))),
            End::Failed => Some(Ok(terminal("failed"))),
            End::Error => Some(Err(io::Error::other("the request asked for an error"))),
            End::Eof | End::Never => None,
        })
    }
}
