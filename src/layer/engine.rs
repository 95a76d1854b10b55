//! The producer: polls the inner body, cuts it into blocks, gives them to the recorder.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::{context::StreamContext, route::Route};
use crate::{
    config::{BATCH_BYTES, BATCH_EVENTS},
    error::BoxError,
    hub::Core,
    id::EventId,
    panics::{drop_guarded, guarded},
    recorder::{EndRequest, Lane},
    stream::{Ending, StreamState, reason},
    wire::{Block, Scan, Scanned},
};

/// Inner frames without an event that one poll takes before others get their turn.
const IDLE_FRAMES: usize = 64;

/// Events that a silent body keeps the room for.
pub(crate) const FEW: usize = 4;

/// What a client is to be given.
#[derive(Debug)]
pub(crate) enum Made {
    /// An event, recorded under this id.
    Event(Block, EventId),
    /// Lines that are no event, for a client that is there to see them.
    Aside(Bytes),
}

impl Made {
    /// What must be stored before it is delivered.
    pub(crate) fn seq(&self) -> u64 {
        match self {
            Self::Event(_, id) => id.seq,
            Self::Aside(_) => 0,
        }
    }

    /// Its bytes, without the event's id.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Event(block, _) => block.bytes.len(),
            Self::Aside(lines) => lines.len(),
        }
    }
}

/// How far the inner body has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Something was made, and there may be more.
    Made,
    /// There is nothing more for now.
    Waiting,
    /// The body is over; its end was given to the recorder.
    Over(EndRequest),
}

/// The inner body, and what is made of it.
pub(crate) struct Engine<B> {
    core: Arc<Core>,
    route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    context: StreamContext,
    body: Option<Pin<Box<B>>>,
    scanner: Box<dyn Scan>,
    batch: Vec<Bytes>,
    inner_id: Option<String>,
}

