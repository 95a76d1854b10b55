//! Where conversations point: what is moved, what goes back, and what a stream's change means for the pointer that names it.

use std::time::Duration;

use super::bench::{Bench, LONG, SOON, close, epoch_of, owner, reopen, retention};
use crate::{
    KeptHeaders, Overlap, Turn, Voice,
    model::{
        id::{StreamId, StreamKey},
        stream::StreamState,
    },
    store::{Closed, Expected, From, Open, Opened, Place, Point, Pointed, Pointer, Renew, Renewed, Retention, Store},
};

/// A turn that begins now.
const NEW: Place = Place { epoch: 1, since: Duration::ZERO };

fn stream(id: &str) -> StreamId {
    StreamId::new(id).expect("a valid id")
}

/// A pointer in short: the stream that it names, then those behind it.
fn brief(pointer: Option<Pointer>) -> String {
    let Some(Pointer { stream, behind, .. }) = pointer else { return "-".to_owned() };
    std::iter::once(stream).chain(behind).map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
}

impl<S: Store> Bench<S> {
    async fn pointer_of(&self, conversation: &str) -> String {
        brief(self.pointer(self.key(conversation)).await.expect("the store answers"))
    }

    async fn move_to(&self, conversation: &str, to: &str, expected: Expected, ttl: Duration) -> Pointed {
        self.move_run(conversation, to, NEW, expected, ttl).await
    }

    async fn move_run(&self, conversation: &str, to: &str, place: Place, expected: Expected, ttl: Duration) -> Pointed {
        let point = Point { conversation: self.key(conversation), stream: stream(to), place, expected, ttl };
        self.point(point).await.expect("the store answers")
    }

    /// Moves a pointer that is to be moved. Returns where it stands then.
    async fn moved(&self, conversation: &str, to: &str) -> String {
        match self.move_to(conversation, to, Expected::Any, LONG).await {
            Pointed::Moved(pointer) => brief(Some(pointer)),
            kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
        }
    }

    async fn take_out(&self, conversation: &str, id: &str) -> String {
        brief(self.unpoint(self.key(conversation), stream(id), None).await.expect("the store answers"))
    }

    async fn renew_one(&self, conversation: &str, id: &str, ttl: Duration, put_back: bool) -> String {
        let put_back = put_back.then_some(NEW);
        let renew = Renew { conversation: self.key(conversation), stream: stream(id), ttl, put_back };
        let renewed = self.renew(vec![renew]).await.expect("the store answers");
        match <[_; 1]>::try_from(renewed) {
            Ok([Renewed::Stands(pointer)]) => brief(pointer),
            other => panic!("one answer for each: {other:?}"),
        }
    }

    /// A request to open a turn.
    fn turn(&self, id: &str, conversation: &str) -> Open {
        let turn = Turn { conversation: stream(conversation), overlap: Overlap::Replace };
        Open { turn: Some(turn), ..self.request(id) }
    }

    /// Opens a turn, and moves the pointer to it.
    async fn begin_turn(&self, id: &str, conversation: &str) -> (StreamKey, u64, u128) {
        let open = self.turn(id, conversation);
        let (key, token) = (open.key.clone(), open.token);
        let epoch = epoch_of(&self.ask(open).await);
        self.move_run(conversation, id, Place { epoch, since: Duration::ZERO }, Expected::Any, LONG).await;
        (key, epoch, token)
    }
}

/// A pointer names the newest stream, and before that has begun, those that it named before.
pub async fn a_pointer_names_the_newest(store: impl Store) {
    let bench = Bench::new(store);
    assert_eq!(bench.pointer_of("chat").await, "-");
    assert_eq!(bench.moved("chat", "a").await, "a");
    assert_eq!(bench.moved("chat", "b").await, "b a");
    assert_eq!(bench.moved("chat", "c").await, "c b a");
    assert_eq!(bench.moved("other", "a").await, "a", "each conversation has its own");
    bench.give_way(bench.key("chat"), vec![stream("a"), stream("b"), stream("c")]).await.expect("the store answers");
    assert_eq!(bench.pointer_of("chat").await, "c", "the one that is named stays");
    bench.give_way(bench.key("none"), vec![stream("a")]).await.expect("nothing to do is no error");
    assert_eq!(bench.pointer_of("none").await, "-");
}

