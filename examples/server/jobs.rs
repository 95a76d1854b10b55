//! Background jobs that publish their streams, and the probe that finds out how a job ended.
//!
//! A job is a task of this process. With `--jobs` it keeps its state in a file, as a real job would keep it in a row of
//! a database. A probe on any node with access to the folder can read the file.

use std::{future::poll_fn, io, path::PathBuf};

use resilient_sse::{Event, JobStatus, Publication, PublishError, StreamId, StreamInfo};
use serde::{Deserialize, Serialize};

use crate::telling::{Pace, Plan};

/// The background jobs, with the folder for their state files if there is one.
#[derive(Clone, Default)]
pub(crate) struct Jobs(Option<JobFiles>);

/// The folder with one state file for each job.
#[derive(Clone)]
pub(crate) struct JobFiles(PathBuf);

/// The state of a job, as its file holds it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum JobState {
    /// The job runs, unless its process has died.
    Running,
    /// The job is done.
    Completed {
        /// The payload of the terminal event.
        result: String,
    },
    /// The stream of the job was stopped or lost.
    Stopped,
}

impl Jobs {
    /// Creates the folder for the state files, if one is given. The error is a sentence.
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

    /// Runs a job: works through a plan, and publishes its events unless `silent` is set.
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
            // The stream was stopped, so the job stops too.
            Err(PublishError::Ended(_)) => return Ok(self.write(&id, &JobState::Stopped).await?),
            Err(error) => return Err(error.into()),
        }
        // Write the result first: if this process dies before the end is published, the probe finds the result.
        self.write(&id, &JobState::Completed { result: plan.completed() }).await?;
        publication.complete(terminal(plan.completed())).await?;
        Ok(())
    }

    /// Works without publishing, and leaves the stream open. Once this process is gone, only the probe can tell how the
    /// job ended.
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
            // The next `send` returns the reason as its error.
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

/// Reads from the job's file how the job ended. The library calls it on any node, once the job's own node seems dead.
pub(crate) async fn probe(files: JobFiles, stream: StreamInfo) -> Result<JobStatus, io::Error> {
    Ok(match files.read(&stream.key.id).await? {
        Some(JobState::Completed { result }) => JobStatus::Completed(terminal(result)),
        // A job is a task of its node, so an unfinished job is lost with the node.
        Some(JobState::Running | JobState::Stopped) | None => JobStatus::Unknown,
    })
}

impl JobFiles {
    /// Returns the path of a job's file. It lies in the folder: an id has no slash, and with `.json` it cannot be `..`.
    fn path(&self, id: &StreamId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// Writes the state to a new file and renames it, so that a reader never sees half of a file.
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
