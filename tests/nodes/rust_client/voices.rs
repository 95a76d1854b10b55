//! The library's notices and endings in each voice. The client never reports them as events of the stream.

use resilient_sse::{
    StreamState,
    client::{Ended, Update},
};

use crate::{
    QUICK,
    rust_client::{
        Nodes,
        reader::{Reader, get},
    },
    support::redis::{End, Proxy},
};

const VOICES: [&str; 4] = ["named", "json", "openai", "silent"];

/// The stream of a killed node runs again. The client reports a restart, and loses or repeats no event within a run.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_told_in_each_voice() {
    for voice in VOICES {
        let options = [&QUICK[..], &["--on-disconnect", "interrupt", "--voice", voice]].concat();
        let Nodes { a, b, redis: _redis } = Nodes::trusting(&options).await;
        let proxy = Proxy::start(a.address);
        let mut reader =
            Reader::of(get(&format!("http://{}/api/stream/again?n=80&rate=100", proxy.address()))).without_delays();
        reader.until(20).await;
        a.kill();
        proxy.point_at(b.address);
        reader.until_end().await;
        reader.assert_no_loss();
        assert_eq!((reader.runs.len(), reader.numbers().len()), (2, 80), "{voice}: {:?}", reader.runs);
        assert_eq!(reader.ending().0, Some(StreamState::Completed), "{voice}");
    }
}

/// A client misses events that were trimmed from the log. Only some voices can report a gap and continue after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_in_each_voice() {
    for voice in VOICES {
        let nodes = Nodes::start(&["--max-events", "50", "--voice", voice]);
        let path = "/api/stream/long?n=300&rate=0";
        let mut reader = Reader::of(get(&format!("http://{}{path}", nodes.a.address)));
        reader.until(10).await;
        let cursor = reader.source.last_event_id().to_owned();
        drop(reader);
        nodes.b.until_status("long", "completed").await;
        let mut late =
            Reader::of(get(&format!("http://{}{path}", nodes.b.address)).last_event_id(&*cursor).max_attempts(3))
                .without_delays();
        if voice == "silent" {
            // The silent voice cannot express a gap, so each response breaks off.
            let gave_up = late.until_failure().await;
            assert!(gave_up.to_string().contains("3 attempts"), "{gave_up}");
            assert_eq!((late.gaps.len(), late.numbers().len()), (0, 0));
            continue;
        }
        if voice == "openai" {
            late.until_failure().await;
            assert_eq!(
                (late.gaps.len(), late.gaps[0].after.as_deref(), late.numbers().len()),
                (1, Some(&*cursor), 0),
                "{:?}",
                late.gaps
            );
            continue;
        }
        late.until_end().await;
        let [gap] = &late.gaps[..] else { panic!("{voice}: {:?}", late.gaps) };
        let missed = gap.missed.expect("both ends are known");
        assert_eq!(
            (gap.after.as_deref(), late.numbers()),
            (Some(&*cursor), &Vec::from_iter(10 + missed..300)[..]),
            "{voice}"
        );
        assert!(missed >= 200, "{voice}: {missed}");
    }
}

/// The client reports an ending that the library supplies, with its state and reason if the voice can express them.
#[tokio::test(flavor = "multi_thread")]
async fn a_supplied_ending_is_told_in_each_voice() {
    for voice in VOICES {
        let nodes = Nodes::start(&["--voice", voice]);
        let proxy = Proxy::start(nodes.a.address);
        let source = get(&format!("http://{}/api/stream/eof?n=5&rate=0&end=eof", proxy.address()));
        let mut reader = Reader::of(source).without_delays();
        reader.until_end().await;
        reader.assert_no_loss();
        assert_eq!(reader.numbers().len(), 5, "{voice}");
        let Some(Ended { state, reason, .. }) = reader.end else { panic!("{voice}: an end") };
        let expected = match voice {
            "named" | "json" => (Some(StreamState::Completed), Some("eof".to_owned())),
            // The response ends without an event: the client asks once more, and 204 tells it that it has everything.
            _ => (None, None),
        };
        assert_eq!((state, reason), expected, "{voice}");

        let path = format!("http://{}/api/stream/stopped?n=100000&rate=50", proxy.address());
        let mut reader = Reader::of(get(&path)).without_delays();
        reader.until(5).await;
        nodes.b.delete("/api/stream/stopped").await;
        reader.until_end().await;
        reader.assert_no_loss();
        let expected = match voice {
            "silent" => (None, None),
            _ => (Some(StreamState::Cancelled), Some("stopped")),
        };
        assert_eq!(reader.ending(), expected, "{voice}");
        proxy.cut(End::Finish);
    }
}

/// A draining server breaks responses off. The `openai` voice also gives the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_a_cut_and_no_event_in_each_voice() {
    for voice in VOICES {
        let Nodes { a, b, redis: _redis } = Nodes::start(&["--drain", "8", "--voice", voice]);
        let proxy = Proxy::start(a.address);
        let source = get(&format!("http://{}/api/stream/drained?n=100&rate=50", proxy.address())).build();
        let (mut source, mut numbers, mut reasons, mut end) = (source, 0, Vec::new(), None);
        while let Some(update) = source.next().await {
            match update.unwrap() {
                Update::Event(event) => {
                    assert!(event.data.contains(r#""type":"token""#), "{voice}: {event:?}");
                    numbers += 1;
                    if numbers == 10 {
                        a.signal("TERM");
                        proxy.point_at(b.address);
                    }
                }
                Update::Cut(cut) => {
                    reasons.push(cut.reason);
                    source.reconnect();
                }
                Update::Ended(ended) => end = ended.state,
                Update::Connected(_) => {}
                other => panic!("{voice}: {other:?}"),
            }
        }
        assert_eq!((numbers, end), (100, Some(StreamState::Completed)), "{voice}");
        let expected = (voice == "openai").then(|| "shutdown".to_owned());
        assert_eq!(reasons, [expected], "{voice}");
    }
}