/// It is moved only if it stands where that is expected. A repeat is no error.
pub async fn a_pointer_is_moved_from_where_it_is_expected(store: impl Store) {
    let bench = Bench::new(store);
    let kept = |pointed| match pointed {
        Pointed::Kept(pointer) => brief(pointer),
        moved @ Pointed::Moved(_) => panic!("moved: {moved:?}"),
    };
    let moved = |pointed| match pointed {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
    };
    let to = async |to, expected| bench.move_to("chat", to, expected, LONG).await;
    assert_eq!(kept(to("a", Expected::Stream(stream("x"))).await), "-");
    assert_eq!(moved(to("a", Expected::Nothing).await), "a");
    assert_eq!(moved(to("a", Expected::Nothing).await), "a", "a repeat");
    assert_eq!(kept(to("b", Expected::Nothing).await), "a");
    assert_eq!(kept(to("b", Expected::Stream(stream("x"))).await), "a");
    assert_eq!(moved(to("b", Expected::Stream(stream("a"))).await), "b a");
    assert_eq!(moved(to("b", Expected::Stream(stream("a"))).await), "b a", "a repeat");
    assert_eq!(moved(to("c", Expected::Any).await), "c b a");
    assert_eq!(moved(to("b", Expected::Any).await), "c b a", "a repeat that comes late");
}

/// Whoever fails to begin is taken out, in any order, and the one before is named again.
pub async fn a_pointer_goes_back(store: impl Store) {
    let bench = Bench::new(store);
    for id in ["a", "b", "c", "d"] {
        bench.begin_turn(id, "chat").await;
    }
    assert_eq!(bench.take_out("chat", "x").await, "d c b a", "a stale one changes nothing");
    assert_eq!(bench.take_out("chat", "c").await, "d b a");
    assert_eq!(bench.take_out("chat", "d").await, "b a");
    assert_eq!(bench.take_out("chat", "d").await, "b a", "a repeat");
    assert_eq!(bench.take_out("chat", "b").await, "a");
    assert_eq!(bench.take_out("chat", "a").await, "-");
    assert_eq!(bench.take_out("chat", "a").await, "-", "a repeat");
    assert_eq!(bench.pointer_of("chat").await, "-");
}

/// So many that have not begun may stand in one, and no more.
pub async fn a_pointer_is_bounded(store: impl Store) {
    let bench = Bench::new(store);
    for number in 0..=64 {
        bench.moved("chat", &format!("s{number}")).await;
    }
    let kept = bench.move_to("chat", "late", Expected::Any, LONG).await;
    assert!(matches!(&kept, Pointed::Kept(Some(pointer)) if pointer.stream == stream("s64")), "{kept:?}");
    bench.give_way(bench.key("chat"), vec![stream("s7")]).await.expect("the store answers");
    assert!(bench.moved("chat", "late").await.starts_with("late s64 "));
}

/// A key that is sent again at the moment at which its first run is withdrawn: what is asked for the older run changes nothing.
pub async fn a_newer_run_stays_in_its_pointer(store: impl Store) {
    let bench = Bench::new(store);
    let run = |epoch| Place { epoch, since: Duration::ZERO };
    let move_run = async |to, epoch, expected| match bench.move_run("chat", to, run(epoch), expected, LONG).await {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        Pointed::Kept(pointer) => format!("kept {}", brief(pointer)),
    };
    let take_out = async |epoch| {
        brief(bench.unpoint(bench.key("chat"), stream("k"), Some(epoch)).await.expect("the store answers"))
    };
    move_run("a", 1, Expected::Any).await;
    assert_eq!(move_run("k", 5, Expected::Any).await, "k a");
    assert_eq!(move_run("k", 7, Expected::Any).await, "k a");
    assert_eq!(take_out(5).await, "k a", "the older run's withdrawal");
    assert_eq!(move_run("b", 1, Expected::Any).await, "b k a");
    assert_eq!(move_run("k", 5, Expected::Any).await, "b k a", "the older run's move");
    assert_eq!(take_out(5).await, "b k a");
    assert_eq!(move_run("k", 9, Expected::Any).await, "k b a", "a new run is a new turn");
    assert_eq!(
        bench.pointer(bench.key("chat")).await.expect("the store answers").map(|pointer| pointer.epoch),
        Some(9)
    );
    assert_eq!(move_run("k", 11, Expected::Nothing).await, "kept b a", "the older run is over all the same");
    assert_eq!(bench.pointer_of("chat").await, "b a");
    assert_eq!(move_run("k", 11, Expected::Stream(stream("b"))).await, "k b a");
    assert_eq!(take_out(11).await, "-", "no stream is held that it could go back to");
}

