//! The body of the client whose request runs the inner service: makes, records and delivers.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::{
    engine::{FEW, Made, Progress},
    producer::Producer,
};
use crate::{
    follow::{
        FollowBody, Manner,
        closing::{Closing, End, finish},
    },
    model::{config::BATCH_BYTES, error::BodyError, id::EventId},
    produce::inner_body::InnerBody,
    recorder::{EndRequest, Lane, Status},
    route::speaker::Speaker,
    runtime::{pulse::Pulse, sync::Entered},
};

/// Events that a body which is always ready makes before others get their turn. Where they are large its client's socket is
/// full sooner.
const TURN: u64 = 2048;

/// What a body gives next.
pub(crate) enum Next<B>
where
    B: InnerBody,
{
    Frame(Bytes),
    /// The rest is in the log: another producer, or a task, drives the work on.
    Follow(Box<FollowBody>, Attached<B>),
    /// Every frame was given; this is the end.
    Over(Closing),
}

/// A client, attached to the producer.
pub(crate) struct Live<B>
where
    B: InnerBody,
{
    pub(super) producer: Arc<Producer<B>>,
    /// Taken along by the body that follows, if somebody else drives the work.
    attached: Option<Attached<B>>,
    speaker: Speaker,
    manner: Manner,
    pub(super) pulse: Pulse,
    /// Made, and not delivered yet: perhaps because the store has not acknowledged it.
    pub(super) made: VecDeque<Made>,
    /// How many events were made since the body last waited.
    turn: u64,
    delivered: EventId,
    /// How the inner body ended, once it has.
    pub(super) end: Option<EndRequest>,
    /// While the store is waited for.
    pub(super) wait: Option<Pin<Box<Sleep>>>,
    /// The store was waited for in vain, and nothing since: an end that comes now may have been made before that.
    pub(super) held_up: bool,
    /// Since when there is silence; before the first event, when the request came.
    silent_since: Option<Instant>,
    /// Whether there was an event yet.
    heard: bool,
    /// The last words are written: how the body ends after them.
    closing: Option<Box<Closing>>,
    /// No lane stands for the stream: a drain waits for this client all the same.
    beyond_record: Option<Entered>,
}

/// Tells the producer when the client goes away, however it goes.
pub(crate) struct Attached<B>(Arc<Producer<B>>)
where
    B: InnerBody;

impl<B> Drop for Attached<B>
where
    B: InnerBody,
{
    fn drop(&mut self) {
        self.0.client_gone();
    }
}

