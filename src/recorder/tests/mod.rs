mod again;
mod ahead;
mod begun;
mod lane;
mod make_room;
mod opening;
mod reader;
mod request;
mod work;

use std::{sync::Arc, time::Duration};

use super::{EndRequest, Lane, Recorder, request::Op, roster::tests::open};
use crate::{
    Event, Guardian, MemoryStore, Owner, ResilientSse, StreamId, StreamSpec,
    model::stream::{Frame, StreamState, reason},
    store::Retention,
    test_util::{Fault, FaultStore},
};

/// Creates a hub on a store that takes nothing before its guardian runs.
pub(super) fn hub(store: &FaultStore<MemoryStore>) -> (ResilientSse, Guardian) {
    ResilientSse::builder(store.clone()).anonymous().build().expect("valid")
}

/// Creates the lane of a run whose log holds so many events and bytes.
pub(super) fn lane(id: &str, epoch: u64, max_events: usize, max_bytes: usize) -> Arc<Lane> {
    let registration = open(id);
    let retention = Retention { max_events, max_bytes, ..registration.retention };
    Lane::new(registration, &Arc::new(retention), epoch, None)
}

/// Creates events of this many bytes in total.
pub(super) fn frame(count: u64, bytes: usize) -> Frame {
    Frame { count, bytes: vec![b'x'; bytes].into() }
}

/// Checking the state of a stream and keeping metadata do not mark its producer as started.
#[tokio::test(start_paused = true)]
async fn g5_only_a_producer_that_begins_or_an_event_starts_a_stream() {
    let (sse, _guardian) =
        ResilientSse::builder(FaultStore::new(MemoryStore::new()).batched()).anonymous().build().expect("valid");
    let recorder = &sse.0.recorder;
    let lane = Lane::new(open("a"), &std::sync::Arc::new(open("a").retention), 1, None);
    let starts = |lane: &Lane| match lane.next_op() {
        Some(Op::Append(append)) => Some(append.starts || !append.events.is_empty()),
        _ => None,
    };
    assert_eq!(starts(&lane), None);
    lane.request_check();
    assert_eq!(starts(&lane), Some(false), "a check");
    lane.landed();
    lane.keep(recorder, "job".into(), "7".into()).expect("it fits");
    assert_eq!(starts(&lane), Some(false), "metadata");
    lane.landed();
    lane.forgotten();
    assert!(matches!(lane.next_op(), Some(Op::Reopen(reopen)) if !reopen.open.started), "registered again");
    lane.reopened();
    lane.start();
    assert_eq!(starts(&lane), Some(true));
    lane.landed();
    assert_eq!(starts(&lane), None);
    lane.forgotten();
    assert!(matches!(lane.next_op(), Some(Op::Reopen(reopen)) if reopen.open.started));
}

/// A lane that is given up while its end is in flight still receives the store's answer.
#[tokio::test(start_paused = true)]
async fn g7_what_an_end_was_charged_is_given_back_once() {
    let store = FaultStore::new(MemoryStore::new()).batched();
    let (sse, guardian) = ResilientSse::builder(store.clone()).anonymous().build().expect("valid");
    let guardian = tokio::spawn(guardian);
    let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("a").expect("valid"));
    let mut publication = sse.publisher().open(spec).await.expect("open");
    publication.send(Event::new("one")).await.expect("sent");
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.fail_on("close", Fault::Delay(Duration::from_millis(300)));
    let recorder: &std::sync::Arc<Recorder> = &sse.0.recorder;
    let lane = recorder.lane(publication.key()).expect("it runs");
    lane.end(recorder, EndRequest::supplied(StreamState::Failed, reason::ERROR));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(recorder.held() > 0, "the end waits");
    recorder.abandon(&lane);
    assert_eq!(recorder.held(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((recorder.held(), store.calls("close")), (0, 1));
    guardian.abort();
}
