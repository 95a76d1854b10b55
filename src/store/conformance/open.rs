//! Who becomes a stream's producer.

use std::time::Duration;

use tokio::task::JoinSet;

use super::bench::{Bench, SOON, close, epoch_of, finished, reopen};
use crate::{
    model::{
        id::EventId,
        stream::{Origin, StreamState},
    },
    store::{Close, Closed, From, Interrupt, Open, Opened, Store},
};

/// A stream that is not held is created, active and unstarted, and the caller's.
pub async fn a_new_stream_is_the_callers(store: impl Store) {
    let bench = Bench::new(store);
    let metadata = vec![("job".to_owned(), "7".to_owned())];
    let opened = bench.ask(Open { metadata: metadata.clone(), ..bench.request("new") }).await;
    let epoch = epoch_of(&opened);
    assert_eq!(opened, Opened::New { epoch, previous: None, inner_id: None, origin: Origin::Named });
    let info = bench.look(&bench.key("new")).await;
    assert_eq!((info.state, info.epoch, info.started, info.reruns), (StreamState::Active, epoch, false, true));
    assert_eq!((info.node, info.metadata, info.kind.as_ref()), (Some(bench.node.clone()), metadata, "check"));
    assert_eq!((info.top, info.ended), (EventId::new(epoch, 0), None));
    assert!(info.deadline > info.last_heartbeat && info.last_heartbeat >= info.started_at);
}

/// A request that is repeated after a lost reply gets the same outcome, not a second run.
pub async fn a_repeat_is_known_by_its_token(store: impl Store) {
    let bench = Bench::new(store);
    let request = bench.request("repeat");
    let first = bench.ask(request.clone()).await;
    assert_eq!(bench.ask(request.clone()).await, first);
    let key = request.key.clone();
    bench.write(&key, epoch_of(&first), 1, &["a"]).await;
    bench.stand_still(&key, epoch_of(&first)).await;
    let again = bench.request("repeat");
    let second = bench.ask(again.clone()).await;
    assert!(epoch_of(&second) > epoch_of(&first));
    assert_eq!(bench.ask(again).await, second, "also of a second run");
    assert_eq!(bench.held(&key).await, ["r", "a", "r"]);
}

/// While a producer runs, no other begins; whether it has begun to answer is told.
pub async fn an_active_stream_is_anothers(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("active").await;
    let other = bench.on("node-2");
    assert_eq!(other.ask(other.request("active")).await, Opened::Active { started: false });
    bench.start(&key, epoch).await;
    assert_eq!(other.ask(other.request("active")).await, Opened::Active { started: true });
    assert!(bench.look(&key).await.started);
}

/// After an interruption a request starts a run of a higher epoch; the log is kept.
pub async fn an_interrupted_stream_is_run_again_in_a_higher_epoch(store: impl Store) {
    let bench = Bench::new(store);
    let (key, first) = bench.begin("again").await;
    bench.write(&key, first, 1, &["a", "b"]).await;
    let interrupt = Interrupt { key: key.clone(), epoch: first, last: Some(3), if_deadline: None };
    bench.interrupt(interrupt).await.expect("the store answers");
    assert_eq!(bench.look(&key).await.state, StreamState::Interrupted);
    let other = bench.on("node-2");
    let opened = other.ask(Open { create: false, ..other.request("again") }).await;
    let second = epoch_of(&opened);
    assert!(second > first);
    let previous = Some(EventId::new(first, 3));
    assert_eq!(
        opened,
        Opened::New { epoch: second, previous, inner_id: None, origin: Origin::Named },
        "the third was made, not recorded"
    );
    let info = bench.look(&key).await;
    assert_eq!(
        (info.state, info.epoch, info.started, info.node),
        (StreamState::Active, second, false, Some(other.node))
    );
    bench.write(&key, second, 1, &["c"]).await;
    assert_eq!(bench.held(&key).await, ["r", "a", "b", "r", "c"]);
}

