//! Checks of the origin, kind and fingerprint that a request must match to open a held stream, and of what `info`
//! returns.

use super::{
    bench::{Bench, epoch_of, reopen},
    pointer_bench::stream,
};
use crate::{
    KeptHeaders, Overlap, Turn, Voice,
    model::stream::Origin,
    store::{Open, Opened, ReadFrom, Store},
};

/// A request with another fingerprint for the same id is refused, in every state of the stream.
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

/// Opens a stream for each state, named after the state, and brings it into that state.
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

/// Guarantee G9: a request for a stream that a route of another kind produces, or produced, gets `OtherKind`. This
/// outcome comes before all others, and the stream does not change.
pub async fn another_kind_is_refused(store: impl Store) {
    let bench = Bench::new(store);
    for (owner, origin) in [("alice", Origin::Named), ("bob", Origin::Generated)] {
        let bench = bench.of(owner);
        let own = |request| Open { fingerprint: Some("one".into()), ..of_kind("export", origin, request) };
        in_each_state(&bench, own).await;
        for id in STATES {
            let before = bench.info_of(&bench.key(id)).await;
            let refused = Opened::OtherKind { kind: "export".into() };
            let other = || of_kind("chat", Origin::Named, bench.request(id));
            assert_eq!(bench.ask(other()).await, refused, "{id}");
            assert_eq!(bench.ask(Open { create: false, ..other() }).await, refused, "{id}, not to be created");
            assert_eq!(bench.ask(Open { fingerprint: Some("two".into()), ..other() }).await, refused, "{id}, printed");
            assert_eq!(bench.ask(Open { limit: Some(0), ..other() }).await, refused, "{id}, over the limit");
            assert_eq!(bench.info_of(&bench.key(id)).await, before, "{id}");
        }
    }
}

/// A request of the same kind is not refused, and a repeated request gets the same outcome.
pub async fn the_same_kind_is_not_refused(store: impl Store) {
    let bench = Bench::new(store);
    let own = |request| of_kind("export", Origin::Named, request);
    in_each_state(&bench, own).await;
    assert_eq!(bench.ask(own(bench.request("active"))).await, Opened::Active { started: true });
    assert!(matches!(bench.ask(own(bench.request("ended"))).await, Opened::Ended(_)));
    let again = own(bench.request("interrupted"));
    let opened = bench.ask(again.clone()).await;
    assert_eq!(epoch_of(&opened), bench.info_of(&again.key).await.epoch);
    assert_eq!(bench.ask(again).await, opened);
    bench.delete(bench.key("ended")).await.expect("the store answers");
    epoch_of(&bench.ask(of_kind("chat", Origin::Named, bench.request("ended"))).await);
}

/// A stream keeps the origin `Generated` while inner bodies produce it, even if a request names its id. The producer
/// gets the origin, because the cursors of its clients begin with a generated id.
pub async fn a_made_up_id_stays_made_up(store: impl Store) {
    let bench = Bench::new(store);
    let (key, mut origins) = (bench.key("made-up"), Vec::new());
    for origin in [Origin::Generated, Origin::Named, Origin::Named, Origin::Published, Origin::Named] {
        let request = of_kind("chat", origin, bench.request("made-up"));
        let opened = bench.ask(request.clone()).await;
        assert_eq!(bench.ask(request).await, opened, "a repeat is told the same");
        let Opened::New { epoch, origin, .. } = opened else { panic!("not opened: {opened:?}") };
        assert_eq!(bench.info_of(&key).await.origin, origin);
        origins.push(origin);
        bench.stand_still(&key, epoch).await;
    }
    let made_up = Origin::Generated;
    assert_eq!(origins, [made_up, made_up, made_up, Origin::Published, Origin::Named]);
}

/// A cursor with a generated id opens only a stream of its kind whose id was generated. Any other stream counts as
/// missing, and no stream is created in its place.
pub async fn a_made_up_id_opens_only_its_own(store: impl Store) {
    let bench = Bench::new(store);
    for (owner, kind, origin) in
        [("alice", "chat", Origin::Named), ("bob", "export", Origin::Generated), ("carol", "chat", Origin::Published)]
    {
        let bench = bench.of(owner);
        in_each_state(&bench, |request| of_kind(kind, origin, request)).await;
        for id in STATES {
            let before = bench.info_of(&bench.key(id)).await;
            let cursor = || of_kind("chat", Origin::Generated, bench.request(id));
            assert_eq!(bench.ask(Open { create: false, ..cursor() }).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.ask(cursor()).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.ask(Open { limit: Some(0), ..cursor() }).await, Opened::Missing, "{owner}, {id}");
            assert_eq!(bench.info_of(&bench.key(id)).await, before, "{owner}, {id}");
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

/// Kinds are not compared if the stream or the request is a publisher's, since a publisher names the stream that it
/// means.
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

/// The store returns the origin, kind and fingerprint of the newest run.
pub async fn origin_kind_and_fingerprint_are_told(store: impl Store) {
    let bench = Bench::new(store);
    let told = async |id: &str| {
        let info = bench.info_of(&bench.key(id)).await;
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

/// The store returns the voice, turn and headers that a route has set for its stream. A repeat may add to them. A new
/// run sets them again, except for the turn.
pub async fn what_a_route_says_is_told(store: impl Store) {
    let bench = Bench::new(store);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let kept = KeptHeaders::Kept(vec![pair("location", "/a:b=c"), pair("location", ""), pair("x-é", "ü")]);
    let open = Open { voice: Voice::OpenAi, headers: KeptHeaders::Awaited, ..bench.request("said") };
    let epoch = epoch_of(&bench.ask(open.clone()).await);
    let key = bench.key("said");
    let told = async || {
        let info = bench.info_of(&key).await;
        let page = bench.all(&key, ReadFrom::Start).await;
        assert_eq!(
            (page.origin, page.voice, &page.headers),
            (info.origin, info.voice, &info.headers),
            "a page says so too"
        );
        (info.voice, info.turn.map(|turn| (turn.conversation.to_string(), turn.overlap)), info.headers)
    };
    assert_eq!(told().await, (Voice::OpenAi, None, KeptHeaders::Awaited));
    let turn = |name: &str| Some(Turn { conversation: stream(name), overlap: Overlap::Refuse });
    let more = Open { turn: turn("chat"), headers: kept.clone(), create: false, ..open.clone() };
    assert_eq!(epoch_of(&bench.ask(more).await), epoch, "the same request");
    let named = Some(("chat".to_owned(), Overlap::Refuse));
    assert_eq!(told().await, (Voice::OpenAi, named.clone(), kept.clone()));
    bench.ask(Open { turn: turn("other"), ..open }).await;
    assert_eq!(told().await, (Voice::OpenAi, named.clone(), kept), "what is said stays");
    bench.stand_still(&key, epoch).await;
    let again = Open { voice: Voice::Json, turn: turn("other"), ..bench.request("said") };
    assert!(matches!(bench.ask(again.clone()).await, Opened::New { .. }));
    assert_eq!(told().await, (Voice::Json, named, KeptHeaders::None));
    assert!(!bench.info_of(&key).await.started);
    bench.ask(Open { started: true, ..again }).await;
    assert!(bench.info_of(&key).await.started);
}
