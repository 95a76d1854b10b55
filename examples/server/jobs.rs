//! Background jobs, which publish their streams, and the probe that knows what became of them.
//!
//! A job is a task of this process. Under `--jobs` it keeps a file of its state, as a real one would
//! keep a row in a database: a probe on any node that sees the same folder can read it.

use std::{future::poll_fn, io, path::PathBuf};

use resilient_sse::{Event, JobStatus, Publication, PublishError, StreamId, StreamInfo};
use serde::{Deserialize, Serialize};

use crate::telling::{Pace, Plan};

/// Where jobs keep their state.
#[derive(Clone, Default)]
pub(crate) struct Jobs(Option<JobFiles>);

/// The state files, one a job.
#[derive(Clone)]
pub(crate) struct JobFiles(PathBuf);

/// What a job's file says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum JobState {
    /// It runs in some process, if that one lives.
    Running,
    /// It is done: the payload of its terminal event.
    Completed {
        /// The payload.
        result: String,
    },
    /// Somebody stopped it, or its stream was lost.
    Stopped,
}

impl Jobs {
    /// With files in this folder, which is made. The error is a sentence.
    pub(crate) fn new(folder: Option<PathBuf>) -> Result<Self, String> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("the folder for jobs, {}, cannot be made: {error}", folder.display()))?;
        Ok(Self(Some(JobFiles(folder))))
    }

    pub(crate) fn files(&self) -> Option<JobFiles> {
        self.0.clone()
    }

    async fn write(&self, id: &StreamId, state: &JobState) -> io::Result<()> {
        match &self.0 {
            Some(files) => files.write(id, state).await,
            None => Ok(()),
        }
    }

    /// Works through a plan, publishing it, or else silently.
    pub(crate) async fn run(self, publication: Publication, plan: Plan, silent: bool) {
        let id = publication.key().id.clone();
        let done =
            if silent { self.work_silently(publication, plan).await } else { self.work(publication, plan).await };
        match done {
            Ok(()) => tracing::info!(job = %id, "the job is done"),
            Err(error) => tracing::warn!(job = %id, error = &*error, "the job gave up"),
        }
    }

    async fn work(&self, mut publication: Publication, plan: Plan) -> Result<(), resilient_sse::BoxError> {
        let id = publication.key().id.clone();
        self.write(&id, &JobState::Running).await?;
        match tell(&mut publication, &plan).await {
            Ok(()) => {}
            // Somebody stopped the stream: there is nobody to work for.
            Err(PublishError::Ended(_)) => return Ok(self.write(&id, &JobState::Stopped).await?),
            Err(error) => return Err(error.into()),
        }
        // The result first: should this process die in between, the probe has it.
        self.write(&id, &JobState::Completed { result: plan.completed() }).await?;
        publication.complete(terminal(plan.completed())).await?;
        Ok(())
    }

    /// Says nothing, and leaves the stream open: only the probe can tell how it went, once this
    /// process is gone.
    async fn work_silently(&self, publication: Publication, plan: Plan) -> Result<(), resilient_sse::BoxError> {
        let id = publication.key().id.clone();
        self.write(&id, &JobState::Running).await?;
        let mut pace = Pace::new(&plan);
        let work = async {
            for _ in 0..plan.n {
                poll_fn(|cx| pace.poll_due(cx)).await;
                tokio::task::consume_budget().await;
            }
        };
        let state = tokio::select! {
            () = work => JobState::Completed { result: plan.completed() },
            () = publication.stopped() => JobState::Stopped,
        };
        self.write(&id, &state).await?;
        publication.stopped().await;
        Ok(())
    }
}

/// Publishes a plan's events.
async fn tell(publication: &mut Publication, plan: &Plan) -> Result<(), PublishError> {
    let mut pace = Pace::new(plan);
    for s in 0..plan.n {
        tokio::select! {
            () = poll_fn(|cx| pace.poll_due(cx)) => {}
            // The next `send` says why.
            () = publication.stopped() => {}
        }
        publication.send(Event::new(plan.token(s))).await?;
        tokio::task::consume_budget().await;
    }
    Ok(())
}

fn terminal(payload: String) -> Event {
    Event::new(payload).named("completed")
}

/// What became of a job, as its file says. Asked on any node, once the job's own seems dead.
pub(crate) async fn probe(files: JobFiles, stream: StreamInfo) -> Result<JobStatus, io::Error> {
    Ok(match files.read(&stream.key.id).await? {
        Some(JobState::Completed { result }) => JobStatus::Completed(terminal(result)),
        // A job is a task of its node: where that is gone, the job is gone, too.
        Some(JobState::Running | JobState::Stopped) | None => JobStatus::Unknown,
    })
}

impl JobFiles {
    /// An id is no path: it has no slash, and the ending keeps it from being `..`.
    fn path(&self, id: &StreamId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// Puts the file in place in one step: nobody reads half of one.
    async fn write(&self, id: &StreamId, state: &JobState) -> io::Result<()> {
        let path = self.path(id);
        let unfinished = path.with_extension("unfinished");
        tokio::fs::write(&unfinished, serde_json::to_vec(state)?).await?;
        tokio::fs::rename(&unfinished, &path).await
    }

    async fn read(&self, id: &StreamId) -> io::Result<Option<JobState>> {
        match tokio::fs::read(self.path(id)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok(Some(serde_json::from_slice(&found?)?)),
        }
    }
}
