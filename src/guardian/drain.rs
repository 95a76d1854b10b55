//! Going down in order, within one limit for everything.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use super::sweep::Sweeper;
use crate::{
    hooks::{JobStatus, block_of},
    model::{
        config::PROBES,
        stream::{Ending, StreamState, reason},
    },
    node::Node,
    recorder::{EndRequest, Lane},
    telemetry::{log_debug, log_warn},
};

/// How long a look at a stream whose job is asked about may take, and how long to wait before the next one where that fails.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What became of a process's streams when it went down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Streams that ran when the drain began, or when clients were served no longer: a handler that runs when the drain
    /// begins may begin one.
    pub running: usize,
    /// Of those, the ones that ended by themselves in time.
    pub finished: usize,
    /// Streams that were interrupted: another node may run them again.
    pub interrupted: usize,
    /// Streams that were closed, by what the job probe said or as `failed`, reason `shutdown`.
    pub closed: usize,
    /// Streams whose job runs outside of this process, as the probe says: left to other nodes.
    pub left: usize,
    /// Streams that nothing is recorded of (they could not be registered, or were taken for orphans) and that ran until they
    /// were cut off, and requests whose handler had not answered by then. They are not among those that
    /// [`running`](Self::running) counts.
    pub cut_off: usize,
    /// Streams whose end the store has not acknowledged: another node will find them overdue.
    pub unsettled: usize,
    /// Bytes of events, and of ends, that the store has not acknowledged.
    pub unrecorded_bytes: usize,
    /// `on_end` hooks of streams that ended here which have not run, or not to their end: another node will find them due.
    pub hooks_unfinished: usize,
    /// Inner bodies that had more to do after their terminal event, and were dropped.
    pub bodies_unfinished: usize,
}

/// The deadlines of a drain's parts.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The deadline of the whole drain.
    deadline: Instant,
    /// The drain's whole time.
    total: Duration,
}

impl Limits {
    fn new(total: Duration) -> Self {
        Self { deadline: Instant::now() + total, total }
    }

    /// The time up to which clients are served: late, since those that do not come again lose their answer, and early enough to
    /// ask what became of the work, to store its end, and to run its hook.
    fn served(&self, node: &Node) -> Instant {
        let probes = if node.probe.is_some() { node.settings.probe_limit } else { Duration::ZERO };
        let after = (probes + self.landing_takes(node)).min(self.total / 2);
        self.deadline - after
    }

    /// The time up to which the job probe may answer.
    fn probed(&self, node: &Node) -> Instant {
        self.deadline - self.landing_takes(node)
    }

    /// How long it may take until an end is stored and its hook has run. A store that is well takes milliseconds for that.
    fn landing_takes(&self, node: &Node) -> Duration {
        let limit = node.settings.terminal_limit;
        let is_slow = node.store.is_ailing() || node.hooks.lease().is_some();
        (if is_slow { limit } else { limit / 4 }).min(self.total / 4)
    }
}

/// Drains the process.
pub(super) async fn run(node: Arc<Node>) -> DrainReport {
    let limits = Limits::new(node.settings.drain_limit);
    node.start_draining();
    let running = node.recorder.lanes();
    log_debug!(running = running.len(), "the process goes down");
    let mut report = DrainReport { running: running.len(), ..DrainReport::default() };
    for lane in &running {
        let Some(producer) = lane.producer() else { continue };
        if producer.is_endless() {
            report.interrupted += usize::from(end(&node, lane, EndRequest::Interrupt));
        } else {
            node.executor.spawn(async move { producer.release() });
        }
    }
    report.cut_off += cut_off(&node, true);
    serve(&node, limits).await;

    report.cut_off += node.handlers.count() + node.bystanders.count();
    node.start_letting_go();
    report.running += begun_since(&node, &running);
    end_all(&node, limits, &mut report).await;
    let ended = report.interrupted + report.closed + report.left;
    report.finished = report.running.saturating_sub(ended);
    report.cut_off += cut_off(&node, false);

    // The ends that were just requested, the tails before them, the hooks of all that ended here, and what inner bodies do
    // after their terminal event.
    let _ = tokio::time::timeout_at(limits.deadline, async {
        node.recorder.until_idle().await;
        node.rests.until_over().await;
        node.hooks.until_idle().await;
    })
    .await;
    report.bodies_unfinished = node.rests.count();
    node.after_last.cancel();
    // From here on nothing is flushed, and nobody is woken: a body that still waits would wait for ever.
    node.go_down();
    report.unsettled = node.recorder.lanes().len();
    report.unrecorded_bytes = node.recorder.held();
    report.hooks_unfinished = node.hooks.unfinished();
    if report.unsettled + report.hooks_unfinished > 0 {
        log_warn!(
            unsettled = report.unsettled,
            hooks_unfinished = report.hooks_unfinished,
            "the process goes down with work left for other nodes"
        );
    }
    report
}

/// Returns how many streams have been begun since the drain began.
fn begun_since(node: &Node, running: &[Arc<Lane>]) -> usize {
    let before: HashSet<_> = running.iter().map(Arc::as_ptr).collect();
    node.recorder.lanes().iter().filter(|lane| !before.contains(&Arc::as_ptr(lane))).count()
}

