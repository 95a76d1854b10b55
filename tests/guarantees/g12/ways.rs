//! The ways to end, each in all voices: over real sockets, and in paused time.

use std::time::Duration;

use futures_util::future::join_all;
use resilient_sse::{Builder, Event, JobStatus, Store as _, StreamSpec, StreamState, Voice, reason, test_util::Fault};

use crate::g12::{
    client::{End, Got, event_source, sdk},
    expected::{Ends, PAUSE},
    stage::{DRAIN, Stage, Transport, key},
};

const VOICES: [Voice; 4] = [Voice::Named, Voice::Json, Voice::OpenAi, Voice::Silent];

/// One way to end: its kind, the set-up of its hubs, and the steps that lead to it. The steps return a client's
/// response, up to its end or, where the body goes on, up to the next event.
macro_rules! way {
    ($(#[$doc:meta])* $name:ident, $ends:expr, last $last:literal, $setup:expr, $run:expr) => {
        $(#[$doc])*
        mod $name {
            use super::*;

            async fn cell(voice: Voice, transport: Transport) -> Got {
                cell_of($ends, $last, voice, transport, $setup, $run).await
            }

            /// Head and last event arrive over HTTP/1.1 and HTTP/2, and then the body ends as the table says.
            #[tokio::test]
            async fn g12_on_sockets() {
                let cells = VOICES.into_iter().flat_map(|voice| {
                    [Transport::Http1, Transport::Http2].map(|transport| cell(voice, transport))
                });
                join_all(cells).await;
            }

            /// The error comes 100 ms after the last frame, or after the head if there is no frame, and no later than
            /// its cause requires.
            #[tokio::test(start_paused = true)]
            async fn g12_the_error_gives_what_was_said_its_time() {
                for voice in VOICES {
                    let got = cell(voice, Transport::Direct).await;
                    let expected = PAUSE..PAUSE + DRAIN + Duration::from_millis(30);
                    assert!(got.end != End::Broken || expected.contains(&got.pause), "{voice:?}: {got:#?}");
                }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, $ends:expr, $run:expr) => {
        way!($(#[$doc])* $name, $ends, last "event-3", |hub| hub, $run);
    };
}

async fn cell_of(
    ends: Ends,
    last: &str,
    voice: Voice,
    transport: Transport,
    setup: impl Fn(Builder) -> Builder,
    run: impl AsyncFnOnce(Stage) -> Got,
) -> Got {
    let stage = Stage::new(transport, voice, setup).await;
    let got = run(stage).await;
    ends.judge(voice, last, &got);
    got
}

/// Reads to the end or, where the body goes on, up to the next event.
async fn rest(ends: Ends, voice: Voice, reading: crate::g12::client::Reading, next: &str) -> Got {
    if ends.goes_on(voice) { reading.until(next).await.leave() } else { reading.finish().await }
}

way!(completed, Ends::Finished, async |stage| {
    stage.ask(0, sdk("/generation/x?then=completed")).await.finish().await
});

way!(failed_in_the_producer_s_words, Ends::Finished, async |stage| {
    stage.ask(0, sdk("/generation/x?then=failed")).await.finish().await
});

way!(eof, Ends::Finished, async |stage| stage.ask(0, sdk("/generation/x?then=eof")).await.finish().await);

way!(inner_error, Ends::Terminal("failed", "error"), async |stage| {
    stage.ask(0, sdk("/generation/x?then=error")).await.finish().await
});

way!(panic, Ends::Terminal("failed", "panic"), async |stage| {
    stage.ask(0, sdk("/generation/x?then=panic")).await.finish().await
});

way!(
    event_too_large,
    Ends::Terminal("failed", "event_too_large"),
    last "event-3",
    |hub: Builder| hub.max_event_bytes(100),
    async |stage| stage.ask(0, sdk("/generation/x?then=large")).await.finish().await
);

way!(stop, Ends::Terminal("cancelled", "stopped"), async |stage| {
    let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
    stage.nodes[1].sse.streams().stop(&key("x").owner, &key("x").id).await.unwrap();
    reading.finish().await
});

way!(orphan, Ends::Terminal("orphaned", "node_lost"), async |stage| {
    let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
    let reading = stage.ask(1, sdk("/generation/x")).await.until("event-3").await;
    stage.close("x", StreamState::Orphaned, reason::NODE_LOST).await;
    reading.finish().await
});

way!(expired, Ends::Terminal("expired", "lifetime"), async |stage| {
    let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
    let reading = stage.ask(1, sdk("/generation/x")).await.until("event-3").await;
    stage.close("x", StreamState::Expired, reason::LIFETIME).await;
    reading.finish().await
});

way!(
    /// The stream of a client that left reached its limit. The client comes back for the rest.
    detach_limit,
    Ends::Terminal("failed", "detach_timeout"),
    async |stage| {
        stage.ask(0, event_source("/limited/x")).await.until("event-3").await.leave();
        stage.until("x", StreamState::Failed).await;
        stage.ask(1, event_source("/limited/x")).await.finish().await
    }
);

way!(
    /// An `EventSource` is let go at once, since it reconnects to another node.
    drain_of_an_event_source,
    Ends::Unfinished("shutdown"),
    async |stage| {
        let reading = stage.ask(0, event_source("/generation/x")).await.until("event-3").await;
        stage.drain(0);
        reading.finish().await
    }
);

way!(
    /// Any other client is served on, until the stream ends with the process.
    drain_of_an_sdk_s_client,
    Ends::Terminal("failed", "shutdown"),
    async |stage| {
        let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        stage.drain(0);
        reading.finish().await
    }
);

way!(
    /// A client that follows on the stream's own node is served on, too.
    drain_of_an_sdk_s_follower,
    Ends::Terminal("failed", "shutdown"),
    async |stage| {
        let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        stage.drain(0);
        reading.finish().await
    }
);

way!(
    /// The job probe's answer becomes the end that both clients get.
    drain_of_a_follower_whose_job_is_done,
    Ends::Finished,
    last "the answer",
    |hub: Builder| hub.job_probe(|_| async { JobStatus::Completed(Event::new("the answer").named("completed")) }),
    async |stage| {
        let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        stage.drain(0);
        reading.finish().await
    }
);

way!(
    /// A stream that may run again elsewhere is interrupted.
    drain_of_what_may_run_again,
    Ends::Unfinished("shutdown"),
    async |stage| {
        let reading = stage.ask(0, sdk("/layer/x")).await.until("event-3").await;
        stage.drain(0);
        reading.finish().await
    }
);

way!(drain_of_a_follower, Ends::Unfinished("shutdown"), async |stage| {
    let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
    let reading = stage.ask(1, event_source("/generation/x")).await.until("event-3").await;
    stage.drain(1);
    reading.finish().await
});

way!(drain_of_a_relay, Ends::Unfinished("shutdown"), async |stage| {
    let publisher = stage.nodes[0].sse.publisher();
    publisher.send(&key("x").owner, &key("x").id, Event::new("event-3")).await.unwrap();
    let reading = stage.ask(1, event_source("/relay/x")).await.until("event-3").await;
    stage.drain(1);
    reading.finish().await
});

way!(
    /// No new stream begins on a node that drains.
    come_again_while_draining,
    Ends::ComeAgain,
    last "",
    |hub| hub,
    async |stage| {
        let _held = stage.ask(0, sdk("/generation/held")).await.until("event-3").await;
        stage.drain(0);
        while !stage.nodes[0].sse.health().draining {
            tokio::task::yield_now().await;
        }
        stage.ask(0, event_source("/generation/x")).await.finish().await
    }
);

way!(
    /// The store is away, and the client asks for events that only the store has.
    come_again_in_an_outage,
    Ends::ComeAgain,
    last "",
    |hub| hub,
    async |stage| {
        stage.store.fail(Fault::Refuse);
        stage.ask(0, event_source("/generation/x").header("last-event-id", "e1700000000000-3")).await.finish().await
    }
);

way!(
    /// Another producer has taken the stream over.
    fence,
    Ends::Unfinished("superseded"),
    async |stage| {
        let reading = stage.ask(0, sdk("/layer/x")).await.until("event-3").await;
        stage.interrupt("x", reading.epoch()).await;
        let _newer = stage.ask(1, sdk("/layer/x")).await.until("event-3").await;
        stage.more(0, 1);
        reading.finish().await
    }
);

way!(
    /// Another node interrupts the stream while the producer's own client reads it.
    interruption,
    Ends::Unfinished("superseded"),
    async |stage| {
        let reading = stage.ask(0, sdk("/layer/x")).await.until("event-3").await;
        stage.interrupt("x", reading.epoch()).await;
        stage.more(0, 1);
        reading.finish().await
    }
);

way!(interruption_of_a_follower, Ends::Unfinished("interrupted"), async |stage| {
    let _producing = stage.ask(0, sdk("/layer/x")).await.until("event-3").await;
    let reading = stage.ask(1, sdk("/layer/x")).await.until("event-3").await;
    stage.interrupt("x", reading.epoch()).await;
    reading.finish().await
});

way!(
    /// A client has the first event, and the events after it were trimmed.
    gap,
    Ends::Gap,
    last "",
    |hub: Builder| hub.max_log_events(4),
    async |stage| {
        let reading = stage.ask(0, sdk("/generation/x")).await.until("event-1\nid: ").await;
        let first = reading.epoch();
        stage.more(0, 20);
        let _producing = reading.until("event-23").await;
        let again = event_source("/generation/x").header("last-event-id", format!("e{first}-1"));
        rest(Ends::Gap, stage.voice, stage.ask(1, again).await, "event-23").await
    }
);

way!(
    /// The same for a page that is reloaded.
    gap_before_the_first_event,
    Ends::Gap,
    last "",
    |hub: Builder| hub.max_log_events(4),
    async |stage| {
        stage.more(0, 20);
        let _producing = stage.ask(0, sdk("/generation/x")).await.until("event-23").await;
        rest(Ends::Gap, stage.voice, stage.ask(1, event_source("/generation/x")).await, "event-23").await
    }
);

way!(
    /// The work begins anew for a client that comes back.
    restart,
    Ends::Restart,
    last "",
    |hub| hub,
    async |stage| {
        let reading = stage.ask(0, event_source("/layer/x")).await.until("event-3").await;
        let again = event_source("/layer/x").header("last-event-id", reading.cursor());
        reading.leave();
        stage.until("x", StreamState::Interrupted).await;
        rest(Ends::Restart, stage.voice, stage.ask(1, again).await, "event-3").await
    }
);

way!(
    /// The store no longer holds the stream.
    store_lost,
    Ends::Unfinished("gone"),
    async |stage| {
        let publisher = stage.nodes[0].sse.publisher();
        publisher.send(&key("x").owner, &key("x").id, Event::new("event-3")).await.unwrap();
        let reading = stage.ask(1, sdk("/relay/x")).await.until("event-3").await;
        stage.store.inner().delete(key("x")).await.unwrap();
        reading.finish().await
    }
);

way!(
    /// Nobody opens the stream.
    relay_in_vain,
    Ends::Unfinished("not_opened"),
    last "",
    |hub| hub,
    async |stage| stage.ask(0, sdk("/relay/nobody")).await.finish().await
);

way!(
    /// A job is lost with its process.
    publication_dropped,
    Ends::Terminal("failed", "dropped"),
    async |stage| {
        let mut publication = stage.nodes[0].sse.publisher().open(StreamSpec::new(key("x").owner, key("x").id)).await.unwrap();
        publication.send(Event::new("event-3")).await.unwrap();
        let reading = stage.ask(1, sdk("/relay/x")).await.until("event-3").await;
        drop(publication);
        reading.finish().await
    }
);

way!(feed_in_a_drain, Ends::Finished, async |stage| {
    let reading = stage.ask(0, event_source("/feed/x")).await.until("event-3").await;
    stage.drain(0);
    reading.finish().await
});

way!(feed_that_is_interrupted, Ends::Finished, async |stage| {
    let _producing = stage.ask(0, event_source("/feed/x")).await.until("event-3").await;
    let reading = stage.ask(1, event_source("/feed/x")).await.until("event-3").await;
    stage.interrupt("x", reading.epoch()).await;
    reading.finish().await
});

way!(
    /// A relay does not know that a stream is a feed's: its client is told that the work was interrupted.
    feed_that_is_interrupted_through_a_relay,
    Ends::Unfinished("interrupted"),
    async |stage| {
        let _producing = stage.ask(0, event_source("/feed/x")).await.until("event-3").await;
        let reading = stage.ask(1, event_source("/relay/x")).await.until("event-3").await;
        stage.interrupt("x", reading.epoch()).await;
        reading.finish().await
    }
);

way!(feed_whose_body_ends, Ends::Finished, async |stage| {
    stage.ask(0, event_source("/feed/x?then=eof")).await.finish().await
});

way!(
    /// An unrecorded stream ends like any other.
    unrecorded_inner_error,
    Ends::Terminal("failed", "error"),
    async |stage| {
        stage.store.fail(Fault::Refuse);
        stage.ask(0, sdk("/generation/x?then=error")).await.finish().await
    }
);

way!(unrecorded_eof, Ends::Finished, async |stage| {
    stage.store.fail(Fault::Refuse);
    stage.ask(0, sdk("/generation/x?then=eof")).await.finish().await
});

way!(unrecorded_in_a_drain, Ends::Unfinished("shutdown"), async |stage| {
    stage.store.fail(Fault::Refuse);
    let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
    stage.drain(0);
    reading.finish().await
});

way!(unrecorded_in_a_drain_for_an_event_source, Ends::Unfinished("shutdown"), async |stage| {
    stage.store.fail(Fault::Refuse);
    let reading = stage.ask(0, event_source("/generation/x")).await.until("event-3").await;
    stage.drain(0);
    reading.finish().await
});

way!(
    /// If another node has ended a stream, its producer's own client is still served to the end (G4).
    orphan_that_is_not,
    Ends::Finished,
    last "event-4",
    |hub| hub,
    async |stage| {
        let reading = stage.ask(0, sdk("/generation/x")).await.until("event-3").await;
        stage.close("x", StreamState::Orphaned, reason::NODE_LOST).await;
        stage.more(0, 1);
        let reading = reading.until("event-4").await;
        stage.close_bodies(0);
        reading.finish().await
    }
);
