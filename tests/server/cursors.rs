//! The cursors of clients: the ways to send them, and the answers to unusable ones.

use http::{StatusCode, request};
use serde_json::{Value, json};

use crate::support::example::{Server, answer, by_user, event_source, eventually, get, numbers, some};

#[tokio::test]
async fn g1_cursors_are_read_wherever_clients_put_them() {
    let server = Server::start(&[]);
    let path = "/api/stream/x?n=200&rate=0";
    let all = server.read(event_source(path)).await;
    assert_eq!(numbers(&all), Vec::from_iter(0..200));
    let id = |s: usize| {
        let event = all.events.iter().find(|event| event.data.starts_with(&format!(r#"{{"s":{s},"#)));
        event.expect("the event").id.clone()
    };
    let (old, new) = (id(10), id(150));
    let with = |query: String| event_source(&format!("{path}&{query}"));
    let table: Vec<(&str, request::Builder)> = vec![
        ("a polyfill's parameter", with(format!("lastEventId={new}"))),
        ("appended at each reconnect", with(format!("last_event_id={old}&last_event_id={new}"))),
        ("the greater counts", with(format!("last_event_id={new}&last_event_id={old}"))),
        ("an empty header is none", with(format!("last_event_id={new}")).header("last-event-id", "")),
        ("an empty parameter is none", with("last_event_id=".into()).header("last-event-id", &*new)),
        ("two headers", event_source(path).header("last-event-id", &*old).header("last-event-id", &*new)),
        (
            "two headers, the other way",
            event_source(path).header("last-event-id", &*new).header("last-event-id", &*old),
        ),
        ("header and parameter", with(format!("lastEventId={old}")).header("last-event-id", &*new)),
        ("one that cannot be read", with(format!("last_event_id=yesterday&lastEventId={new}"))),
        ("live only is less than a place", with("last_event_id=$".into()).header("last-event-id", &*new)),
        ("percent-encoded", with(format!("last%5Fevent_id={}", new.replace('-', "%2D")))),
    ];
    for (name, request) in table {
        let rest = server.read(request).await;
        assert_eq!(numbers(&rest), Vec::from_iter(151..200), "{name}");
        assert_eq!(rest.names().last(), Some(&"completed"), "{name}");
        assert_eq!(rest.names().len(), 50, "{name}: nothing else: {:?}", rest.names());
    }
}

#[tokio::test]
async fn an_old_terminal_cursor_does_not_run_the_work_again() {
    for policy in ["interrupt", "detach", "cancel"] {
        let server = Server::start(
            &[
                &["--on-disconnect", policy, "--recovery-window", "0.3", "--stale", "0.3", "--sweep", "0.1"][..],
                &["--lifetime", "0.3"],
            ]
            .concat(),
        );
        for (path, name) in [("/api/stream/x?n=5&rate=0", "x"), ("/api/stream?n=5&rate=0", "")] {
            let started = server.figure("started").await;
            let seen = server.read(event_source(path)).await;
            let end = seen.last_id().to_owned();
            assert!(end.ends_with("-0"), "{end}");
            if name.is_empty() {
                eventually(async || server.listed("").await.is_empty().then_some(())).await;
            } else {
                let recover = format!("/api/stream/{name}/recover");
                eventually(async || {
                    (server.ask(by_user(&recover)).await.status() == StatusCode::NOT_FOUND).then_some(())
                })
                .await;
            }
            let back = server.ask(event_source(path).header("last-event-id", end)).await;
            assert_eq!(back.status(), StatusCode::NO_CONTENT, "{policy} {path}");
            assert_eq!(server.figure("started").await, started + 1, "{policy} {path}");
        }
    }
}

#[tokio::test]
async fn g1_a_reload_after_the_beginning_was_trimmed_is_told_so() {
    let lines = std::env::temp_dir().join(format!("resilient-sse-trimmed-{}", std::process::id()));
    let server = Server::start(&["--max-events", "100", "--hook-file", lines.to_str().unwrap()]);
    let path = "/api/stream/x?n=1000&rate=0&end=never";
    let first = some(1000, server.ask(event_source(path)).await.body_mut()).await;
    assert_eq!(numbers(&first), Vec::from_iter(0..1000));

    let reload = some(101, server.ask(event_source(path)).await.body_mut()).await;
    let held = numbers(&reload);
    let [gap, ..] = &reload.events.iter().filter(|event| event.name != "connected").collect::<Vec<_>>()[..] else {
        panic!("nothing came")
    };
    let told: Value = serde_json::from_str(&gap.data).expect("JSON");
    assert_eq!((&*gap.name, &told["after"], &told["missed"]), ("gap", &Value::Null, &json!(held[0])), "{told}");
    assert_eq!(told["resumesAt"], json!(reload.events.iter().find(|event| event.name == "message").unwrap().id));
    assert!(held[0] >= 900 && held.is_sorted(), "{held:?}");

    let (_, recovered) = answer(server.ask(by_user("/api/stream/x/recover?limit=10")).await).await;
    assert_eq!(recovered["missing"], json!(held[0]), "{recovered}");
    // The hook is told as well, so that it does not save the tail as the whole answer.
    let stop = http::Request::delete("/api/stream/x").header("host", "test").header("x-user-id", "u");
    assert_eq!(server.ask(stop).await.status(), StatusCode::ACCEPTED);
    let line = eventually(async || std::fs::read_to_string(&lines).ok().filter(|text| text.ends_with('\n'))).await;
    std::fs::remove_file(&lines).unwrap();
    let line: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(
        (&line["streamId"], &line["status"], &line["reason"]),
        (&json!("x"), &json!("cancelled"), &json!("stopped"))
    );
    let [events, missing] = ["events", "missing"].map(|name| line[name].as_u64().expect("a number"));
    assert_eq!(events + missing, 1000, "{line}");
    assert!((90..=100).contains(&events), "{line}");
}

#[tokio::test]
async fn an_id_means_the_same_however_it_is_escaped_on_every_verb() {
    let server = Server::start(&[]);
    for (escaped, id) in [("a%7Eb", "a~b"), ("user%2D1", "user-1"), ("%61", "a")] {
        let (status, told) =
            server.post(&format!("/api/stream/{escaped}/events"), r#"{"type":"token","data":{"s":1}}"#).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{told}");
        for path in ["/api/relay/", "/api/stream/"] {
            let mut response = server.get(&format!("{path}{escaped}")).await;
            assert_eq!(
                (response.status(), response.headers()["x-stream-id"].as_bytes()),
                (StatusCode::OK, id.as_bytes())
            );
            let seen = some(1, response.body_mut()).await;
            assert_eq!(seen.data(), [r#"{"type":"token","data":{"s":1}}"#], "{path}{escaped}");
        }
        let (status, told) = server.json(&format!("/api/stream/{escaped}/recover")).await;
        assert_eq!((status, &told["streamId"]), (StatusCode::OK, &json!(id)), "{told}");
        assert_eq!(server.delete(&format!("/api/stream/{escaped}")).await, StatusCode::ACCEPTED);
        server.until_status(id, "cancelled").await;
    }
    // The same for a wrapped handler's stream.
    let seen = server.collect("/api/stream/c%7Ed?n=2&rate=0").await;
    assert_eq!(numbers(&seen), [0, 1]);
    let rest = get("/api/stream/c~d?n=2&rate=0").header("last-event-id", &*seen.events[1].id);
    assert_eq!(numbers(&server.read(rest).await), [1]);
    // A text that is not percent-encoded UTF-8 is no id.
    for bad in ["%FF", "%2F", "a%", "a%7"] {
        assert_eq!(server.get(&format!("/api/stream/{bad}")).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
}