/// A stream that has ended answers with its end.
pub async fn an_ended_stream_is_not_run_again(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch) = bench.begin("ended").await;
    let close = Close { ending: finished("done"), ..close(&key, Some(epoch)) };
    let Closed::Now { ended, .. } = bench.end(close).await else { panic!("not closed") };
    assert_eq!(bench.ask(bench.request("ended")).await, Opened::Ended(ended.clone()));
    assert_eq!(bench.look(&key).await.ended, Some(ended));
}

/// `create: false` creates nothing.
pub async fn a_missing_stream_is_not_created_unasked(store: impl Store) {
    let bench = Bench::new(store);
    let request = Open { create: false, ..bench.request("missing") };
    assert_eq!(bench.ask(request).await, Opened::Missing);
    let key = bench.key("missing");
    assert_eq!(bench.known(&key).await, None);
    assert_eq!(bench.page(&key, From::Start, 1, 1).await, None);
    assert_eq!(bench.listed().await, []);
}

fn limited(request: Open) -> Open {
    Open { limit: Some(2), ..request }
}

/// The limit is one of active streams: those that ended or stand still do not count, nor those of others.
pub async fn a_limit_counts_active_streams(store: impl Store) {
    let bench = Bench::new(store);
    let a = epoch_of(&bench.ask(limited(bench.request("a"))).await);
    let b = epoch_of(&bench.ask(limited(bench.request("b"))).await);
    assert_eq!(bench.ask(limited(bench.request("c"))).await, Opened::OverLimit);
    assert_eq!(bench.known(&bench.key("c")).await, None, "a refused stream leaves nothing");
    assert_eq!(bench.ask(limited(bench.request("a"))).await, Opened::Active { started: false }, "not a new one");
    let bob = bench.of("bob");
    epoch_of(&bob.ask(limited(bob.request("c"))).await);

    bench.stand_still(&bench.key("a"), a).await;
    epoch_of(&bench.ask(limited(bench.request("c"))).await);
    assert_eq!(bench.ask(limited(bench.request("a"))).await, Opened::OverLimit, "a second run counts too");
    bench.finish(&bench.key("b"), b).await;
    epoch_of(&bench.ask(limited(bench.request("a"))).await);
}

/// Requests that race for an owner's last places get exactly those.
pub async fn of_racing_requests_exactly_the_limit_is_allowed(store: impl Store) {
    const LIMIT: usize = 7;
    let bench = Bench::new(store);
    let mut racing = JoinSet::new();
    for number in 0..40 {
        let bench = bench.clone();
        racing.spawn(async move {
            tokio::task::yield_now().await;
            bench.ask(Open { limit: Some(LIMIT), ..bench.request(&format!("race-{number}")) }).await
        });
    }
    let outcomes = racing.join_all().await;
    let opened = outcomes.iter().filter(|outcome| matches!(outcome, Opened::New { .. })).count();
    assert_eq!(opened, LIMIT);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Opened::New { .. } | Opened::OverLimit)));
}

/// The same id for another request is refused, in whatever state the stream is.
pub async fn another_fingerprint_is_refused(store: impl Store) {
    let bench = Bench::new(store);
    let asking = |what: &str| Open { fingerprint: Some(what.to_owned()), ..bench.request("print") };
    let epoch = epoch_of(&bench.ask(asking("one")).await);
    let key = bench.key("print");
    assert_eq!(bench.ask(asking("two")).await, Opened::OtherFingerprint);
    assert_eq!(bench.ask(asking("one")).await, Opened::Active { started: false });
    assert_eq!(bench.ask(bench.request("print")).await, Opened::Active { started: false }, "none is no other one");
    let ended = bench.finish(&key, epoch).await;
    assert_eq!(bench.ask(asking("two")).await, Opened::OtherFingerprint);
    assert_eq!(bench.ask(asking("one")).await, Opened::Ended(ended));
}

const STATES: [&str; 3] = ["active", "interrupted", "ended"];

