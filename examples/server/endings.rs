//! The `on_end` hook. It appends a line of JSON to a file for each stream that has ended.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use resilient_sse::{BoxError, EndedStream};
use serde_json::json;

/// The file for the lines, and the delay before each line is written.
#[derive(Clone)]
pub(crate) struct Endings {
    file: Arc<PathBuf>,
    delay: Duration,
}

impl Endings {
    /// Opens the file once, to check that it can be written. The error is a sentence.
    pub(crate) fn open(file: PathBuf, delay: Duration) -> Result<Self, String> {
        append(&file, b"").map_err(|error| format!("`--hook-file {}` cannot be written: {error}", file.display()))?;
        Ok(Self { file: Arc::new(file), delay })
    }

    /// Appends the line of one stream. If this fails, the library runs the hook again.
    pub(crate) async fn note(self, ended: EndedStream) -> Result<(), BoxError> {
        tokio::time::sleep(self.delay).await;
        let events = ended.events().await?.len();
        let end = ended.ended();
        let line = json!({
            "streamId": ended.key().id.as_str(),
            "status": end.ending.state.as_str(),
            "reason": end.ending.reason.as_deref(),
            "events": events,
            "missing": ended.missing().await?,
        });
        let line = format!("{line}\n");
        tokio::task::spawn_blocking(move || append(&self.file, line.as_bytes())).await??;
        Ok(())
    }
}

/// Appends bytes with one `write` in append mode, so that the lines of concurrent hooks do not mix, even from several
/// processes.
///
/// It opens the file for each line, so that the file may be rotated.
fn append(file: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    match file.write(bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
