//! `tests/vectors/events.json`: the meaning of an event's block, for recovery and every client.

use std::time::Duration;

use http_body_util::BodyExt as _;
use resilient_sse::{Classify, Outcome, StreamId, test_util::TestHub, wire::EventView};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::bodies::{Client, Step, Watch, app, chunk, request, send};

/// A classifier that takes every event for the last one.
struct Any;

impl Classify for Any {
    fn classify(&self, _: &EventView<'_>) -> Option<Outcome> {
        Some(Outcome::Completed)
    }
}

struct Never;

impl Classify for Never {
    fn classify(&self, _: &EventView<'_>) -> Option<Outcome> {
        None
    }
}

fn vectors() -> Vec<Value> {
    let table: Value = serde_json::from_str(include_str!("../../vectors/events.json")).unwrap();
    table["vectors"].as_array().unwrap().clone()
}

/// Returns recovery's answer for a stream whose body is this block.
async fn recovered(wire: &str, classify: impl Classify) -> Value {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let layer = hub.sse.generation().id(StreamId::path("/s/{id}")).classify(classify);
    let app = app(layer, &watch, vec![chunk(wire), Step::Hang]);
    let mut client = Client::new(send(&app, request("/s/a")).await.into_body());
    client.drain();
    hub.advance(Duration::from_millis(250)).await;
    let recover = hub.sse.recover().id(StreamId::path("/s/{id}/recover"));
    let response = recover.oneshot(request("/s/a/recover")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn events_of_a_running_stream_read_as_the_vectors_say() {
    for vector in vectors() {
        let answer = recovered(vector["wire"].as_str().unwrap(), Never).await;
        assert_eq!(answer["status"], "active", "{vector}");
        let events = answer["events"].as_array().unwrap();
        assert_eq!(events.len(), 1, "{vector}");
        for field in ["type", "data", "json"] {
            assert_eq!(events[0][field], vector[field], "{field} of {vector}");
        }
        assert!(events[0]["id"].as_str().unwrap().ends_with("-1"));
        assert!(events[0]["ts"].is_u64() && answer["next"].is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn terminal_events_read_as_the_vectors_say() {
    for vector in vectors() {
        let answer = recovered(vector["wire"].as_str().unwrap(), Any).await;
        assert_eq!(answer["status"], "completed", "{vector}");
        for field in ["terminalEventType", "terminalEventData"] {
            assert_eq!(answer[field], vector[field], "{field} of {vector}");
        }
        assert!(answer["completedAt"].is_u64() && answer["reason"].is_null());
        assert_eq!(answer["streamId"], "a");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_stream_by_default_is_as_the_vectors_say() {
    for vector in vectors() {
        let answer = recovered(vector["wire"].as_str().unwrap(), resilient_sse::Ends::default()).await;
        let state = vector["ends"].as_str().unwrap_or("active");
        assert_eq!(answer["status"], state, "{vector}");
    }
}