/// Opens a stream for each state, and brings it into that; it is named by it.
async fn in_each_state<S: Store>(bench: &Bench<S>, opened: impl Fn(Open) -> Open) {
    for id in STATES {
        let epoch = epoch_of(&bench.ask(opened(bench.request(id))).await);
        match id {
            "interrupted" => bench.stand_still(&bench.key(id), epoch).await,
            "ended" => drop(bench.finish(&bench.key(id), epoch).await),
            _ => bench.start(&bench.key(id), epoch).await,
        }
    }
}

fn of_kind(kind: &'static str, origin: Origin, request: Open) -> Open {
    Open { kind: kind.into(), origin, ..request }
}

/// Guarantee G9: a request that names a stream which the inner body of a route of another kind produces, or produced, is
/// told so, whatever else might be said. The stream is as before.
pub async fn another_kind_is_refused(store: impl Store) {
    let bench = Bench::new(store);
    for (owner, origin) in [("alice", Origin::Named), ("bob", Origin::Generated)] {
        let bench = bench.of(owner);
        let own = |request| Open { fingerprint: Some("one".into()), ..of_kind("export", origin, request) };
        in_each_state(&bench, own).await;
        for id in STATES {
            let before = bench.look(&bench.key(id)).await;
            let refused = Opened::OtherKind { kind: "export".into() };
            let other = || of_kind("chat", Origin::Named, bench.request(id));
            assert_eq!(bench.ask(other()).await, refused, "{id}");
            assert_eq!(bench.ask(Open { create: false, ..other() }).await, refused, "{id}, not to be created");
            assert_eq!(bench.ask(Open { fingerprint: Some("two".into()), ..other() }).await, refused, "{id}, printed");
            assert_eq!(bench.ask(Open { limit: Some(0), ..other() }).await, refused, "{id}, over the limit");
            assert_eq!(bench.look(&bench.key(id)).await, before, "{id}");
        }
    }
}

/// A request of the same kind is none of another, and one that is repeated is the same.
pub async fn the_same_kind_is_not_refused(store: impl Store) {
    let bench = Bench::new(store);
    let own = |request| of_kind("export", Origin::Named, request);
    in_each_state(&bench, own).await;
    assert_eq!(bench.ask(own(bench.request("active"))).await, Opened::Active { started: true });
    assert!(matches!(bench.ask(own(bench.request("ended"))).await, Opened::Ended(_)));
    let again = own(bench.request("interrupted"));
    let opened = bench.ask(again.clone()).await;
    assert_eq!(epoch_of(&opened), bench.look(&again.key).await.epoch);
    assert_eq!(bench.ask(again).await, opened);
    bench.delete(bench.key("ended")).await.expect("the store answers");
    epoch_of(&bench.ask(of_kind("chat", Origin::Named, bench.request("ended"))).await);
}

/// A stream whose id the library made up stays one while inner bodies produce it, whoever names it, and the producer is told:
/// its clients' cursors begin with that id.
pub async fn a_made_up_id_stays_made_up(store: impl Store) {
    let bench = Bench::new(store);
    let (key, mut origins) = (bench.key("made-up"), Vec::new());
    for origin in [Origin::Generated, Origin::Named, Origin::Named, Origin::Published, Origin::Named] {
        let request = of_kind("chat", origin, bench.request("made-up"));
        let opened = bench.ask(request.clone()).await;
        assert_eq!(bench.ask(request).await, opened, "a repeat is told the same");
        let Opened::New { epoch, origin, .. } = opened else { panic!("not opened: {opened:?}") };
        assert_eq!(bench.look(&key).await.origin, origin);
        origins.push(origin);
        bench.stand_still(&key, epoch).await;
    }
    let made_up = Origin::Generated;
    assert_eq!(origins, [made_up, made_up, made_up, Origin::Published, Origin::Named]);
}

