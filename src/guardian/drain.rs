//! The drain: ends a process's streams in order, within one time limit.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use super::sweep::Sweeper;
use crate::{
    hooks::{JobStatus, block_of},
    model::{
        config::{PROBES, SWEEP_PAGE},
        stream::{Ending, StreamState, reason},
    },
    node::Node,
    recorder::{EndRequest, Lane},
    store::DueReason,
    telemetry::{log_debug, log_warn},
};

/// How long it may take to read a stream before the job probe is asked about it, and the pause before the next try.
const READ_LIMIT: Duration = Duration::from_secs(1);
const READ_AGAIN: Duration = Duration::from_millis(200);

/// What happened to a process's streams in a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Streams that were running when the drain began, or when it stopped serving clients. The second group began in
    /// handlers that were running when the drain began.
    pub running: usize,
    /// Streams of [`running`](Self::running) that ended by themselves in time.
    pub finished: usize,
    /// Streams that were interrupted. Another node may run them again.
    pub interrupted: usize,
    /// Streams that were closed with the job probe's answer, or as `failed`, reason `shutdown`.
    pub closed: usize,
    /// Streams that were left to other nodes, because the job probe says that their job runs outside of this process.
    pub left: usize,
    /// Unrecorded streams (not registered, or taken for orphans) that were cut off while running, and requests whose
    /// handler had not answered by then. [`running`](Self::running) does not count them.
    pub cut_off: usize,
    /// Streams whose end the store has not acknowledged. Another node will find them overdue.
    pub unsettled: usize,
    /// Bytes of events and of ends that the store has not acknowledged.
    pub unrecorded_bytes: usize,
    /// `on_end` hooks that this node was to run, and that have not run to their end or have failed. Another node will
    /// find them due. On the memory store there is no other node.
    pub hooks_unfinished: usize,
    /// Inner bodies that were dropped before they had ended after their terminal event.
    pub bodies_unfinished: usize,
}

/// The deadlines of a drain's parts.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The deadline of the whole drain.
    deadline: Instant,
    /// The time limit of the whole drain.
    total: Duration,
}

impl Limits {
    fn new(total: Duration) -> Self {
        Self { deadline: Instant::now() + total, total }
    }

    /// Returns the time until which clients are served.
    ///
    /// It is late, because clients that do not reconnect lose their answer. It leaves enough time to ask the job probe,
    /// to store the ends, and to run the hooks.
    fn served(&self, node: &Node) -> Instant {
        let probes = if node.probe.is_some() { node.settings.probe_limit } else { Duration::ZERO };
        let after = (probes + self.landing_takes(node)).min(self.total / 2);
        self.deadline - after
    }

    /// Returns the time until which the job probe may answer.
    fn probed(&self, node: &Node) -> Instant {
        self.deadline - self.landing_takes(node)
    }

    /// Returns how long it may take to store an end and run its hook. A healthy store without a hook takes
    /// milliseconds.
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
    if node.hooks.begin_last_tries() {
        let _ = tokio::time::timeout(READ_LIMIT, due_hooks(&node)).await;
    }
    let running = node.recorder.lanes();
    log_debug!(running = running.len(), "the drain begins");
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

    // Waits for the ends that were just requested and the events before them, for the hooks of streams that ended here,
    // and for inner bodies that are still running after their terminal event.
    let _ = tokio::time::timeout_at(limits.deadline, async {
        node.recorder.until_idle().await;
        node.after_last_bodies.until_over().await;
        node.hooks.until_idle().await;
    })
    .await;
    report.bodies_unfinished = node.after_last_bodies.count();
    node.after_last.cancel();
    // From here on the guardian flushes nothing and wakes no body. A body that is still waiting would wait for ever.
    node.go_down();
    report.unsettled = node.recorder.lanes().len();
    report.unrecorded_bytes = node.recorder.held();
    report.hooks_unfinished = node.hooks.end_last_tries();
    if report.unsettled + report.hooks_unfinished > 0 {
        log_warn!(
            unsettled = report.unsettled,
            hooks_unfinished = report.hooks_unfinished,
            "the drain is over, with work left for other nodes"
        );
    }
    report
}

