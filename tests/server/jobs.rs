//! Background jobs.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::example::{Server, eventually, numbers};

/// A folder of the test's own. Dropping the handle removes it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("resilient-sse-{test}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Returns the contents of a job's file.
    fn job(&self, id: &str) -> Option<Value> {
        let file = std::fs::read(self.0.join(format!("{id}.json"))).ok()?;
        Some(serde_json::from_slice(&file).expect("a whole file, whenever it is read"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(server: &Server, job: &str) -> String {
    let (status, job) = server.post("/api/jobs", job).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    job["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_job_publishes_into_the_relay() {
    let folder = Folder::new("job");
    let server = Server::start(&["--jobs", folder.path()]);
    let id = start(&server, r#"{"n":20,"rate":200}"#).await;
    let first = server.cut_after(5, &format!("/api/relay/{id}")).await;
    let rest = server.collect(&format!("/api/relay/{id}?last_event_id={}", first.last_id())).await;
    assert_eq!([numbers(&first), numbers(&rest)].concat(), Vec::from_iter(0..20));
    assert_eq!(rest.names().last(), Some(&"completed"));
    assert_eq!(server.until_status(&id, "completed").await["terminalEventData"], json!({ "tokens": 20 }));
    assert_eq!(folder.job(&id).expect("a file")["status"], "completed");
}

#[tokio::test]
async fn a_silent_job_leaves_its_result_to_the_probe() {
    let folder = Folder::new("silent");
    let server = Server::start(&["--jobs", folder.path()]);
    let id = start(&server, r#"{"n":3,"rate":0,"silent":true}"#).await;
    let done = eventually(async || folder.job(&id).filter(|job| job["status"] == "completed")).await;
    assert_eq!(done["result"], r#"{"type":"completed","data":{"tokens":3}}"#);
    let told = server.until_status(&id, "active").await;
    assert_eq!(told["events"], json!([]));
}

#[tokio::test]
async fn a_job_works_without_a_folder_and_can_be_stopped() {
    let server = Server::start(&[]);
    let id = start(&server, r#"{"n":1000000,"rate":100}"#).await;
    server.cut_after(2, &format!("/api/relay/{id}")).await;
    assert_eq!(server.delete(&format!("/api/stream/{id}")).await, StatusCode::ACCEPTED);
    server.until_status(&id, "cancelled").await;
    eventually(async || (server.json("/healthz").await.1["active"] == 0).then_some(())).await;
}
