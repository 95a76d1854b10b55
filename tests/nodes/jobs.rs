//! Background jobs whose node dies.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    QUICK,
    client::{Client, Visit},
    figure, node, sum,
    support::{
        example::{Server, eventually},
        redis::RedisServer,
    },
    trusting,
};

/// A folder of the test's own, which all nodes see. Dropping the handle removes it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("resilient-sse-nodes-{test}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn says(&self, id: &str) -> Value {
        let file = std::fs::read(self.0.join(format!("{id}.json"))).ok();
        file.map_or(Value::Null, |file| serde_json::from_slice(&file).expect("a whole file, whenever it is read"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(node: &Server, job: &Value) -> String {
    let (status, job) = node.post("/api/jobs", &job.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{job}");
    job["id"].as_str().expect("an id").to_owned()
}

/// G5: if the probe knows how a dead node's job ended, its answer is the stream's end. Otherwise the stream is orphaned
/// with all published events.
#[tokio::test(flavor = "multi_thread")]
async fn g5_the_probe_answers_for_a_killed_node() {
    let folder = Folder::new("probe");
    let redis = RedisServer::start();
    let options = [&QUICK[..], &["--jobs", folder.path()]].concat();
    let [a, b, c] = [(); 3].map(|()| node(&redis.url(), &options));
    trusting(&b).await;
    trusting(&c).await;
    let done = start(&a, &json!({ "n": 3, "rate": 0, "silent": true })).await;
    let unfinished = start(&a, &json!({ "n": 1_000_000, "rate": 10, "silent": true })).await;
    let published = start(&a, &json!({ "n": 1_000_000, "rate": 200 })).await;
    let ids = [done, unfinished, published];
    let clients = ids.clone().map(|id| {
        let (mut client, b) = (Client::of(&format!("/api/relay/{id}")), b.address);
        tokio::spawn(async move {
            assert_eq!(client.visit(b, usize::MAX).await, Visit::Over);
            client
        })
    });
    eventually(async || (folder.says(&ids[0])["status"] == "completed").then_some(())).await;
    eventually(async || (figure(&a, "recorded").await > 50 && figure(&b, "followers").await == 3).then_some(())).await;
    a.kill();

    let [done, unfinished, published] = clients;
    let (done, unfinished, published) = (done.await.unwrap(), unfinished.await.unwrap(), published.await.unwrap());
    done.has_all(0, "completed");
    assert_eq!(done.end().unwrap().data, r#"{"type":"completed","data":{"tokens":3}}"#);
    unfinished.has_all(0, "orphaned");
    let told = published.numbers().len() as u64;
    assert!(told > 0);
    published.has_all(told, "orphaned");

    for node in [&b, &c] {
        let told = node.until_status(&ids[0], "completed").await;
        assert_eq!(
            (&told["terminalEventType"], &told["terminalEventData"]),
            (&json!("completed"), &json!({ "tokens": 3 }))
        );
        node.until_status(&ids[1], "orphaned").await;
    }
    // Later clients get the same, on either node.
    for node in [&b, &c] {
        let mut late = Client::of(&format!("/api/relay/{}", ids[2]));
        assert_eq!(late.visit(node.address, usize::MAX).await, Visit::Over);
        late.has_all(told, "orphaned");
    }
    assert_eq!(sum(&[&b, &c], "orphaned").await, 2);
}

/// G5: while its node lives, no guardian asks about a silent job.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_silent_job_is_left_alone_while_its_node_lives() {
    let folder = Folder::new("alone");
    let redis = RedisServer::start();
    let options = ["--stale", "0.6", "--sweep", "0.2", "--jobs", folder.path()];
    let [a, b] = [(); 2].map(|()| node(&redis.url(), &options));
    trusting(&b).await;
    let id = start(&a, &json!({ "n": 1, "rate": 0, "silent": true })).await;
    eventually(async || (folder.says(&id)["status"] == "completed").then_some(())).await;
    let from = figure(&b, "lastSweep").await;
    eventually(async || (figure(&b, "lastSweep").await > from + 3000).then_some(())).await;
    b.until_status(&id, "active").await;
    assert_eq!((figure(&a, "active").await, figure(&b, "orphaned").await), (1, 0));
    a.kill();
    b.until_status(&id, "completed").await;
}
