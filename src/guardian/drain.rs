//! Going down in order.

use std::sync::Arc;

use tokio::time::Instant;

use super::sweep::Sweeper;
use crate::{
    hooks::{JobStatus, block_of},
    hub::Core,
    recorder::{EndRequest, Lane},
    stream::{Ending, StreamState, reason},
    telemetry::log_debug,
};

/// What became of a process's streams when it went down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Streams that ran when the drain began.
    pub running: usize,
    /// Of those, the ones that ended by themselves in time.
    pub finished: usize,
    /// Streams that were interrupted: another node may run them again.
    pub interrupted: usize,
    /// Streams that were closed, by what the job probe said or as `failed`, reason `shutdown`.
    pub closed: usize,
    /// Streams whose job runs outside of this process, as the probe says: left to other nodes.
    pub left: usize,
    /// Streams whose end the store has not acknowledged: another node will find them overdue.
    pub unsettled: usize,
    /// Bytes of events that the store has not acknowledged.
    pub unrecorded_bytes: usize,
}

/// Drains the process.
pub(super) async fn run(core: Arc<Core>) -> DrainReport {
    // A drain without end is one of a year.
    let deadline = Instant::now() + core.settings.drain.min(std::time::Duration::from_secs(31_536_000));
    core.start_draining();
    let running = core.recorder.lanes();
    log_debug!(running = running.len(), "the process goes down");
    for lane in &running {
        if let Some(producer) = lane.producer() {
            core.executor.spawn(async move { producer.release() });
        }
    }
    let _ = tokio::time::timeout_at(deadline, core.recorder.until_idle()).await;

    core.start_letting_go();
    let left = core.recorder.lanes();
    let mut report = DrainReport {
        running: running.len(),
        finished: running.len().saturating_sub(left.len()),
        ..DrainReport::default()
    };
    end_all(&core, &left, &mut report).await;

    // The ends that were just requested, and the tails before them, get the time a terminal event gets.
    let _ = tokio::time::timeout(core.settings.terminal_limit, core.recorder.until_idle()).await;
    report.unsettled = core.recorder.lanes().len();
    report.unrecorded_bytes = core.recorder.held();
    report
}

/// Ends what has not ended by itself.
async fn end_all(core: &Arc<Core>, lanes: &[Arc<Lane>], report: &mut DrainReport) {
    let sweeper = Arc::new(Sweeper::new(Arc::clone(core)));
    let mut closing = Vec::new();
    for lane in lanes {
        if !lane.reruns() {
            let (core, lane, sweeper) = (Arc::clone(core), Arc::clone(lane), Arc::clone(&sweeper));
            let (done, closed) = tokio::sync::oneshot::channel();
            core.clone().executor.spawn(async move {
                let _ = done.send(close(&core, &lane, &sweeper).await);
            });
            closing.push(closed);
        } else {
            report.interrupted += 1;
            end(core, lane, EndRequest::Interrupt);
        }
    }
    for closed in closing {
        match closed.await {
            Ok(true) => report.closed += 1,
            Ok(false) | Err(_) => report.left += 1,
        }
    }
}

/// Asks the probe what became of the work. `false`: it goes on outside of this process.
async fn close(core: &Arc<Core>, lane: &Arc<Lane>, sweeper: &Sweeper) -> bool {
    let failed = EndRequest::supplied(StreamState::Failed, reason::SHUTDOWN);
    let status = match core.store.info(lane.key.clone()).await {
        Ok(Some(info)) => sweeper.probe(&info, 0).await,
        _ => JobStatus::Unknown,
    };
    if status == JobStatus::Running {
        // It runs outside of this process: a later sweep, of another node, asks again.
        core.recorder.abandon(lane);
        return false;
    }
    let ending = |state, event| Some(Ending::with_event(state, block_of(&*core.framing, event)?));
    let ending = match &status {
        JobStatus::Completed(event) => ending(StreamState::Completed, event),
        JobStatus::Failed(event) => ending(StreamState::Failed, event),
        JobStatus::Running | JobStatus::Unknown => None,
    };
    end(core, lane, ending.map_or(failed, EndRequest::Close));
    true
}

fn end(core: &Arc<Core>, lane: &Arc<Lane>, request: EndRequest) {
    lane.end(&core.recorder, request);
    if let Some(producer) = lane.producer() {
        core.executor.spawn(async move { producer.halted() });
    }
}