/// The same, where a withdrawal and the next registration race.
pub async fn a_key_that_is_sent_again_at_once_stays_in_its_pointer(store: impl Store) {
    let bench = Bench::new(store);
    for round in 0..30 {
        let id = format!("k{round}");
        let (key, _, token) = bench.begin_turn(&id, &id).await;
        let withdraws = bench.clone();
        let withdrawal = tokio::spawn(async move { withdraws.withdraw(key, token).await.expect("the store answers") });
        let again = loop {
            if let Opened::New { epoch, .. } = bench.ask(bench.turn(&id, &id)).await {
                break epoch;
            }
            tokio::task::yield_now().await;
        };
        let place = Place { epoch: again, since: Duration::ZERO };
        assert!(matches!(bench.move_run(&id, &id, place, Expected::Any, LONG).await, Pointed::Moved(_)));
        withdrawal.await.expect("it ends");
    }
    bench.until_clock(bench.now().await + SOON.as_millis() as u64).await;
    for round in 0..30 {
        let id = format!("k{round}");
        assert_eq!(bench.pointer_of(&id).await, id);
    }
}

/// Which of two turns is newer says the pointer's own clock, whatever epochs their streams have.
pub async fn a_turn_that_began_earlier_goes_behind(store: impl Store) {
    let bench = Bench::new(store);
    let long_ago = |since| Place { epoch: u64::MAX >> 12, since };
    let moved = async |conversation, to, since| match bench
        .move_run(conversation, to, long_ago(since), Expected::Any, LONG)
        .await
    {
        Pointed::Moved(pointer) => brief(Some(pointer)),
        kept @ Pointed::Kept(_) => panic!("not moved: {kept:?}"),
    };
    bench.moved("chat", "a").await;
    bench.until_clock(bench.now().await + 400).await;
    bench.moved("chat", "b").await;
    let hour = Duration::from_secs(3600);
    assert_eq!(moved("chat", "oldest", hour).await, "b a oldest");
    assert_eq!(moved("chat", "older", hour / 2).await, "b a older oldest");
    bench.until_clock(bench.now().await + 400).await;
    assert_eq!(moved("chat", "newest", Duration::from_millis(50)).await, "newest b a older oldest");
    assert_eq!(moved("chat", "older", hour / 2).await, "newest b a older oldest", "a repeat");
    assert_eq!(bench.moved("chat", "now").await, "now newest b a older oldest");
    let put_back = Some(long_ago(hour));
    let renew = Renew { conversation: bench.key("other"), stream: stream("back"), ttl: LONG, put_back };
    bench.renew(vec![renew]).await.expect("the store answers");
    assert_eq!(moved("other", "older", 2 * hour).await, "back older");
    assert_eq!(moved("other", "newer", hour / 2).await, "newer back older");
}

/// Of many that move it at the same time each is in it once.
pub async fn racing_moves_lose_nobody(store: impl Store) {
    let bench = Bench::new(store);
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..32 {
        let bench = bench.clone();
        racing.spawn(async move { bench.moved("chat", &format!("s{number}")).await });
    }
    let mut lengths: Vec<_> = racing.join_all().await.iter().map(|pointer| pointer.split(' ').count()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (1..=32).collect::<Vec<_>>(), "one after the other");
    let mut all: Vec<_> = bench.pointer_of("chat").await.split(' ').map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 32);
}

/// Of many that move it from the same place, one does.
pub async fn of_racing_moves_from_one_place_one_wins(store: impl Store) {
    let bench = Bench::new(store);
    bench.moved("from", "first").await;
    for (conversation, expected) in [("chat", Expected::Nothing), ("from", Expected::Stream(stream("first")))] {
        let mut racing = tokio::task::JoinSet::new();
        for number in 0..16 {
            let (bench, expected) = (bench.clone(), expected.clone());
            racing.spawn(async move { bench.move_to(conversation, &format!("s{number}"), expected, LONG).await });
        }
        let outcomes = racing.join_all().await;
        let won = outcomes.iter().filter(|pointed| matches!(pointed, Pointed::Moved(_))).count();
        assert_eq!(won, 1, "{outcomes:?}");
    }
}