/// A cursor with a made-up id opens only a stream whose id was made up, of its kind; any other is a missing one, and
/// nothing is created in its place.
pub async fn a_made_up_id_opens_only_its_own(store: impl Store) {
    let bench = Bench::new(store);
    for (owner, kind, origin) in
        [("alice", "chat", Origin::Named), ("bob", "export", Origin::Generated), ("carol", "chat", Origin::Published)]
    {
        let bench = bench.of(owner);
        in_each_state(&bench, |request| of_kind(kind, origin, request)).await;
        for id in STATES {
            let before = bench.look(&bench.key(id)).await;
            let cursor = || of_kind("chat", Origin::Generated, bench.request(id));
            assert_eq!(bench.ask(Open { create: false, ..cursor() }).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.ask(cursor()).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.ask(Open { limit: Some(0), ..cursor() }).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.look(&bench.key(id)).await, before, "{owner}, {id}");
        }
    }
    let bench = bench.of("dora");
    in_each_state(&bench, |request| of_kind("chat", Origin::Generated, request)).await;
    let cursor = |id| Open { create: false, ..of_kind("chat", Origin::Generated, bench.request(id)) };
    assert_eq!(bench.ask(cursor("active")).await, Opened::Active { started: true });
    assert!(matches!(bench.ask(cursor("ended")).await, Opened::Ended(_)));
    epoch_of(&bench.ask(cursor("interrupted")).await);
    assert_eq!(bench.ask(cursor("none")).await, Opened::Missing);
}

/// A publisher says which stream it means, and so does whoever follows what is published: kinds are not compared.
pub async fn a_published_stream_has_no_kind_to_compare(store: impl Store) {
    let bench = Bench::new(store);
    for (owner, held, asked) in [("alice", Origin::Published, Origin::Named), ("bob", Origin::Named, Origin::Published)]
    {
        let bench = bench.of(owner);
        in_each_state(&bench, |request| of_kind("job", held, request)).await;
        let other = |id| of_kind("chat", asked, bench.request(id));
        assert_eq!(bench.ask(other("active")).await, Opened::Active { started: true }, "{owner}");
        assert!(matches!(bench.ask(other("ended")).await, Opened::Ended(_)), "{owner}");
        epoch_of(&bench.ask(other("interrupted")).await);
    }
    let bench = bench.of("carol");
    bench.sent(bench.event("sent", "a")).await;
    let other = of_kind("chat", Origin::Named, bench.request("sent"));
    assert_eq!(bench.ask(other).await, Opened::Active { started: true });
}

/// Who produces a stream, who named it, what for, and what its request asked for: all is told, of the newest run.
pub async fn origin_kind_and_fingerprint_are_told(store: impl Store) {
    let bench = Bench::new(store);
    let told = async |id: &str| {
        let info = bench.look(&bench.key(id)).await;
        (info.origin, info.kind.into_owned(), info.fingerprint)
    };
    let print = |print: &str| Some(print.to_owned());
    let opened = |origin, id, fingerprint| Open { fingerprint, ..of_kind("chat", origin, bench.request(id)) };
    for origin in [Origin::Named, Origin::Generated, Origin::Published] {
        let id = origin.as_str();
        let epoch = epoch_of(&bench.ask(opened(origin, id, print("one"))).await);
        assert_eq!(told(id).await, (origin, "chat".to_owned(), print("one")));
        bench.stand_still(&bench.key(id), epoch).await;
        assert_eq!(told(id).await, (origin, "chat".to_owned(), print("one")), "of one that stands still");
    }
    let plain = epoch_of(&bench.ask(opened(Origin::Named, "plain", None)).await);
    assert_eq!(told("plain").await, (Origin::Named, "chat".to_owned(), None));
    bench.stand_still(&bench.key("plain"), plain).await;
    bench.ask(opened(Origin::Named, "plain", print(""))).await;
    assert_eq!(told("plain").await.2, print(""), "an empty one is one");

    bench.ask(opened(Origin::Named, "generated", None)).await;
    assert_eq!(told("generated").await, (Origin::Generated, "chat".to_owned(), print("one")), "a made-up id stays one");
    bench.ask(Open { kind: "job".into(), ..opened(Origin::Published, "named", None) }).await;
    assert_eq!(told("named").await, (Origin::Published, "job".to_owned(), print("one")), "those of the new run");
    let epoch = epoch_of(&bench.ask(opened(Origin::Published, "published", None)).await);
    bench.finish(&bench.key("published"), epoch).await;
    assert_eq!(told("published").await.0, Origin::Published, "of one that has ended");
    bench.sent(bench.event("sent", "a")).await;
    assert_eq!(told("sent").await, (Origin::Published, "check".to_owned(), None));

    let request = opened(Origin::Generated, "forgotten", print("one"));
    let epoch = bench.begin_forgotten(request.clone()).await;
    bench.reopen(reopen(request, epoch, 1)).await.expect("the store answers");
    assert_eq!(told("forgotten").await, (Origin::Generated, "chat".to_owned(), print("one")));
}

