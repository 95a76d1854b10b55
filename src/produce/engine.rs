//! The producer: polls the inner body, cuts it into blocks, gives them to the recorder.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};

use super::{
    after_last::AfterLast,
    source::{Fed, Source},
    stop::Stop,
};
use crate::{
    model::{
        config::BATCH_BYTES,
        error::BoxError,
        id::EventId,
        stream::{Ending, Frame, StreamState, reason},
    },
    node::Node,
    produce::inner_body::InnerBody,
    recorder::{EndRequest, EntryLimits, Inner, Lane},
    route::settings::Route,
    runtime::panics::guarded,
    wire::{
        Block, Scanned,
        frame::{FrameWriter, exact},
    },
};

/// Inner frames without an event that one poll takes before others get their turn.
const IDLE_FRAMES: usize = 64;

/// Of what is waited for at a time, a frame takes at most this part of the recorder's room.
const ROOM_SHARE: usize = 16;

/// What an event has at most besides its block, id included: so that a frame is not found to be too large once it is written.
const WITH_ID: usize = 192;

/// Events that a silent body keeps the room for.
pub(crate) const FEW: usize = 4;

/// What a client is to be given.
#[derive(Debug)]
pub(crate) enum Made {
    /// Events, and the seq of the last one.
    Events(Frame, u64),
    /// Lines that are no event, for a client that is there to see them.
    Aside(Bytes),
}

impl Made {
    /// What must be stored before it is delivered.
    pub(crate) fn seq(&self) -> u64 {
        match self {
            Self::Events(_, last) => *last,
            Self::Aside(_) => 0,
        }
    }

    /// How many events it is.
    pub(crate) fn events(&self) -> u64 {
        match self {
            Self::Events(frame, _) => frame.count,
            Self::Aside(_) => 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Events(frame, _) => frame.bytes.len(),
            Self::Aside(lines) => lines.len(),
        }
    }
}

/// Events that are written, and not handed over yet.
#[derive(Default)]
struct Batch {
    out: BytesMut,
    events: u64,
    /// The seq of the next event.
    next: u64,
}

thread_local! {
    /// Where batches are written: one room for all bodies of a thread, so that a silent body keeps none.
    static ROOM: Cell<BytesMut> = Cell::default();
}

/// A room that has grown beyond this, for a large event, is given back.
const KEPT_ROOM: usize = 512 << 10;

impl Batch {
    /// The inner body is foreign code, and may poll another of these bodies: that one finds no room, and makes its own.
    fn begin(next: u64) -> Self {
        Self { out: ROOM.take(), events: 0, next }
    }

