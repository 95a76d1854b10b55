//! The producer: polls the inner body, cuts it into blocks, gives them to the recorder.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Body;

use super::{
    after_last::AfterLast,
    context::StreamContext,
    route::Route,
    source::{Fed, Source},
};
use crate::{
    config::BATCH_BYTES,
    error::BoxError,
    hub::Core,
    id::EventId,
    panics::guarded,
    recorder::{EndRequest, Inner, Lane},
    stream::{Ending, StreamState, reason},
    wire::{Block, Scanned, pack},
};

/// Inner frames without an event that one poll takes before others get their turn.
const IDLE_FRAMES: usize = 64;

/// Events that fill less than this part (a quarter) of their chunks are copied out of them. Denser ones pin at most four
/// times their own bytes.
const LEAST_PART: usize = 4;

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

/// The events made since the position `since`.
fn events(made: &mut VecDeque<Made>, since: usize) -> impl Iterator<Item = (&mut Block, &mut EventId)> {
    made.iter_mut().skip(since).filter_map(|made| match made {
        Made::Event(block, id) => Some((block, id)),
        Made::Aside(_) => None,
    })
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
    source: Option<Source<B>>,
    batch: Vec<Bytes>,
    /// The ids and reconnect delays that the body set since the last batch, apart from events.
    inner: Inner,
    /// Whether a body that ends now, without a terminal event, was complete.
    complete: bool,
    /// The error that the body failed with.
    error: Option<BoxError>,
}