/// A run's epoch is `max(previous + 1, now)`, by the store's clock in unix milliseconds.
pub async fn epochs_are_times_and_rise(store: impl Store) {
    let bench = Bench::new(store);
    let mut previous = 0;
    for _ in 0..20 {
        let before = bench.now().await;
        let (key, epoch) = bench.begin("epochs").await;
        let after = bench.now().await;
        assert!(epoch > previous && epoch >= before, "{epoch} after {previous} at {before}");
        assert!(epoch <= after.max(previous + 1), "{epoch} after {previous} at {after}");
        bench.stand_still(&key, epoch).await;
        previous = epoch;
    }
}

/// No epoch is given twice, so that a late word of a producer that is gone never counts, and a cursor
/// at its end never means another run.
pub async fn epochs_rise_across_withdrawal_and_deletion(store: impl Store) {
    let bench = Bench::new(store);
    let mut above = 0;
    for round in 0..30 {
        let request = bench.request("risen");
        let (key, token) = (request.key.clone(), request.token);
        let epoch = epoch_of(&bench.ask(request).await);
        assert!(epoch > above, "{epoch} is not above {above}, in round {round}");
        above = epoch;
        match round % 3 {
            0 => bench.withdraw(key, token).await.expect("the store answers"),
            1 => bench.delete(key).await.expect("the store answers"),
            _ => {
                above = bench.finish(&key, epoch).await.id.epoch;
                bench.delete(key).await.expect("the store answers");
            }
        }
    }
    let epoch = bench.sent(bench.event("risen", "a")).await.epoch;
    assert!(epoch > above, "{epoch} is not above {above}, published");
}

/// A stream that comes again after it expired has a higher epoch than its terminal event.
pub async fn epochs_rise_across_expiry(store: impl Store) {
    let bench = Bench::new(store);
    let mut request = bench.request("expired");
    request.retention.recovery_window = SOON;
    let epoch = epoch_of(&bench.ask(request.clone()).await);
    let ended = bench.finish(&request.key, epoch).await;
    bench.until("an ended stream expires", async || bench.known(&request.key).await.is_none()).await;
    let (_, epoch) = bench.begin("expired").await;
    assert!(epoch > ended.id.epoch);
}

/// Guarantee G4: of all requests racing for a stream one produces, the rest follow.
pub async fn of_ten_thousand_racing_requests_one_per_stream_produces(store: impl Store) {
    const STREAMS: usize = 1000;
    const TASKS: usize = 10;
    let bench = Bench::new(store);
    let mut racing = JoinSet::new();
    for task in 0..TASKS {
        let bench = bench.on(&format!("node-{task}"));
        racing.spawn(async move {
            let mut won = Vec::new();
            for number in 0..STREAMS {
                // Each task comes from elsewhere, so that all of them win some.
                let stream = (number + task * STREAMS / TASKS) % STREAMS;
                match bench.ask(bench.request(&format!("race-{stream}"))).await {
                    Opened::New { .. } => won.push(stream),
                    Opened::Active { .. } => {}
                    other => panic!("neither opened nor active: {other:?}"),
                }
                if number % 16 == 0 {
                    tokio::time::sleep(Duration::from_micros(1)).await;
                }
            }
            won
        });
    }
    let mut won: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    assert!(won.iter().copied().eq(0..STREAMS), "{} runs of {STREAMS} streams", won.len());
    assert_eq!(bench.active_count().await.expect("the store answers"), STREAMS as u64);
}
