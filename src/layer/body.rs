//! The response body of everything the layer answers.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::live::{Attached, Live, Next};
use crate::{
    error::BoxError,
    follow::{AnswerBody, FollowBody, tell_step},
    hub::Core,
    id::EventId,
};

/// The body of a response that passed a [`ResilientSseLayer`](crate::ResilientSseLayer).
///
/// A body that is no event stream passes frame by frame, with its hints and trailers.
///
/// # Cancel safety
///
/// Dropped at any point, the stream goes on or ends as its route's [`Disconnect`](crate::Disconnect)
/// says, and what the client has not seen is in the log.
pub struct ResilientSseBody<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    state: State<B>,
}

enum State<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    Pass(Pin<Box<B>>),
    Live(Box<Live<B>>),
    /// First what the client missed of an earlier run, then the run that its request started.
    Rerun(Box<Rerun<B>>),
    /// With the place of a client whose work somebody else drives.
    Follow(Box<FollowBody>, #[expect(dead_code, reason = "its drop tells that the client went")] Option<Attached<B>>),
    Recover(AnswerBody),
    Full(Option<Bytes>),
}

struct Rerun<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    core: Arc<Core>,
    missed: FollowBody,
    live: Box<Live<B>>,
    run: EventId,
}

impl<B> ResilientSseBody<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn pass(body: B) -> Self {
        Self { state: State::Pass(Box::pin(body)) }
    }

    pub(crate) fn live(live: Live<B>) -> Self {
        Self { state: State::Live(Box::new(live)) }
    }

    pub(crate) fn rerun(core: Arc<Core>, missed: FollowBody, live: Live<B>, run: EventId) -> Self {
        Self { state: State::Rerun(Box::new(Rerun { core, missed, live: Box::new(live), run })) }
    }

    pub(crate) fn follow(body: Box<FollowBody>) -> Self {
        Self { state: State::Follow(body, None) }
    }

    pub(crate) fn recover(body: AnswerBody) -> Self {
        Self { state: State::Recover(body) }
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { state: State::Full(Some(bytes).filter(|bytes| !bytes.is_empty())) }
    }

    /// The earlier run is told: goes over to the new one.
    fn go_live(&mut self) {
        let State::Rerun(rerun) = std::mem::replace(&mut self.state, State::Full(None)) else { return };
        let Rerun { core, mut missed, mut live, run } = *rerun;
        let step = missed.hand_over(run);
        live.set_speaker(missed.into_speaker());
        if tell_step(&core, live.speaker(), step, run.epoch) {
            self.state = State::Live(live);
        } else {
            // The voice has no word for what happened: its error form was the last.
            self.state = State::Full(live.speaker().take());
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Live(live) => match std::task::ready!(live.poll_next(cx)) {
                    Next::Frame(frame) => return Poll::Ready(Some(frame)),
                    Next::Follow(follow, attached) => self.state = State::Follow(follow, Some(attached)),
                    Next::Over => self.state = State::Full(None),
                },
                State::Rerun(rerun) => {
                    // A client that does not read of the earlier run holds up the new one.
                    rerun.live.polled();
                    match std::task::ready!(rerun.missed.poll_bytes(cx)) {
                        Some(frame) => {
                            rerun.live.spoke();
                            return Poll::Ready(Some(frame));
                        }
                        None => self.go_live(),
                    }
                }
                State::Follow(follow, _) => return follow.poll_bytes(cx),
                State::Full(bytes) => return Poll::Ready(bytes.take()),
                State::Recover(recover) => return recover.poll_bytes(cx),
                State::Pass(_) => return Poll::Ready(None),
            }
        }
    }
}

impl<B> Body for ResilientSseBody<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let State::Pass(body) = &mut this.state {
            let frame = std::task::ready!(body.as_mut().poll_frame(cx));
            if !matches!(frame, Some(Ok(_))) {
                this.state = State::Full(None);
            }
            // Free where the data is `Bytes` already.
            return Poll::Ready(
                frame.map(|frame| frame.map(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))),
            );
        }
        this.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Pass(body) => body.is_end_stream(),
            State::Full(bytes) => bytes.is_none(),
            State::Follow(follow, _) => follow.is_end_stream(),
            State::Recover(recover) => recover.is_end_stream(),
            State::Live(_) | State::Rerun(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Pass(body) => body.size_hint(),
            State::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            State::Recover(recover) => recover.size_hint(),
            State::Follow(..) | State::Live(_) | State::Rerun(_) => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for ResilientSseBody<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Pass(_) => "ResilientSseBody(pass)",
            State::Live(_) => "ResilientSseBody(live)",
            State::Rerun(_) => "ResilientSseBody(rerun)",
            State::Follow(..) => "ResilientSseBody(follow)",
            State::Recover(_) => "ResilientSseBody(recover)",
            State::Full(_) => "ResilientSseBody(full)",
        })
    }
}