/// It lives as long as it was said to, and is renewed by the stream that it names only.
pub async fn a_pointer_expires(store: impl Store) {
    let bench = Bench::new(store);
    bench.move_to("chat", "a", Expected::Any, SOON).await;
    bench.move_to("kept", "a", Expected::Any, SOON).await;
    assert_eq!(bench.renew_one("kept", "a", LONG, false).await, "a");
    bench.until("it expires", async || bench.pointer_of("chat").await == "-").await;
    assert_eq!(bench.pointer_of("kept").await, "a");
    assert_eq!(bench.renew_one("kept", "b", SOON, true).await, "a", "another one's");
    assert_eq!(bench.renew_one("chat", "a", LONG, false).await, "-", "not put back unasked");
    assert_eq!(bench.renew_one("chat", "a", LONG, true).await, "a", "the store lost it");
    bench.begin("a").await;
    bench.moved("kept", "b").await;
    assert_eq!(bench.renew_one("kept", "a", SOON, true).await, "b a", "one that is not named any more");
    bench.until_clock(bench.now().await + 3 * SOON.as_millis() as u64).await;
    assert_eq!((bench.pointer_of("chat").await, bench.pointer_of("kept").await), ("a".to_owned(), "b a".to_owned()));
    assert_eq!(bench.take_out("kept", "b").await, "a");
    assert_eq!(bench.renew_one("kept", "a", SOON, false).await, "a");
    bench.give_way(bench.key("kept"), vec![stream("x")]).await.expect("the store answers");
    bench.until("it expires after changes, too", async || bench.pointer_of("kept").await == "-").await;
}

/// A withdrawn turn is taken out of the pointer; one that runs again is not.
pub async fn a_withdrawal_takes_its_stream_out(store: impl Store) {
    let bench = Bench::new(store);
    bench.begin_turn("a", "chat").await;
    let (key, _, token) = bench.begin_turn("b", "chat").await;
    assert_eq!(bench.pointer_of("chat").await, "b a");
    bench.withdraw(key.clone(), 1).await.expect("the store answers");
    bench.withdraw(key, token).await.expect("the store answers");
    bench.until("it goes back", async || bench.pointer_of("chat").await == "a").await;

    let (key, epoch, _) = bench.begin_turn("c", "chat").await;
    bench.stand_still(&key, epoch).await;
    let again = bench.turn("c", "chat");
    let token = again.token;
    bench.ask(again).await;
    bench.withdraw(key.clone(), token).await.expect("the store answers");
    assert_eq!(bench.look(&key).await.state, StreamState::Interrupted);
    assert_eq!(bench.pointer_of("chat").await, "c a", "there is still such a stream");
}

/// A pointer that goes back names a stream that is held, and expires when that does.
pub async fn a_pointer_that_goes_back_expires_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    let retention = Retention { recovery_window: SOON, ..retention() };
    let epoch = epoch_of(&bench.ask(Open { retention, ..bench.turn("over", "chat") }).await);
    bench.moved("chat", "over").await;
    bench.moved("chat", "never").await;
    let (key, _, token) = bench.begin_turn("new", "chat").await;
    bench.finish(&bench.key("over"), epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "new never over");
    bench.withdraw(key, token).await.expect("the store answers");
    bench.until("it expires", async || bench.pointer_of("chat").await == "-").await;
    let (old, _, _) = bench.begin_turn("old", "other").await;
    bench.begin_turn("next", "other").await;
    assert_eq!(bench.take_out("other", "next").await, "old");
    assert_eq!(bench.look(&old).await.state, StreamState::Active);
}

/// The pointer expires with the stream that it names, however that ends.
pub async fn a_pointer_expires_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    for (name, ends) in [("closed", true), ("interrupted", false)] {
        let retention = Retention { recovery_window: SOON, lifetime: if ends { LONG } else { SOON }, ..retention() };
        let open = Open { retention, ..bench.turn(name, name) };
        let epoch = epoch_of(&bench.ask(open).await);
        let key = bench.key(name);
        bench.moved(name, name).await;
        if ends {
            bench.finish(&key, epoch).await;
        } else {
            bench.stand_still(&key, epoch).await;
        }
        bench.until("the pointer expires", async || bench.pointer_of(name).await == "-").await;
    }
    // One that names another stream is none of this one's.
    let (key, epoch, _) = bench.begin_turn("old", "chat").await;
    bench.moved("chat", "new").await;
    bench.finish(&key, epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "new old");
}