impl<B> Engine<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(core: Arc<Core>, route: Arc<Route>, lane: Arc<Lane>, context: StreamContext, body: B) -> Self {
        let scanner = core.framing.scanner(core.settings.max_event);
        let body = Some(Box::pin(body));
        Self { core, route, lane, context, body, scanner, batch: Vec::new(), inner_id: None }
    }

    /// Makes events until a batch is full, the body waits, or it is over.
    ///
    /// What was made goes to the recorder, and in order to the back of `made`.
    pub(crate) fn make(&mut self, cx: &mut Context<'_>, made: &mut VecDeque<Made>) -> Progress {
        let before = made.len();
        let end = self.fill(cx, made);
        let something = made.len() > before;
        self.hand_over(made.iter_mut().skip(before));
        match end {
            Some(end) => {
                self.finish(&end);
                Progress::Over(end)
            }
            None if something => Progress::Made,
            None => {
                if self.batch.capacity() > FEW {
                    self.batch = Vec::new();
                }
                Progress::Waiting
            }
        }
    }

    /// Takes blocks from the body until there is reason to stop. Returns the end, if that was the reason.
    fn fill(&mut self, cx: &mut Context<'_>, made: &mut VecDeque<Made>) -> Option<EndRequest> {
        let (mut bytes, mut idle) = (0, 0);
        let full = made.len() + BATCH_EVENTS;
        while made.len() < full && bytes < BATCH_BYTES {
            match self.scanner.next() {
                Ok(Some(Scanned::Event(block))) => {
                    bytes += block.bytes.len();
                    if let Some(end) = self.take_event(block, made) {
                        return Some(end);
                    }
                }
                Ok(Some(Scanned::Aside(lines))) => {
                    bytes += lines.len();
                    made.push_back(Made::Aside(lines));
                }
                Ok(Some(Scanned::Id(id))) => self.inner_id = Some(String::from_utf8_lossy(&id).into_owned()),
                Ok(None) if idle == IDLE_FRAMES => {
                    cx.waker().wake_by_ref();
                    return None;
                }
                Ok(None) => {
                    idle += 1;
                    match self.poll_body(cx) {
                        Poll::Pending => return None,
                        Poll::Ready(None) => {}
                        Poll::Ready(Some(end)) => return Some(end),
                    }
                }
                Err(_) => return Some(EndRequest::supplied(StreamState::Failed, reason::EVENT_TOO_LARGE)),
            }
        }
        None
    }

    /// Looks at an event: the terminal one is the end, and is not part of the log's run.
    fn take_event(&mut self, block: Block, made: &mut VecDeque<Made>) -> Option<EndRequest> {
        let (framing, classify) = (&self.core.framing, &self.route.classify);
        let outcome = guarded(|| {
            let may_end = classify.may_end(&block.bytes);
            if may_end { classify.classify(&framing.view(&block.bytes)) } else { None }
        });
        match outcome {
            Ok(Some(outcome)) => return Some(EndRequest::Close(Ending::with_event(outcome.state(), block.bytes))),
            Ok(None) => {}
            Err(_) => self.core.telemetry.panicked("classify"),
        }
        if block.has_id
            && let Some(id) = framing.view(&block.bytes).id
        {
            self.inner_id = Some(id.into_owned());
        }
        self.batch.push(block.bytes.clone());
        // The seq is not known before the whole batch is pushed.
        made.push_back(Made::Event(block, EventId::default()));
        None
    }

    /// The next piece of the body: `Some` if it is over.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndRequest>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Some(self.eof())) };
        // Foreign code all of it: the body, its data, its error.
        let polled = guarded(|| {
            body.as_mut().poll_frame(cx).map_err(Into::into).map_ok(|frame| {
                let data = frame.into_data().ok();
                data.map(|mut data| data.copy_to_bytes(data.remaining()))
            })
        });
        Poll::Ready(match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(data)))) => {
                if let Some(data) = data {
                    self.scanner.push(data);
                }
                None
            }
            Ok(Poll::Ready(None)) => Some(self.eof()),
            Ok(Poll::Ready(Some(Err(error)))) => {
                let _ = guarded(|| self.core.telemetry.host_failed("inner body", &error));
                Some(EndRequest::supplied(StreamState::Failed, reason::ERROR))
            }
            Err(_) => {
                self.core.telemetry.panicked("inner body");
                Some(EndRequest::supplied(StreamState::Failed, reason::PANIC))
            }
        })
    }

    /// The body ended without a terminal event.
    fn eof(&self) -> EndRequest {
        if self.route.endless {
            EndRequest::Interrupt
        } else if self.route.classify.needs_terminal() {
            EndRequest::supplied(StreamState::Failed, reason::EOF)
        } else {
            EndRequest::supplied(StreamState::Completed, reason::EOF)
        }
    }

    /// Gives the batch to the recorder, which says its ids.
    fn hand_over<'a>(&mut self, made: impl Iterator<Item = &'a mut Made>) {
        if self.batch.is_empty() && self.inner_id.is_none() {
            return;
        }
        let first = self.lane.push(&self.core.recorder, &mut self.batch, self.inner_id.take());
        self.batch.clear();
        let ids = (first..).map(|seq| EventId::new(self.lane.epoch, seq));
        let events = made.filter_map(|made| match made {
            Made::Event(_, id) => Some(id),
            Made::Aside(_) => None,
        });
        for (place, id) in events.zip(ids) {
            *place = id;
        }
    }

    fn finish(&mut self, end: &EndRequest) {
        self.lane.end(&self.core.recorder, end.clone());
        self.drop_body();
    }
}

impl<B> Engine<B> {
    /// Ends the work before the body is over.
    pub(crate) fn abort(&mut self, end: EndRequest) {
        // First, so that followers see it even if dropping the inner body takes its time.
        self.lane.end(&self.core.recorder, end);
        self.drop_body();
    }

    /// Drops the inner body, whose code may panic in doing so.
    pub(crate) fn drop_body(&mut self) {
        self.context.stop();
        if let Some(body) = self.body.take() {
            drop_guarded(body);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.body.is_none()
    }
}

impl<B> Drop for Engine<B> {
    fn drop(&mut self) {
        self.drop_body();
    }
}
