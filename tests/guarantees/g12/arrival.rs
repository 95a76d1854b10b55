//! Frames before a break arrive, even if everything is ready at once.

use futures_util::future::join_all;
use resilient_sse::{StreamState, Voice};

use crate::g12::{
    client::{End, sdk},
    stage::{Stage, Transport},
};

/// The hardest case: the first poll finds a whole log and an end for which the voice has no word.
#[tokio::test]
async fn g12_what_was_said_arrives_40_times_of_40() {
    for transport in [Transport::Http1, Transport::Http2] {
        let stage = Stage::new(transport, Voice::Silent, |hub| hub).await;
        stage.ask(0, sdk("/generation/x?then=error")).await.finish().await;
        stage.until("x", StreamState::Failed).await;
        let clients = (0..40).map(async |client| {
            let got = stage.ask(client % 2, sdk("/generation/x")).await.finish().await;
            assert_eq!((got.status.as_u16(), got.end), (200, End::Broken), "{transport:?}: {got:#?}");
            assert!(got.text.contains("event-3") && got.text.contains("retry: "), "{transport:?}: {got:#?}");
        });
        join_all(clients).await;
    }
}
