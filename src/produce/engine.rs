//! The engine: polls the inner body, cuts the bytes into blocks, and gives these to the recorder.

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
    spent::Spent,
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

/// How many inner frames one batch takes before its task yields.
const IDLE_FRAMES: usize = 64;

/// A frame takes at most this fraction of the recorder's room.
const ROOM_SHARE: usize = 16;

/// How many bytes an event has at most besides its block, id included. It is added to the block's size before the event
/// is written, so that no frame exceeds its limit.
const WITH_ID: usize = 192;

/// How many events a silent body keeps room for.
pub(crate) const FEW: usize = 4;

/// A piece of the inner body's output for the client.
#[derive(Debug)]
pub(crate) enum Made {
    /// Events, and the seq of the last one.
    Events(Frame, u64),
    /// Lines that are no event. They are not recorded, so only an attached client gets them.
    Aside(Bytes),
}

impl Made {
    /// Returns the seq of the last event that may have to be stored before delivery, or 0 for lines that are no event.
    pub(crate) fn seq(&self) -> u64 {
        match self {
            Self::Events(_, last) => *last,
            Self::Aside(_) => 0,
        }
    }

    /// Returns the number of events.
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

/// Events that are written and not yet given to the recorder.
struct Batch {
    out: BytesMut,
    events: u64,
    /// The seq of the next event.
    next: u64,
}

thread_local! {
    /// The buffer for batches. All bodies of a thread share one, so that a silent body holds no memory.
    static ROOM: Cell<BytesMut> = Cell::default();
}

/// A buffer that a large event has grown beyond this size is freed.
const KEPT_ROOM: usize = 512 << 10;

impl Batch {
    /// Takes the thread's buffer. The inner body may poll another body of this library, which then makes its own
    /// buffer.
    fn begin(next: u64) -> Self {
        Self { out: ROOM.take(), events: 0, next }
    }

    /// Discards the written events.
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

/// The result of polling the inner body for events.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Events or lines were made, and there may be more.
    Made,
    /// The inner body is pending.
    Waiting,
    /// The inner body has ended. The recorder has the end.
    Over(EndRequest),
}

/// The inner body, with the state that is needed to make events of it.
pub(crate) struct Engine<B> {
    node: Arc<Node>,
    route: Arc<Route>,
    pub(crate) lane: Arc<Lane>,
    stop: Stop,
    source: Option<Source<B>>,
    writer: FrameWriter,
    limits: EntryLimits,
    /// The last id and reconnect delay that the body set since the last batch.
    inner: Inner,
    /// Whether a body that ends now, without a terminal event, is complete.
    complete: bool,
    /// Whether the body was pending at least once.
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

    /// Makes events until there are `most`, the body is pending, or it has ended.
    ///
    /// The recorder gets the events. They are also appended to `made`, in order.
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
                    // If there was no event yet, nothing has told the store that the producer has begun.
                    self.node.recorder.ready(&self.lane);
                }
                Progress::Waiting
            }
        }
    }

    /// Takes blocks from the body until there are `most`, or another reason to stop. Returns the end if the body has
    /// ended.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        made: &mut VecDeque<Made>,
        most: usize,
    ) -> Option<EndRequest> {
        // Taken out of `self`, since the blocks are borrowed from the source.
        let Some(mut source) = self.source.take() else { return Some(self.eof()) };
        // Guarded: the wire format may be the application's code, and may panic.
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
        let (mut found, mut bytes, mut idle, mut spent) = (0, 0, 0, Spent::default());
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
                    // The events before these lines go first, to keep the order.
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
                    match source.poll_feed(cx, &mut spent) {
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

    /// Writes an event to the batch. A terminal event is returned as the stream's end instead.
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
                // Copied, since it is kept for the recovery window and must not keep the whole chunk alive.
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

    /// Returns the end of a body that ended by itself, without a terminal event.
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

    /// Gives the written events to the recorder and the client, as one shared frame.
    fn hand_over(&mut self, batch: &mut Batch, made: &mut VecDeque<Made>) {
        if batch.events == 0 {
            return;
        }
        // All events are searched at once, which is faster, since few events set a delay.
        self.inner.retry = self.node.framing.retry_in(&batch.out).or(self.inner.retry);
        let frame = Frame { count: std::mem::take(&mut batch.events), bytes: exact(&batch.out) };
        batch.out.clear();
        if made.capacity() == 0 {
            // Most polls make one frame, so room for one is enough.
            made.reserve_exact(1);
        }
        made.push_back(Made::Events(frame.clone(), batch.next - 1));
        self.lane.push(&self.node.recorder, frame, std::mem::take(&mut self.inner));
    }

    /// Gives the end to the recorder, and drops the source or polls it on in the background.
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
                    // The library has failed the stream, for example for an event that is too large. The work has not
                    // ended yet, so it must be told to stop.
                    self.stop.stop();
                }
                drop(source);
            }
        }
    }
}

impl<B> Engine<B> {
    /// Ends the stream before the inner body has ended, and drops the body.
    pub(crate) fn abort(&mut self, end: EndRequest) {
        // Ended first, so that followers see the end even if dropping the inner body takes long.
        self.lane.end(&self.node.recorder, end);
        self.discard();
    }

    /// Drops the inner body before it has ended, and tells its work to stop.
    pub(crate) fn discard(&mut self) {
        if let Some(source) = self.source.take() {
            self.stop.stop();
            drop(source);
        }
    }

    /// Whether the inner body has ended its stream or was dropped.
    pub(crate) fn is_over(&self) -> bool {
        self.source.is_none()
    }

    /// Takes the error that the inner body failed with, if it failed.
    pub(crate) fn take_error(&mut self) -> Option<BoxError> {
        self.error.take()
    }
}

impl<B> Drop for Engine<B> {
    fn drop(&mut self) {
        self.discard();
    }
}