impl<B> Live<B>
where
    B: InnerBody,
{
    pub(crate) fn new(producer: Arc<Producer<B>>, speaker: Speaker, manner: Manner, opened: Instant) -> Self {
        let (node, lane) = (Arc::clone(&producer.node), Arc::clone(&producer.lane));
        let unrecorded = lane.is_unrecorded();
        lane.readers.attach_client();
        let pulse = node.pulses.enter(Arc::clone(&lane.waker), manner.heartbeat, Some(producer.clone()));
        Self {
            delivered: EventId::new(lane.epoch, 0),
            attached: Some(Attached(Arc::clone(&producer))),
            producer,
            speaker,
            manner,
            pulse,
            made: VecDeque::new(),
            turn: 0,
            end: None,
            wait: None,
            held_up: false,
            silent_since: Some(opened),
            heard: false,
            closing: None,
            beyond_record: (unrecorded && !manner.endless && !manner.comes_again).then(|| node.beyond_record.enter()),
        }
    }

    pub(crate) fn speaker(&mut self) -> &mut Speaker {
        &mut self.speaker
    }

    pub(crate) fn set_speaker(&mut self, speaker: Speaker) {
        self.speaker = speaker;
    }

    /// The client asks for more, of what is told before this body's own.
    pub(crate) fn polled(&self) {
        self.pulse.polled();
    }

    /// The client was given some of that.
    pub(crate) fn spoke(&self) {
        self.pulse.spoke();
    }

    /// What is given next.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        self.pulse.polled();
        loop {
            self.deliver();
            if let Some(frame) = self.speaker.take() {
                self.pulse.spoke();
                return Poll::Ready(Next::Frame(frame));
            }
            if let Some(closing) = self.closing.take() {
                return Poll::Ready(Next::Over(*closing));
            }
            let going_on = if !self.made.is_empty() {
                self.wait_for_store(cx)
            } else if self.end.is_some() {
                self.wait_for_end(cx)
            } else {
                match self.produce(cx) {
                    Produced::GoOn(going_on) => going_on,
                    Produced::Follow => match self.follow() {
                        Some(next) => return Poll::Ready(next),
                        None => true,
                    },
                }
            };
            if !going_on {
                return self.idle(cx);
            }
        }
    }

    /// Writes what was made and may be delivered: a batch, made at once, is delivered at once.
    fn deliver(&mut self) {
        if self.made.is_empty() {
            return;
        }
        let limit = self.deliverable();
        let (mut count, mut bytes) = (0, 0);
        for made in &self.made {
            if made.seq() > limit || bytes >= BATCH_BYTES {
                break;
            }
            count += 1;
            bytes += made.len();
        }
        if count > 0 {
            // What waits next has a time limit of its own.
            self.waits_no_more();
        }
        for made in self.made.drain(..count) {
            match made {
                Made::Events(frame, last) => {
                    self.delivered = EventId::new(self.delivered.epoch, last);
                    self.speaker.frame(frame.bytes, self.delivered);
                }
                Made::Aside(lines) => self.speaker.aside(&lines),
            }
        }
        self.lane().readers.client_at(self.delivered.seq);
    }

    pub(super) fn deliverable(&self) -> u64 {
        if self.producer.node.store.is_broken(&self.lane().key) {
            self.lane().pass_by();
            return u64::MAX;
        }
        self.lane().deliverable(self.producer.route.durability)
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.producer.lane
    }

    /// Nothing to give now, but perhaps a heartbeat.
    fn idle(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        self.turn = 0;
        if self.made.is_empty() && self.made.capacity() > FEW {
            self.made = VecDeque::new();
        }
        self.speaker.shrink();
        if !self.pulse.silent(cx.waker()) {
            return Poll::Pending;
        }
        self.speaker.heartbeat();
        self.pulse.beat();
        self.speaker.take().map_or(Poll::Pending, |frame| Poll::Ready(Next::Frame(frame)))
    }

    /// Has the inner body make a batch; `None` if somebody else drives it now.
    pub(super) fn make(&mut self, cx: &mut Context<'_>) -> Option<Progress> {
        let before = self.made.len();
        let progress = self.producer.make(cx, &mut self.made);
        if matches!(progress, Some(Progress::Made)) {
            self.turn += self.made.range(before..).map(Made::events).sum::<u64>().max(1);
        }
        progress
    }

    pub(super) fn finish(&mut self, end: End) {
        self.beyond_record = None;
        self.closing = Some(Box::new(finish(&mut self.speaker, end, self.manner.endless)));
    }

    /// The stream goes on without this body, or not at all for now.
    pub(super) fn finish_unfinished(&mut self) {
        let error = match &self.end {
            _ if self.producer.node.is_draining() => BodyError::Draining,
            Some(EndRequest::Interrupt) => BodyError::Interrupted,
            _ => BodyError::Superseded,
        };
        self.finish(End::Unfinished(error));
    }

    /// Breaks the body, once everything written has gone out.
    pub(crate) fn break_off(mut self, error: BodyError) -> (Option<Bytes>, Closing) {
        self.finish(End::Unfinished(error));
        (self.speaker.take(), self.closing.take().map_or_else(Closing::clean, |closing| *closing))
    }

    /// Has the inner body make events.
    fn produce(&mut self, cx: &mut Context<'_>) -> Produced {
        if self.turn >= TURN {
            // What is written goes out meanwhile, too.
            cx.waker().wake_by_ref();
            return Produced::GoOn(false);
        }
        // In this order: whoever ended the stream after taking the work over is then known to have taken it
        // over, and what was made in between is in the log, and comes first.
        let halted = self.lane().is_halted();
        if self.producer.is_driven() {
            if !self.producer.is_released() {
                return Produced::Follow;
            }
            self.finish(End::Unfinished(BodyError::Draining));
            return Produced::GoOn(true);
        }
        if self.is_let_go() {
            self.producer.discard();
            self.finish(End::Unfinished(BodyError::Draining));
            return Produced::GoOn(true);
        }
        if halted && self.is_cut_off() {
            self.producer.discard();
            return Produced::Follow;
        }
        if halted && !self.go_on_halted() {
            return Produced::GoOn(true);
        }
        match self.make(cx) {
            None if self.producer.is_driven() => Produced::GoOn(true),
            None => {
                match self.lane().requested_end() {
                    // A drain or a stop has ended the work: that is told like an end of the body's own.
                    Some(end) => self.end = Some(end),
                    None if self.go_on_halted() => self.finish_unfinished(),
                    None => {}
                }
                Produced::GoOn(true)
            }
            Some(Progress::Made) => {
                self.heard();
                Produced::GoOn(true)
            }
            Some(Progress::Over(end)) => {
                self.end = Some(end);
                Produced::GoOn(true)
            }
            Some(Progress::Waiting) => {
                self.held_up = false;
                self.silent_since.get_or_insert_with(Instant::now);
                // Registered only now; whoever halted or took over the work in between is seen by this look.
                self.pulse.register(cx.waker());
                let halted = self.lane().is_halted() && !self.producer.node.serves_on(&self.lane().status());
                Produced::GoOn(halted || self.producer.is_taken_over() || self.is_let_go())
            }
        }
    }

    /// Whether somebody else ended the stream behind events that the client was not given: the log has them, or knows that they
    /// are missing.
    pub(super) fn is_cut_off(&self) -> bool {
        let lane = self.lane();
        match lane.status() {
            Status::Ended(ended) => {
                let behind = ended.last.epoch == lane.epoch && ended.last > self.delivered;
                behind && !lane.is_unrecorded() && !self.producer.node.serves_on(&Status::Ended(ended))
            }
            Status::Running | Status::Superseded => false,
        }
    }

    /// The stream ended elsewhere, or another producer has it. Returns whether this one is served on.
    fn go_on_halted(&mut self) -> bool {
        let status = self.lane().status();
        if self.producer.node.serves_on(&status) {
            if status != Status::Running {
                self.beyond_record.get_or_insert_with(|| self.producer.node.beyond_record.enter());
            }
            return true;
        }
        self.producer.discard();
        match status {
            Status::Ended(ended) => self.finish(End::of(*ended)),
            Status::Running | Status::Superseded => self.finish_unfinished(),
        }
        false
    }

    /// Whether the process shuts down and nobody else tells this body: its stream is not recorded.
    fn is_let_go(&self) -> bool {
        let goes_at_once = self.manner.endless || self.manner.comes_again;
        self.lane().is_unrecorded()
            && self.producer.node.is_draining()
            && (goes_at_once || self.producer.node.is_letting_go())
    }

    /// An event came: how long that took.
    fn heard(&mut self) {
        let Some(since) = self.silent_since.take() else { return };
        if std::mem::replace(&mut self.heard, true) {
            self.producer.node.telemetry.event_gap(since.elapsed());
        } else {
            self.producer.node.telemetry.first_event(since.elapsed());
        }
    }

    /// Somebody else drives the work: what was not delivered is in the log.
    fn follow(&mut self) -> Option<Next<B>> {
        let attached = self.attached.take()?;
        let key = self.lane().key.clone();
        let follow =
            FollowBody::taking_over(&self.producer.node, key, self.delivered, self.manner, self.speaker.replacement());
        // The follower enters its own place.
        self.lane().readers.detach_client();
        Some(Next::Follow(Box::new(follow), attached))
    }
}

/// What came of having the inner body make events.
enum Produced {
    /// Whether there is more to do at once.
    GoOn(bool),
    Follow,
}
