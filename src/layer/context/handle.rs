//! The methods of [`StreamContext`] for handlers.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use tokio_util::sync::WaitForCancellationFuture;

use super::state::{Early, Inner, StreamContext, Waiting};
use crate::{
    layer::{admit::Admission, asked::Asked},
    model::{
        id::{EventId, Owner, StreamId},
        metadata::{MetadataTooLarge, keep},
        turn::Turn,
    },
    node::reject::Rejection,
    recorder::Lane,
    runtime::sync::lock,
};

impl StreamContext {
    /// Returns the stream's id.
    #[must_use]
    pub fn id(&self) -> &StreamId {
        &self.0.asked.key.id
    }

    /// Returns the stream's owner.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.asked.key.owner
    }

    /// Returns whether the stream is recorded and its metadata kept, or `None` while that is not known. On a route that
    /// makes up ids it is known only after the handler has answered or called [`conversation`](Self::conversation).
    #[must_use]
    pub fn is_recorded(&self) -> Option<bool> {
        self.0.recorded.get().copied()
    }

    /// Returns the epoch of this run, or `None` until the stream is registered. On a route that makes up ids the stream
    /// is registered only after the handler has answered or called [`conversation`](Self::conversation).
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.0.lane.get().map(|lane| lane.epoch)
    }

    /// Returns the last event that the client saw, if the request has a readable cursor.
    #[must_use]
    pub fn cursor(&self) -> Option<EventId> {
        self.0.asked.cursor()
    }

    /// Returns the last id that the handler itself gave an event of this stream in an earlier run. The inner request
    /// carries the same id as its `Last-Event-ID`.
    #[must_use]
    pub fn last_inner_id(&self) -> Option<&str> {
        self.0.last_inner_id.as_deref()
    }

    /// Returns a future that completes when the stream's work should stop.
    ///
    /// The work should stop if the stream was stopped or ended elsewhere, if it had no reader for too long, if an event
    /// was too large, if the process shuts down, or if the handler is dropped before it answers. The library drops the
    /// handler's body in all these cases. This future is for work that the body does not own.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. A later call completes at once if the work should stop.
    pub fn stopped(&self) -> WaitStopped<'_> {
        WaitStopped { wait: self.0.stop.token().cancelled() }
    }

    /// Returns whether the stream's work should stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_stopped()
    }

    /// Keeps a key and a value with the stream, such as the id of the job that makes its events, for the job probe on
    /// any node. They are stored before the next event is delivered. A value that the key had before is replaced.
    ///
    /// A stream that is stopped or replaced before they are stored ends without them. What is known from the request's
    /// head belongs in [`Identity::metadata`](crate::Identity::metadata), which is stored with the registration.
    ///
    /// On an unrecorded stream this returns `Ok`, but nothing is kept: see [`is_recorded`](Self::is_recorded).
    ///
    /// # Errors
    ///
    /// [`MetadataTooLarge`] if the stream would keep more than 4 KiB of keys and values. The earlier metadata stays.
    pub fn metadata(&self, key: impl Into<String>, value: impl Into<String>) -> Result<(), MetadataTooLarge> {
        let (key, value) = (key.into(), value.into());
        let mut metadata = lock(&self.0.metadata);
        let kept = match self.0.lane.get() {
            Some(lane) => lane.keep(&self.0.node.recorder, key, value),
            None => keep(&mut metadata, key, value).map(drop),
        };
        kept.map_err(|bytes| MetadataTooLarge { bytes })
    }

    /// Makes the stream a turn of its owner's conversation of this name, and registers the stream if it is not
    /// registered yet.
    ///
    /// This is for a handler that finds the name in the request's body. For a name in the request's head use
    /// [`ResilientSseLayer::conversation`](crate::ResilientSseLayer::conversation).
    ///
    /// ```
    /// # use resilient_sse::StreamContext;
    /// # use http::StatusCode;
    /// # struct Question { chat: String }
    /// async fn ask(stream: &StreamContext, question: &Question) -> Result<(), (StatusCode, String)> {
    ///     let named = stream.conversation(&question.chat).await;
    ///     named.map_err(|refused| (refused.status(), refused.to_string()))
    /// }
    /// ```
    ///
    /// While the store is away, this returns `Ok` on a route that serves streams unrecorded then: see
    /// [`is_recorded`](Self::is_recorded). If the handler answers with something else than an event stream, fails or is
    /// dropped, the turn is withdrawn. On a [`Detach`](crate::Disconnect::Detach) route the handler goes on after this
    /// call even if its client leaves, and the client can resume the conversation.
    ///
    /// # Errors
    ///
    /// A [`Rejection`], with the status that the handler should answer with:
    ///
    /// - `Running` with [`Overlap::Refuse`](crate::Overlap::Refuse), while another stream of the conversation runs. The
    ///   layer adds that stream's `X-Stream-Id` to the handler's 409.
    /// - `MalformedConversation` if the name is malformed.
    /// - `OtherConversation` if the stream is a turn of another conversation.
    /// - `NotFound` if [`Builder::authorize`](crate::Builder::authorize) denies the access.
    /// - Any other rejection of a registration, such as `TooManyStreams`, `Unavailable` or `ComeAgain`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits, the registration is withdrawn if it was made.
    pub async fn conversation(&self, name: impl AsRef<str>) -> Result<(), Rejection> {
        let conversation = StreamId::new(name).map_err(Rejection::MalformedConversation)?;
        let Inner { node, route, asked, lane, .. } = &*self.0;
        node.authorize_in(&self.0.asked.key, Some(&conversation), &asked.head).await?;
        let turn = Turn { conversation, overlap: route.overlap };
        match lane.get() {
            Some(lane) => self.name_registered(lane, turn).await,
            None if self.is_recorded() == Some(false) => Ok(()),
            None => self.register(turn).await,
        }
    }

    /// Makes a registered stream a turn.
    async fn name_registered(&self, lane: &Arc<Lane>, turn: Turn) -> Result<(), Rejection> {
        let node = &self.0.node;
        match lane.turn() {
            Some(named) if named.turn().conversation != turn.conversation => return Err(Rejection::OtherConversation),
            // A turn that was refused before may ask again.
            Some(named) if !named.waits() => return Ok(()),
            _ => {}
        }
        // Only the first run of a stream is a new turn.
        let runs_again = self.0.runs_again.load(Ordering::Relaxed);
        if !runs_again {
            node.name_turn(lane, self.0.asked.new_turn(turn.clone()));
            // Stored before the pointer moves. If the client leaves in between, the withdrawal also takes the pointer
            // back.
            node.recorder.update_registration(lane).await;
        }
        let begun = Admission::begin_turn(node, &self.0.route, &self.0.asked, lane, runs_again, turn).await;
        begun.map_err(|refused| self.refused(refused))
    }

    /// Returns the rejection for the handler, and notes the running stream for the head of the handler's answer.
    fn refused(&self, admission: Admission) -> Rejection {
        let Admission::Reject(rejection) = admission else { return Rejection::ComeAgain };
        if let Rejection::Running { stream } = &rejection {
            let _ = self.0.refused_for.set(stream.clone());
        }
        rejection
    }

    /// Registers the stream as a turn, before its handler has answered.
    async fn register(&self, turn: Turn) -> Result<(), Rejection> {
        let Inner { node, route, asked, .. } = &*self.0;
        if !matches!(std::mem::replace(&mut *lock(&self.0.early), Early::UnderWay), Early::Open) {
            return Err(Rejection::OtherConversation);
        }
        let _ends = EndsUnderWay(self);
        let asked = Asked { turn: Some(turn), metadata: self.kept(), ..asked.clone() };
        match Admission::register_for(node, route, asked).await {
            Admission::Produce(registered) => {
                self.registered(&registered.lane);
                let waiting = Box::new(Waiting::new(registered, self.clone(), route.endless));
                self.hold(waiting).map_err(|late| {
                    // Dropping it withdraws the registration.
                    drop(late);
                    Rejection::ComeAgain
                })
            }
            Admission::Unrecorded => {
                self.unrecorded();
                Ok(())
            }
            refused => Err(self.refused(refused)),
        }
    }
}

/// A guard that resets the state of a registration that failed or was dropped.
struct EndsUnderWay<'a>(&'a StreamContext);

impl Drop for EndsUnderWay<'_> {
    fn drop(&mut self) {
        let mut early = lock(&self.0.0.early);
        if matches!(*early, Early::UnderWay) {
            *early = Early::Open;
        }
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("id", self.id())
            .field("epoch", &self.epoch())
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// Completes when the work should stop: see [`StreamContext::stopped`].
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitStopped<'a> {
        #[pin]
        wait: WaitForCancellationFuture<'a>,
    }
}

impl Future for WaitStopped<'_> {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        self.project().wait.poll(cx)
    }
}

impl fmt::Debug for WaitStopped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitStopped")
    }
}