impl<B> Engine<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(core: Arc<Core>, route: Arc<Route>, lane: Arc<Lane>, context: StreamContext, body: B) -> Self {
        let scanner = core.framing.scanner(core.settings.max_event);
        let complete = !route.classify.needs_terminal();
        let source = Some(Source::new(body, scanner));
        Self { core, route, lane, context, source, batch: Vec::new(), inner: Inner::default(), complete, error: None }
    }

    /// Makes events until there are so many, the body waits, or it is over.
    ///
    /// What was made goes to the recorder, and in order to the back of `made`.
    pub(crate) fn make(&mut self, cx: &mut Context<'_>, made: &mut VecDeque<Made>, most: usize) -> Progress {
        let before = made.len();
        let end = self.fill(cx, made, before + most);
        let something = made.len() > before;
        self.hand_over(made, before);
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

    /// Takes blocks from the body until `made` is full or there is other reason to stop. Returns the end, if that was the
    /// reason.
    fn fill(&mut self, cx: &mut Context<'_>, made: &mut VecDeque<Made>, full: usize) -> Option<EndRequest> {
        let (mut bytes, mut idle) = (0, 0);
        while made.len() < full && bytes < BATCH_BYTES {
            let Some(source) = &mut self.source else { return Some(self.eof()) };
            match source.next() {
                Ok(Some(Scanned::Event(block))) => {
                    bytes += block.bytes.len();
                    if let Some(end) = self.take_event(block, made) {
                        return Some(end);
                    }
                }
                Ok(Some(Scanned::Aside(lines))) => {
                    bytes += lines.len();
                    self.inner.retry = self.core.framing.retry_in(&lines).or(self.inner.retry);
                    made.push_back(Made::Aside(lines));
                }
                Ok(Some(Scanned::Id(id))) => self.inner.id = Some(String::from_utf8_lossy(&id).into_owned()),
                Ok(None) if idle == IDLE_FRAMES => {
                    cx.waker().wake_by_ref();
                    return None;
                }
                Ok(None) => {
                    idle += 1;
                    match source.poll_feed(cx) {
                        Poll::Pending => return None,
                        Poll::Ready(Fed::More) => {}
                        Poll::Ready(fed) => return Some(self.end_of(fed)),
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
        let complete = &mut self.complete;
        let outcome = guarded(|| {
            if classify.needs_terminal() {
                *complete = classify.completes(&block.bytes).unwrap_or(*complete);
            }
            let may_end = classify.may_end(&block.bytes);
            if may_end { classify.classify(&framing.view(&block.bytes)) } else { None }
        });
        match outcome {
            Ok(Some(outcome)) => {
                // Kept for the recovery window, and so in memory of its own.
                let event = Bytes::copy_from_slice(&block.bytes);
                return Some(EndRequest::Close(Ending::with_event(outcome.state(), event)));
            }
            Ok(None) => {}
            Err(_) => self.core.telemetry.panicked("classify"),
        }
        if block.has_id
            && let Some(id) = framing.view(&block.bytes).id
        {
            self.inner.id = Some(id.into_owned());
        }
        self.inner.retry = framing.retry_in(&block.bytes).or(self.inner.retry);
        self.batch.push(block.bytes.clone());
        // The seq is not known before the whole batch is pushed.
        made.push_back(Made::Event(block, EventId::default()));
        None
    }

    /// The body ended by itself, without a terminal event.
    fn end_of(&mut self, fed: Fed) -> EndRequest {
        let reason = match fed {
            Fed::More | Fed::Over => return self.eof(),
            Fed::Failed(error) => {
                let _ = guarded(|| self.core.telemetry.host_failed("inner body", &error));
                self.error = Some(error);
                reason::ERROR
            }
            Fed::Panicked => {
                self.core.telemetry.panicked("inner body");
                reason::PANIC
            }
        };
        EndRequest::supplied(StreamState::Failed, reason)
    }

    fn eof(&self) -> EndRequest {
        if self.route.endless {
            EndRequest::Interrupt
        } else if self.complete {
            EndRequest::supplied(StreamState::Completed, reason::EOF)
        } else {
            EndRequest::supplied(StreamState::Failed, reason::EOF)
        }
    }

    /// Gives the batch to the recorder, which says its ids.
    fn hand_over(&mut self, made: &mut VecDeque<Made>, before: usize) {
        if self.batch.is_empty() && self.inner.is_none() {
            return;
        }
        self.let_go_of_chunks(made, before);
        let first = self.lane.push(&self.core.recorder, &mut self.batch, std::mem::take(&mut self.inner));
        self.batch.clear();
        for ((_, id), seq) in events(made, before).zip(first..) {
            *id = EventId::new(self.lane.epoch, seq);
        }
    }

    /// Copies events that fill less than a quarter of their chunks, so that kept events do not pin the rest.
    fn let_go_of_chunks(&mut self, made: &mut VecDeque<Made>, before: usize) {
        let fed = self.source.as_mut().map_or(0, Source::take_fed);
        let kept: usize = self.batch.iter().map(Bytes::len).sum();
        if kept >= fed / LEAST_PART {
            return;
        }
        pack(&mut self.batch);
        for ((block, _), packed) in events(made, before).zip(&self.batch) {
            block.bytes.clone_from(packed);
        }
    }

    /// The body ended its stream, in one way or another.
    fn finish(&mut self, end: &EndRequest) {
        self.lane.end(&self.core.recorder, end.clone());
        let Some(source) = self.source.take() else { return };
        match end {
            EndRequest::Close(ending) if ending.event.is_some() && !source.has_ended() => {
                let (core, lane) = (Arc::clone(&self.core), Arc::clone(&self.lane));
                let rest = AfterLast::new(core, lane, self.context.clone(), ending.clone(), source);
                self.core.executor.begin(rest);
            }
            _ => {
                if !source.has_ended() {
                    // The library fails the stream for an event that is too large: the work has more to do.
                    self.context.stop();
                }
                drop(source);
            }
        }
    }
}

impl<B> Engine<B> {
    /// Ends the work before the body is over.
    pub(crate) fn abort(&mut self, end: EndRequest) {
        // First, so that followers see it even if dropping the inner body takes its time.
        self.lane.end(&self.core.recorder, end);
        self.discard();
    }

    /// Drops the inner body before it is over: its work is to stop.
    pub(crate) fn discard(&mut self) {
        if let Some(source) = self.source.take() {
            self.context.stop();
            drop(source);
        }
    }

    /// Whether the inner body ended its stream, or was dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.source.is_none()
    }

    /// Takes the error that the body failed with, if it did.
    pub(crate) fn take_error(&mut self) -> Option<BoxError> {
        self.error.take()
    }
}

impl<B> Drop for Engine<B> {
    fn drop(&mut self) {
        self.discard();
    }
}