/// Queues the hooks that are due and that no node leases. Some of them have failed on this node.
async fn due_hooks(node: &Node) {
    let Some(lease) = node.hooks.lease() else { return };
    let asked = Instant::now();
    loop {
        let Ok(page) = node.store.in_background().due(SWEEP_PAGE, lease, None).await else { return };
        let full = page.len() == SWEEP_PAGE;
        for due in page {
            if matches!(due.reason, DueReason::Hook) {
                node.hooks.due(due.info.key, asked);
            }
        }
        if !full {
            return node.hooks.forget_lapsed(asked);
        }
    }
}

/// Returns how many streams have been begun since the drain began.
fn begun_since(node: &Node, running: &[Arc<Lane>]) -> usize {
    let before: HashSet<_> = running.iter().map(Arc::as_ptr).collect();
    node.recorder.lanes().iter().filter(|lane| !before.contains(&Arc::as_ptr(lane))).count()
}

/// Drops the inner bodies of unrecorded streams: of those that never finish if `endless`, otherwise of the others.
/// Returns how many of them were still running.
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
        // Computed in each iteration: if the store has failed in the meantime, storing ends takes longer and clients
        // have less time.
        let until = limits.served(node);
        let served = async {
            loop {
                node.recorder.until_idle().await;
                node.handlers.until_over().await;
                node.beyond_record.until_over().await;
                // A handler that answered while the others were awaited may have begun a stream, so both are checked
                // again.
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

/// Ends the streams that have not ended by themselves.
async fn end_all(node: &Arc<Node>, limits: Limits, report: &mut DrainReport) {
    let mut to_probe = Vec::new();
    for lane in node.recorder.lanes() {
        if lane.is_ending() {
            // The stream has ended by itself, and the store has not acknowledged the end yet.
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

/// Ends streams with the job probe's answers. A stream without an answer by `until` ends as `failed`, reason
/// `shutdown`.
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

/// Asks the job probe about a stream. The probe needs the stream's info, so reading that is retried until it succeeds.
/// Returns `None` if it is too late.
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
        match tokio::time::timeout(READ_LIMIT, node.store.in_background().info(lane.key.clone())).await {
            Ok(Ok(Some(info))) => return Some(sweeper.probe(&info, 0).await),
            // The store forgot the stream, or it was deleted. The check registers a forgotten stream again.
            Ok(Ok(None)) => node.recorder.check_stream(lane),
            Ok(Err(_)) | Err(_) => {}
        }
        // Frees the place, so that the probe is asked about other streams during the pause.
        drop(place);
        tokio::time::sleep(READ_AGAIN).await;
    }
}

/// Ends a stream with the job probe's answer.
fn close(node: &Arc<Node>, lane: &Arc<Lane>, status: &JobStatus, report: &mut DrainReport) {
    let ending = |state, event| Some(Ending::with_event(state, block_of(&*node.framing, event)?));
    let ending = match status {
        JobStatus::Running => {
            // The job runs outside of this process. A later sweep of another node asks the probe again.
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

/// Ends a stream, unless it has just ended by itself, and drops its inner body. Returns whether this ended the stream.
fn end(node: &Arc<Node>, lane: &Arc<Lane>, request: EndRequest) -> bool {
    let ended = lane.end(&node.recorder, request);
    discard(node, lane);
    ended
}

/// Drops the inner body or stops the publication, whatever the state of the stream.
fn discard(node: &Node, lane: &Arc<Lane>) {
    if let Some(producer) = lane.producer() {
        let lane = Arc::clone(lane);
        node.executor.spawn(async move {
            producer.discard();
            lane.waker.wake();
        });
    }
}
