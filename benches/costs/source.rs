//! The streams of the handlers under test: numbered events of one size, the same with and without the layer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    str,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::response::sse::Event;
use futures_util::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// The bytes before an event's number.
pub(crate) const MARK: &str = "data: {\"s\":";
/// The digits of an event's number.
pub(crate) const DIGITS: usize = 10;
/// The bytes of an event apart from its padding.
const AROUND: usize = "data: {\"s\":0000000000,\"p\":\"\"}\n\n".len();

/// When the next event is ready.
pub(crate) enum Pace {
    /// Immediately.
    Ready,
    /// After a pending poll, so that each event is a frame of its own.
    Alone { gave: bool },
    /// At the next tick.
    Ticks(Pin<Box<Interval>>),
    /// When a message arrives.
    Triggered(tokio::sync::mpsc::Receiver<()>),
}

impl Pace {
    /// Makes `rate` events a second. `shift` keeps streams from ticking at the same time.
    pub(crate) fn ticks(rate: f64, shift: f64) -> Self {
        let period = Duration::from_secs_f64(1.0 / rate);
        let mut ticks = interval_at(Instant::now() + period.mul_f64(shift), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self::Ticks(Box::pin(ticks))
    }
}

/// A future that is ready once all streams of a run are open.
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream of numbered events.
pub(crate) struct Source {
    gate: Option<Gate>,
    pace: Pace,
    payload: Vec<u8>,
    left: u64,
    /// Whether the stream stays open and silent after its last event.
    stays: bool,
}

impl Source {
    /// Makes a stream of `events` events of `size` bytes each on the wire, before the layer adds an id.
    pub(crate) fn new(events: u64, size: usize, pace: Pace) -> Self {
        let padding = "x".repeat(size.saturating_sub(AROUND));
        let payload = format!("{{\"s\":{:010},\"p\":\"{padding}\"}}", 0).into_bytes();
        Self { gate: None, pace, payload, left: events, stays: false }
    }

    pub(crate) fn after(mut self, gate: impl Future<Output = ()> + Send + 'static) -> Self {
        self.gate = Some(Box::pin(gate));
        self
    }

    pub(crate) fn stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Waits until the next event may be made. Returns false if there is none.
    fn poll_may(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        if self.left == 0 {
            return if self.stays { Poll::Pending } else { Poll::Ready(false) };
        }
        match &mut self.pace {
            Pace::Ready => {}
            Pace::Alone { gave } => {
                if std::mem::take(gave) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *gave = true;
            }
            Pace::Ticks(ticks) => _ = ready!(ticks.as_mut().poll_tick(cx)),
            Pace::Triggered(triggered) => {
                if ready!(triggered.poll_recv(cx)).is_none() {
                    return Poll::Ready(false);
                }
            }
        }
        self.left -= 1;
        Poll::Ready(true)
    }

    /// Increments the number in place, since formatting would cost as much as the measured work.
    fn count(&mut self) {
        let start = "{\"s\":".len();
        for digit in self.payload[start..start + DIGITS].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

impl Stream for Source {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !ready!(self.poll_may(cx)) {
            return Poll::Ready(None);
        }
        let event = Event::default().data(str::from_utf8(&self.payload).unwrap_or_default());
        self.count();
        Poll::Ready(Some(Ok(event)))
    }
}

/// Checks that no event is missing and none comes twice.
#[derive(Default)]
pub(crate) struct Check {
    /// The beginning of an event that has arrived only in part.
    rest: Vec<u8>,
    next: u64,
    /// The bytes of the numbered events on the wire.
    pub(crate) bytes: usize,
}

impl Check {
    /// The number of the event that must come next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a piece of the body.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> crate::Result<()> {
        if self.rest.is_empty() && bytes.ends_with(b"\n\n") {
            return self.blocks(bytes).map(drop);
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let read = self.blocks(&rest)?;
        rest.drain(..read);
        self.rest = rest;
        Ok(())
    }

    /// Reads all whole blocks. Returns their length in bytes.
    fn blocks(&mut self, text: &[u8]) -> crate::Result<usize> {
        let mut from = 0;
        for end in memchr::memmem::find_iter(text, b"\n\n") {
            let block = &text[from..end];
            if let Some(at) = memchr::memmem::find(block, MARK.as_bytes()) {
                let digits = block.get(at + MARK.len()..).and_then(|rest| rest.get(..DIGITS)).ok_or("no number")?;
                let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
                if number != self.next {
                    return Err(format!("event {number} came where {} was due", self.next).into());
                }
                self.next += 1;
                self.bytes += block.len() + 2;
            } else if memchr::memmem::find(block, b"event: gap").is_some() {
                return Err(format!("after {} events: {}", self.next, String::from_utf8_lossy(block)).into());
            }
            from = end + 2;
        }
        Ok(from)
    }
}
