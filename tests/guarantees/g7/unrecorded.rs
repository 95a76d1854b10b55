//! Event streams that cannot be registered keep everything that the layer adds, except ids (guarantee G7).

use std::{error::Error as _, future::ready, time::Duration};

use http_body_util::BodyExt as _;
use resilient_sse::{
    BodyError, Voice,
    test_util::{Fault, TestHub},
};

use crate::support::bodies::*;

const SECOND: Duration = Duration::from_secs(1);

fn path() -> impl resilient_sse::Identify {
    resilient_sse::StreamId::path("/s/{id}")
}

#[tokio::test(start_paused = true)]
async fn g7_an_unrecorded_stream_keeps_headers_heartbeats_and_endings_and_has_no_ids() {
    let mut hub = TestHub::with(|builder| builder.anonymous().heartbeat(SECOND)).unwrap();
    let watch = Watch::default();
    let steps = vec![
        chunk("id: 1700000000000-7\ndata: a\n\n"),
        Step::Sleep(SECOND * 5),
        chunk("id: 8\n\nevent: completed\ndata: b\nid: 9\n\n"),
    ];
    let app = app(hub.sse.generation().id(path()), &watch, steps);
    hub.step().await;
    hub.store.fail(Fault::Refuse);
    let response = send(&app, request("/s/a")).await;
    let headers = response.headers();
    assert_eq!(headers["x-stream-recorded"], "false");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(
        (&headers["x-stream-heartbeat"], &headers["x-stream-id"]),
        (&"1".parse().unwrap(), &"a".parse().unwrap())
    );
    let mut client = Client::new(response.into_body());
    client.finish(&mut hub).await;
    let text = String::from_utf8(client.bytes.clone()).unwrap();
    assert!(text.matches(": heartbeat\n").count() >= 3, "{text}");
    assert_eq!(text.matches("retry: ").count(), 1, "{text}");
    assert!(!text.contains("id:"), "a cursor that nobody can serve is worse than none: {text}");
    assert_eq!((client.data(), client.names()), (vec!["a", "b"], vec!["message", "completed"]));
    assert_eq!(hub.sse.health().bypassed_by["unavailable"], 1);
}

#[tokio::test(start_paused = true)]
async fn g12_an_unrecorded_stream_that_fails_is_told_or_breaks() {
    for voice in [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent] {
        let hub = TestHub::new();
        let watch = Watch::default();
        let app = app(hub.sse.generation().id(path()).voice(voice), &watch, then(numbers(1), Step::Fail));
        hub.store.fail(Fault::Refuse);
        let mut body = send(&app, request("/s/a")).await.into_body();
        let (mut text, mut broken) = (String::new(), None);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(error) => broken = Some(error),
            }
        }
        assert!(text.contains("data: 0\n"), "{text}");
        match broken {
            None => assert!(voice != Voice::Silent && text.contains("error"), "{voice:?}: {text}"),
            Some(error) => {
                assert_eq!(voice, Voice::Silent);
                assert!(matches!(error, BodyError::Ended { .. }), "{error:?}");
                assert_eq!(error.source().expect("the cause").to_string(), "broken");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g6_an_unrecorded_stream_goes_with_its_client_and_with_the_process() {
    let mut hub = TestHub::new();
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(numbers(1), Step::Hang));
    hub.store.fail(Fault::Refuse);
    let mut gone = Client::new(send(&app, request("/s/a")).await.into_body());
    let mut stays = Client::new(send(&app, request("/s/b")).await.into_body());
    gone.drain();
    stays.drain();
    assert_eq!(watch.alive(), 2);
    drop(gone);
    hub.step().await;
    assert_eq!(watch.alive(), 1, "nobody could ever read what it makes");
    hub.shut_down_on(ready(()));
    stays.finish(&mut hub).await;
    assert_eq!(watch.alive(), 0);
}