/// Whoever ended a stream may have died before its pointer followed: a repeat has it follow.
pub async fn a_repeated_end_reaches_the_pointer(store: impl Store) {
    let bench = Bench::new(store);
    for (name, ends) in [("closed", true), ("interrupted", false)] {
        let retention = Retention { recovery_window: SOON, lifetime: if ends { LONG } else { SOON }, ..retention() };
        let epoch = epoch_of(&bench.ask(Open { retention, ..bench.turn(name, name) }).await);
        let key = bench.key(name);
        if ends {
            bench.finish(&key, epoch).await;
        } else {
            bench.stand_still(&key, epoch).await;
        }
        // As if that had not reached the pointer.
        bench.move_to(name, name, Expected::Any, LONG).await;
        if ends {
            assert!(matches!(bench.end(close(&key, Some(epoch))).await, Closed::Before(_)));
        } else {
            bench.stand_still(&key, epoch).await;
        }
        bench.until("the pointer expires", async || bench.pointer_of(name).await == "-").await;
    }
}

/// Of a deleted stream no pointer is left.
pub async fn a_deleted_stream_is_taken_out(store: impl Store) {
    let bench = Bench::new(store);
    let (key, epoch, _) = bench.begin_turn("a", "chat").await;
    bench.finish(&key, epoch).await;
    assert_eq!(bench.pointer_of("chat").await, "a");
    bench.delete(key).await.expect("the store answers");
    bench.until("it is gone", async || bench.pointer_of("chat").await == "-").await;
}

/// A stream that is registered again puts back the pointer that was lost with it, and no other.
pub async fn a_lost_pointer_comes_back_with_its_stream(store: impl Store) {
    let bench = Bench::new(store);
    let open = bench.turn("lost", "chat");
    let epoch = bench.begin_forgotten(open.clone()).await;
    bench.reopen(reopen(open, epoch, 3)).await.expect("the store answers");
    bench.until("it is back", async || bench.pointer_of("chat").await == "lost").await;
    let open = bench.turn("older", "chat");
    let epoch = bench.begin_forgotten(open.clone()).await;
    bench.reopen(reopen(open, epoch, 3)).await.expect("the store answers");
    bench.until_clock(bench.now().await + SOON.as_millis() as u64).await;
    assert_eq!(bench.pointer_of("chat").await, "lost");
    assert_eq!(bench.look(&bench.key("older")).await.turn.map(|turn| turn.conversation), Some(stream("chat")));
}

/// Another owner's conversation of the same name is another one.
pub async fn a_foreign_conversation_is_a_missing_one(store: impl Store) {
    let bench = Bench::new(store);
    bench.moved("chat", "a").await;
    for name in ["mallory", "a/b", "{chat}"] {
        let foreign = StreamKey::new(owner(name), stream("chat"));
        assert_eq!(bench.pointer(foreign.clone()).await.expect("the store answers"), None, "{name}");
        let kept = bench.unpoint(foreign.clone(), stream("a"), None).await.expect("the store answers");
        assert_eq!(kept, None, "{name}");
        bench.give_way(foreign, vec![stream("a")]).await.expect("the store answers");
    }
    assert_eq!(bench.pointer_of("chat").await, "a");
}

/// What a route says of its stream is told: its voice, its turn, its headers; a repeat may say more, and a new run says it
/// anew, but for the turn.
pub async fn what_a_route_says_is_told(store: impl Store) {
    let bench = Bench::new(store);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let kept = KeptHeaders::Kept(vec![pair("location", "/a:b=c"), pair("location", ""), pair("x-é", "ü")]);
    let open = Open { voice: Voice::OpenAi, headers: KeptHeaders::Awaited, ..bench.request("said") };
    let epoch = epoch_of(&bench.ask(open.clone()).await);
    let key = bench.key("said");
    let told = async || {
        let info = bench.look(&key).await;
        let page = bench.all(&key, From::Start).await;
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
    assert!(!bench.look(&key).await.started);
    bench.ask(Open { started: true, ..again }).await;
    assert!(bench.look(&key).await.started);
}
