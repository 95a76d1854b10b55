//! G8: the metadata of a stream is limited to 4 KiB at a time.

use std::sync::{Arc, Mutex};

use http::Request;
use resilient_sse::{Identity, Owner, StreamContext, StreamId, StreamKey, test_util::TestHub};

use crate::support::bodies::{Client, Step, Watch, events, numbers, request, send, serving, then};

/// Whether the stream has its name before its handler runs.
#[tokio::test(start_paused = true)]
async fn g8_metadata_of_a_handler_that_is_replaced_counts_once() {
    for named in [false, true] {
        let mut hub = TestHub::new();
        let (watch, kept) = (Watch::default(), Arc::new(Mutex::new(None)));
        let layer = if named {
            hub.sse.generation().id(|_: &http::request::Parts| {
                Identity::id(StreamId::new("a").unwrap()).metadata("progress", "none").metadata("user", "ada")
            })
        } else {
            hub.sse.generation()
        };
        let contexts = Arc::clone(&kept);
        let app = serving(layer, move |request: Request<()>| {
            let context = request.extensions().get::<StreamContext>().unwrap();
            for n in 0..1000 {
                context.metadata("progress", n.to_string()).unwrap();
            }
            *contexts.lock().unwrap() = Some(context.clone());
            events(watch.body(then(numbers(2), Step::Hang)))
        });
        let answer = send(&app, request("/")).await;
        let key =
            StreamKey::new(Owner::ANONYMOUS, StreamId::new(answer.headers()["x-stream-id"].to_str().unwrap()).unwrap());
        let mut client = Client::new(answer.into_body());
        client.drain();
        let context = kept.lock().unwrap().take().unwrap();
        for n in 1000..2000 {
            context.metadata("progress", n.to_string()).unwrap();
        }
        let held: usize = if named { "progress1999userada".len() } else { "progress1999".len() };
        context.metadata("more", "x".repeat(4096 - held - "more".len())).expect("all of it has room");
        assert!(context.metadata("progress", "20000").is_err(), "a byte more than there is room for");
        hub.advance(std::time::Duration::from_secs(1)).await;
        let info = hub.sse.registry().stream(&key).await.unwrap().unwrap();
        let bytes: usize = info.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(bytes, 4096, "named: {named}");
        let progress: Vec<_> = info.metadata.iter().filter(|(key, _)| key == "progress").collect();
        assert_eq!(progress, [&("progress".to_owned(), "1999".to_owned())]);
    }
}