    /// What is written is not to be handed over.
    fn forget(&mut self) {
        self.events = 0;
        self.out.clear();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.out.capacity() <= KEPT_ROOM {
            self.out.clear();
            ROOM.set(std::mem::take(&mut self.out));
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
    node: Arc<Node>,
    route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    stop: Stop,
    source: Option<Source<B>>,
    writer: FrameWriter,
    limits: EntryLimits,
    /// The ids and reconnect delays that the body set since the last batch, apart from events.
    inner: Inner,
    /// Whether a body that ends now, without a terminal event, was complete.
    complete: bool,
    /// Whether the body has ever had nothing to give.
    has_waited: bool,
    /// The error that the body failed with.
    error: Option<BoxError>,
}

impl<B> Engine<B>
where
    B: InnerBody,
{
    pub(crate) fn new(node: Arc<Node>, route: Arc<Route>, lane: Arc<Lane>, stop: Stop, body: B) -> Self {
        let scanner = node.framing.scanner(node.settings.max_event_bytes);
        let complete = !route.classify.needs_terminal();
        let source = Some(Source::new(body, scanner));
        let (writer, mut limits) = (lane.writer(), lane.entry_limits());
        limits.bytes = limits.bytes.min(node.settings.recorder_bytes / ROOM_SHARE);
        Self {
            node,
            route,
            lane,
            stop,
            source,
            writer,
            limits,
            inner: Inner::default(),
            complete,
            has_waited: false,
            error: None,
        }
    }

    /// Makes events until there are so many, the body waits, or it is over.
    ///
    /// What was made goes to the recorder, and in order to the back of `made`.
    pub(crate) fn make(&mut self, cx: &mut Context<'_>, made: &mut VecDeque<Made>, most: usize) -> Progress {
        let before = made.len();
        let mut batch = Batch::begin(self.lane.next());
        let end = self.fill(cx, &mut batch, made, most);
        self.hand_over(&mut batch, made);
        if !self.inner.is_none() {
            self.lane.push(&self.node.recorder, Frame::default(), std::mem::take(&mut self.inner));
        }
        match end {
            Some(end) => {
                self.finish(&end);
                Progress::Over(end)
            }
            None if made.len() > before => Progress::Made,
            None => {
                if !std::mem::replace(&mut self.has_waited, true) {
                    // There is no event yet that would say that the producer has begun.
                    self.node.recorder.ready(&self.lane);
                }
                Progress::Waiting
            }
        }
    }

    /// Takes blocks from the body until there are so many or there is other reason to stop. Returns the end, if that was the
    /// reason.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        made: &mut VecDeque<Made>,
        most: usize,
    ) -> Option<EndRequest> {
        // Apart from the rest, as what is found in it is borrowed from it.
        let Some(mut source) = self.source.take() else { return Some(self.eof()) };
        // Guarded: a wire format is foreign code, too.
        let end = guarded(|| self.fill_from(&mut source, cx, batch, made, most));
        self.source = Some(source);
        end.unwrap_or_else(|_| {
            self.node.telemetry.panicked("framing");
            batch.forget();
            Some(EndRequest::supplied(StreamState::Failed, reason::PANIC))
        })
    }

    fn fill_from(
        &mut self,
        source: &mut Source<B>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        made: &mut VecDeque<Made>,
        most: usize,
    ) -> Option<EndRequest> {
        let (mut found, mut bytes, mut idle) = (0, 0, 0);
        while found < most && bytes < BATCH_BYTES {
            match source.next() {
                Ok(Some(Scanned::Event(block))) => {
                    (found, bytes) = (found + 1, bytes + block.bytes.len());
                    if let Some(end) = self.take_event(block, batch, made) {
                        return Some(end);
                    }
                }
                Ok(Some(Scanned::Aside(lines))) => {
                    (found, bytes) = (found + 1, bytes + lines.len());
                    // In its place between the events.
                    self.hand_over(batch, made);
                    self.inner.retry = self.node.framing.retry_in(lines).or(self.inner.retry);
                    made.push_back(Made::Aside(Bytes::copy_from_slice(lines)));
                }
                Ok(Some(Scanned::Id(id))) => self.inner.id = Some(String::from_utf8_lossy(id).into_owned()),
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
    fn take_event(&mut self, block: Block<'_>, batch: &mut Batch, made: &mut VecDeque<Made>) -> Option<EndRequest> {
        let (framing, classify) = (&self.node.framing, &self.route.classify);
        let complete = &mut self.complete;
        let outcome = guarded(|| {
            if classify.needs_terminal() {
                *complete = classify.completes(block.bytes).unwrap_or(*complete);
            }
            let may_end = classify.may_end(block.bytes);
            if may_end { classify.classify(&framing.view(block.bytes)) } else { None }
        });
        match outcome {
            Ok(Some(outcome)) => {
                // Kept for the recovery window, and so in memory of its own.
                return Some(EndRequest::close(Ending::with_event(outcome.state(), exact(block.bytes))));
            }
            Ok(None) => {}
            Err(_) => self.node.telemetry.panicked("classify"),
        }
        if !self.limits.take(batch.events + 1, batch.out.len() + block.bytes.len() + WITH_ID) {
            self.hand_over(batch, made);
        }
        let framing = &self.node.framing;
        if block.has_id
            && let Some(id) = framing.view(block.bytes).id
        {
            self.inner.id = Some(id.into_owned());
        }
        let id = EventId::new(self.lane.epoch, batch.next);
        self.writer.write(&**framing, block.bytes, block.has_id, id, &mut batch.out);
        (batch.events, batch.next) = (batch.events + 1, batch.next + 1);
        None
    }

    /// The body ended by itself, without a terminal event.
    fn end_of(&mut self, fed: Fed) -> EndRequest {
        let reason = match fed {
            Fed::More | Fed::Over => return self.eof(),
            Fed::Failed(error) => {
                let _ = guarded(|| self.node.telemetry.host_failed("inner body", &error));
                self.error = Some(error);
                reason::ERROR
            }
            Fed::Panicked => {
                self.node.telemetry.panicked("inner body");
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

    /// Gives what is written to the recorder, and to the client: one frame for both.
    fn hand_over(&mut self, batch: &mut Batch, made: &mut VecDeque<Made>) {
        if batch.events == 0 {
            return;
        }
        // Of all events at once: a delay is rare, and they are looked through faster so.
        self.inner.retry = self.node.framing.retry_in(&batch.out).or(self.inner.retry);
        let frame = Frame { count: std::mem::take(&mut batch.events), bytes: exact(&batch.out) };
        batch.out.clear();
        if made.capacity() == 0 {
            // Mostly one frame is made at a time: the room for it is kept.
            made.reserve_exact(1);
        }
        made.push_back(Made::Events(frame.clone(), batch.next - 1));
        self.lane.push(&self.node.recorder, frame, std::mem::take(&mut self.inner));
    }

    /// The body ended its stream, in one way or another.
    fn finish(&mut self, end: &EndRequest) {
        self.lane.end(&self.node.recorder, end.clone());
        let Some(source) = self.source.take() else { return };
        match end {
            EndRequest::Close(ending) if ending.event.is_some() && !source.has_ended() => {
                let (node, lane) = (Arc::clone(&self.node), Arc::clone(&self.lane));
                let rest = AfterLast::new(node, lane, self.stop.clone(), Ending::clone(ending), source);
                self.node.executor.begin(rest);
            }
            _ => {
                if !source.has_ended() {
                    // The library fails the stream for an event that is too large: the work has more to do.
                    self.stop.stop();
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
        self.lane.end(&self.node.recorder, end);
        self.discard();
    }

    /// Drops the inner body before it is over: its work is to stop.
    pub(crate) fn discard(&mut self) {
        if let Some(source) = self.source.take() {
            self.stop.stop();
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
