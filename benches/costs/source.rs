//! What the handlers under test stream: numbered events of one size, the same with and without the layer.

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

/// What stands before an event's number; the number has ten digits.
pub(crate) const MARK: &str = "data: {\"s\":";
/// Digits of a number.
pub(crate) const DIGITS: usize = 10;
/// What stands around an event's padding.
const AROUND: usize = "data: {\"s\":0000000000,\"p\":\"\"}\n\n".len();

/// When the next event is there.
pub(crate) enum Pace {
    /// At once.
    Ready,
    /// At the next poll: each event is a frame of its own.
    Alone { gave: bool },
    /// At its time.
    Ticks(Pin<Box<Interval>>),
    /// Whenever it is told to, with what it is told.
    Told(tokio::sync::mpsc::Receiver<()>),
}

impl Pace {
    /// So many events a second; streams do not tick at the same time.
    pub(crate) fn ticks(rate: f64, shift: f64) -> Self {
        let period = Duration::from_secs_f64(1.0 / rate);
        let mut ticks = interval_at(Instant::now() + period.mul_f64(shift), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self::Ticks(Box::pin(ticks))
    }
}

/// Opens once all streams of a run are there.
type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Numbered events.
pub(crate) struct Source {
    gate: Option<Gate>,
    pace: Pace,
    payload: Vec<u8>,
    left: u64,
    /// Whether it stays silent after its last event instead of ending.
    stays: bool,
}

impl Source {
    /// So many events of so many bytes each on the wire (before the layer adds an id).
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

    /// Waits until the next event may be made; false if there is none.
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
            Pace::Told(told) => {
                if ready!(told.poll_recv(cx)).is_none() {
                    return Poll::Ready(false);
                }
            }
        }
        self.left -= 1;
        Poll::Ready(true)
    }

    /// Counts on in place: formatting would cost as much as what is measured.
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

/// Reads events back, and sees that none is missing and none comes twice.
#[derive(Default)]
pub(crate) struct Check {
    /// What is not a whole event yet.
    rest: Vec<u8>,
    next: u64,
    /// How many bytes the numbered events had on the wire.
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

    /// Reads all whole blocks; returns how many bytes these have.
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
