//! A reader of one stream. Its visits end in many ways, and each begins with the last id that arrived.

use std::{ops::ControlFlow, time::Duration};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use resilient_sse::wire::{Parsed, Parser};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt as _;

use crate::{
    stress::{node::GRACE, transcript::Transcript},
    support::{bodies::App, random::Shared},
};

/// Heartbeats come twenty times a second, answers within a second.
const DEAD: Duration = Duration::from_secs(10);
/// How long a reader tries to reach the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a reader behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Comes and goes, hangs up before the response, reads slowly.
    Erratic,
    /// Stays, and reads everything.
    Steady,
    /// Leaves often and is back at once, like a reload.
    Brisk,
}

/// The faults that a reader must tolerate.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The store forgets streams, so that one may be gone.
    pub forgets: bool,
    /// Nothing fails and no node drains, so a reader that stays is served to the end.
    pub quiet: bool,
    /// The log holds the whole stream.
    pub ample: bool,
}

pub struct Reader {
    pub app: App,
    pub id: String,
    pub manner: Manner,
    /// Asks like an `EventSource`, which must not be refused. All other readers accept 503.
    pub event_source: bool,
    pub rules: Rules,
    pub random: Shared,
    /// When the reader left last.
    pub left: Option<Instant>,
}

/// How a visit's body ended.
enum End {
    /// The reader went away.
    Left,
    Clean,
    Broken,
}

impl Reader {
    /// Reconnects until it has the end. Fails with the problem that it finds.
    pub async fn read(mut self) -> Result<Transcript, String> {
        let mut transcript = Transcript::default();
        self.go_on(&mut transcript).await?;
        Ok(transcript)
    }

    /// Does the same as [`read`](Self::read), after events were already seen.
    pub async fn go_on(&mut self, seen: &mut Transcript) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.manner == Manner::Erratic && self.random.one_in(5) {
                // The reader hangs up early.
                let _ = timeout(self.random.millis(3), self.ask(seen)).await;
            }
            if self.visit(seen, u64::MAX).await?.is_break() {
                return Ok(());
            }
            if self.manner == Manner::Brisk {
                // Everything may be ready at once, and a task that never waits blocks its worker.
                yield_now().await;
            } else {
                sleep(self.random.millis(20)).await;
            }
        }
        Err(seen.problem("no end in sight"))
    }

    async fn ask(
        &mut self,
        seen: &Transcript,
    ) -> http::Response<resilient_sse::ResilientSseBody<crate::support::bodies::Script>> {
        let mut request = Request::get(format!("/{}", self.id));
        if let Some(cursor) = seen.cursor() {
            request = request.header("last-event-id", cursor);
        }
        if self.event_source {
            request = request.header("accept", "text/event-stream");
        }
        self.app.clone().oneshot(request.body(()).unwrap()).await.unwrap()
    }

    /// Connects once and reads at most a number of frames. Returns `Break` if nothing more follows.
    pub async fn visit(&mut self, seen: &mut Transcript, frames: u64) -> Result<ControlFlow<()>, String> {
        seen.note(format!("-> with {:?}", seen.cursor()));
        let Ok(answer) = timeout(DEAD, self.ask(seen)).await else { return Err(seen.problem("no answer")) };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT if seen.ended => return Ok(ControlFlow::Break(())),
            StatusCode::NOT_FOUND if self.rules.forgets => return Ok(ControlFlow::Break(())),
            StatusCode::SERVICE_UNAVAILABLE if !self.event_source => {
                let later = answer.headers().contains_key("retry-after");
                sleep(self.random.millis(20)).await;
                return if later { Ok(ControlFlow::Continue(())) } else { Err(seen.problem("503, and when to come?")) };
            }
            status => return Err(seen.problem(format!("answered with {status}"))),
        }
        let away = self.left.take().map(|left| left.elapsed());
        let restarts = seen.restarts;
        let recorded = !answer.headers().contains_key("x-stream-recorded");
        let end = self.body(answer.into_body(), recorded, frames, seen).await?;
        match end {
            // Guarantee G12. An unrecorded response cannot be told apart.
            End::Clean if recorded && !seen.ended => return Err(seen.problem("an unfinished stream looks finished")),
            End::Clean | End::Broken | End::Left => {}
        }
        if self.manner == Manner::Steady && self.rules.quiet {
            self.was_served(seen, frames)?;
        }
        let reloaded = self.manner == Manner::Brisk && self.rules.quiet && away.is_some_and(|away| away < GRACE);
        if reloaded && seen.restarts > restarts {
            return Err(seen.problem(format!("away for {away:?}, and its stream was run again")));
        }
        // Half of the readers ask once more, and must learn that nothing is left.
        let done = seen.ended && !self.random.one_in(2);
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Checks that the work went on, since this reader stayed, whichever other readers left.
    fn was_served(&self, seen: &Transcript, frames: u64) -> Result<(), String> {
        if frames == u64::MAX && !seen.ended {
            return Err(seen.problem("it read, and its stream broke off"));
        }
        if seen.restarts > 0 {
            return Err(seen.problem("it read, and its stream was run again"));
        }
        if self.rules.ample && seen.gaps > 0 {
            return Err(seen.problem("it read, and events were lost"));
        }
        Ok(())
    }

    async fn body<B>(&mut self, body: B, recorded: bool, frames: u64, seen: &mut Transcript) -> Result<End, String>
    where
        B: http_body::Body<Data = bytes::Bytes>,
    {
        let mut body = std::pin::pin!(body);
        let mut parser = Parser::new(1 << 22);
        let erratic = self.manner == Manner::Erratic;
        let leaves =
            if self.manner != Manner::Steady && !self.random.one_in(3) { self.random.below(40) } else { frames };
        for _ in 0..leaves {
            if erratic {
                self.dawdle().await;
            }
            let data = match timeout(DEAD, body.frame()).await {
                Err(_) => return Err(seen.problem("nothing comes, no heartbeat either")),
                Ok(None) => {
                    seen.note("the body ends");
                    return Ok(End::Clean);
                }
                Ok(Some(Err(_))) => {
                    seen.note("the body breaks");
                    return Ok(End::Broken);
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            if !recorded {
                continue;
            }
            parser.push(&data).unwrap();
            while let Some(parsed) = parser.pop() {
                if let Parsed::Message(message) = parsed {
                    seen.hears(&message)?;
                }
            }
        }
        seen.note("<- leaves");
        self.left = Some(Instant::now());
        Ok(End::Left)
    }

    /// A slow network.
    async fn dawdle(&mut self) {
        match self.random.below(60) {
            0 => sleep(Duration::from_millis(80)).await,
            1..=5 => sleep(self.random.millis(5)).await,
            _ => {}
        }
    }
}