/// Drops the inner bodies of streams that nothing is recorded of: of those that never finish, or of the others. Returns how
/// many still ran.
fn cut_off(node: &Node, endless: bool) -> usize {
    let mut count = 0;
    for lane in node.recorder.served_on() {
        if lane.producer().is_some_and(|producer| producer.is_endless() == endless) {
            count += usize::from(!lane.is_ending());
            discard(node, &lane);
        }
    }
    count
}

/// Waits until every stream has ended and every handler has answered, for as long as clients are served.
async fn serve(node: &Node, limits: Limits) {
    loop {
        // Computed anew each time: a store that has failed meanwhile leaves clients less time.
        let until = limits.served(node);
        let served = async {
            loop {
                node.recorder.until_idle().await;
                node.handlers.until_over().await;
                node.beyond_record.until_over().await;
                // A handler that has answered meanwhile may have begun a stream: it had entered before it was over here.
                if node.recorder.is_idle() && node.handlers.count() == 0 {
                    return;
                }
            }
        };
        if Instant::now() >= until || tokio::time::timeout_at(until, served).await.is_ok() {
            return;
        }
    }
}

/// Ends what has not ended by itself.
async fn end_all(node: &Arc<Node>, limits: Limits, report: &mut DrainReport) {
    let mut to_probe = Vec::new();
    for lane in node.recorder.lanes() {
        if lane.is_ending() {
            // It has ended by itself; only the store does not know yet.
            discard(node, &lane);
        } else if lane.reruns() {
            report.interrupted += usize::from(end(node, &lane, EndRequest::Interrupt));
        } else if node.probe.is_none() {
            report.closed += usize::from(end(node, &lane, shutdown()));
        } else {
            to_probe.push(lane);
        }
    }
    probe_all(node, to_probe, limits.probed(node), report).await;
}

/// Ends streams by what the job probe says of them, or, where it has said nothing by `until`, as work that was cut short.
async fn probe_all(node: &Arc<Node>, lanes: Vec<Arc<Lane>>, until: Instant, report: &mut DrainReport) {
    let sweeper = Arc::new(Sweeper::new(Arc::clone(node)));
    let places = Arc::new(Semaphore::new(PROBES));
    let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for (index, lane) in lanes.iter().enumerate() {
        let (sweeper, places, answer) = (Arc::clone(&sweeper), Arc::clone(&places), answer.clone());
        let (node, lane) = (Arc::clone(node), Arc::clone(lane));
        node.executor.clone().spawn(async move {
            if let Some(status) = ask_probe(&node, &lane, &sweeper, &places, || answer.is_closed()).await {
                let _ = answer.send((index, status));
            }
        });
    }
    drop(answer);
    let mut waiting: Vec<_> = lanes.into_iter().map(Some).collect();
    while let Ok(Some((index, status))) = tokio::time::timeout_at(until, answers.recv()).await {
        if let Some(lane) = waiting.get_mut(index).and_then(Option::take) {
            close(node, &lane, &status, report);
        }
    }
    for lane in waiting.into_iter().flatten() {
        close(node, &lane, &JobStatus::Unknown, report);
    }
}

/// Asks the job probe about a stream. A look at the stream that fails says nothing of its job, and is repeated. `None`: it
/// is too late.
async fn ask_probe(
    node: &Arc<Node>,
    lane: &Arc<Lane>,
    sweeper: &Sweeper,
    places: &Semaphore,
    is_too_late: impl Fn() -> bool,
) -> Option<JobStatus> {
    loop {
        let place = places.acquire().await.ok()?;
        if is_too_late() {
            return None;
        }
        if lane.is_halted() {
            return Some(JobStatus::Unknown);
        }
        match tokio::time::timeout(LOOK, node.store.in_background().info(lane.key.clone())).await {
            Ok(Ok(Some(info))) => return Some(sweeper.probe(&info, 0).await),
            // Forgotten, and registered again by this, or deleted.
            Ok(Ok(None)) => node.recorder.look(lane),
            Ok(Err(_)) | Err(_) => {}
        }
        // Others are asked meanwhile.
        drop(place);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Ends a stream by what the probe has said of it.
fn close(node: &Arc<Node>, lane: &Arc<Lane>, status: &JobStatus, report: &mut DrainReport) {
    let ending = |state, event| Some(Ending::with_event(state, block_of(&*node.framing, event)?));
    let ending = match status {
        JobStatus::Running => {
            // It runs outside of this process: a later sweep, of another node, asks again.
            report.left += 1;
            node.recorder.abandon(lane);
            return discard(node, lane);
        }
        JobStatus::Completed(event) => ending(StreamState::Completed, event),
        JobStatus::Failed(event) => ending(StreamState::Failed, event),
        JobStatus::Unknown => None,
    };
    report.closed += usize::from(end(node, lane, ending.map_or_else(shutdown, EndRequest::close)));
}

fn shutdown() -> EndRequest {
    EndRequest::supplied(StreamState::Failed, reason::SHUTDOWN)
}

/// Ends a stream, unless it has just ended by itself, and drops its inner body.
fn end(node: &Arc<Node>, lane: &Arc<Lane>, request: EndRequest) -> bool {
    let ended = lane.end(&node.recorder, request);
    discard(node, lane);
    ended
}

/// Drops the inner body or tells the publication to stop, in whatever state the stream is.
fn discard(node: &Node, lane: &Arc<Lane>) {
    if let Some(producer) = lane.producer() {
        let lane = Arc::clone(lane);
        node.executor.spawn(async move {
            producer.discard();
            lane.waker.wake();
        });
    }
}
