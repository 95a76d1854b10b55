//! G8: a body that is driven on does not overtake the readers of its own node by more than the log holds.

use std::time::Duration;

use resilient_sse::{Builder, Disconnect, ResilientSseBody, StreamId, test_util::TestHub};

use crate::support::bodies::{App, Client, Script, Step, Watch, app, chunk, request, resuming, send, then};

const SECOND: Duration = Duration::from_secs(1);

type Reader = Client<ResilientSseBody<Script>>;

fn path() -> impl resilient_sse::Identify {
    StreamId::path("/s/{id}")
}

/// Makes events of 4 KiB, each in a chunk of its own.
fn blocks(count: usize) -> Vec<Step> {
    (0..count).map(|n| chunk(format!("data: {n:04096}\n\n"))).collect()
}

fn hub(max_events: usize, max_bytes: usize) -> TestHub {
    TestHub::with(|builder| builder.anonymous().max_log_events(max_events).max_log_bytes(max_bytes)).unwrap()
}

async fn open(app: &App) -> Reader {
    Client::new(send(app, request("/s/a")).await.into_body())
}

fn gaps(client: &Reader) -> usize {
    client.names().iter().filter(|name| **name == "gap").count()
}

/// Returns the event numbers that the client received, without the library's notices.
fn numbers_of(client: &Reader) -> Vec<usize> {
    let messages = client.seen.iter().filter(|event| event.name == "message");
    messages.map(|event| event.data.parse().unwrap()).collect()
}

/// Reads for this long.
async fn read_for(client: &mut Reader, hub: &mut TestHub, time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        client.drain();
        let step = left.min(Duration::from_millis(250));
        hub.advance(step).await;
        left -= step;
    }
    client.drain();
}

/// A phone in a pocket, at a full log, reads one event, is away for a while, and reads on.
#[tokio::test(start_paused = true)]
async fn g8_a_client_that_pauses_loses_nothing_where_nobody_else_reads() {
    let count = 2_000;
    for (max_events, max_bytes) in [(usize::MAX, 1 << 20), (300, usize::MAX)] {
        for pause in [12, 100, 500] {
            let mut hub = hub(max_events, max_bytes);
            let watch = Watch::default();
            let app = app(
                hub.sse.generation().id(path()),
                &watch,
                then(blocks(count), chunk("data: 0\nevent: completed\n\n")),
            );
            let mut client = open(&app).await;
            while numbers_of(&client).is_empty() {
                assert!(client.poll());
            }
            hub.advance(SECOND * pause).await;
            let made = watch.polls();
            assert!(made > 200 && made < 320, "driven on, up to what the log holds: {made}");
            client.finish(&mut hub).await;
            assert_eq!(gaps(&client), 0, "after {pause} s");
            assert_eq!(numbers_of(&client), (0..count).collect::<Vec<_>>());
            assert_eq!(client.names().last(), Some(&"completed"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g8_alone_a_client_is_waited_for_as_long_as_its_route_allows() {
    for (policy, waits) in [
        (Disconnect::Detach { at_most: SECOND * 60 }, false),
        (Disconnect::Interrupt, true),
        (Disconnect::Cancel, true),
    ] {
        let mut hub = hub(100, usize::MAX);
        let watch = Watch::default();
        let app = app(hub.sse.layer().id(path()).on_disconnect(policy), &watch, then(blocks(1_000), Step::Hang));
        let mut client = open(&app).await;
        assert!(client.poll() && client.poll());
        // On routes whose work ends with its readers, another reader that comes and goes has the body driven on.
        let mut other = open(&app).await;
        read_for(&mut other, &mut hub, SECOND * 11).await;
        drop(other);
        hub.advance(SECOND * 60).await;
        let made = watch.polls();
        hub.advance(SECOND * 600).await;
        assert_eq!(watch.polls() == made, waits || made > 1_000, "{policy:?}");
        read_for(&mut client, &mut hub, SECOND * 30).await;
        assert_eq!(gaps(&client), usize::from(!waits), "{policy:?}");
        assert_eq!(numbers_of(&client).last(), Some(&999));
        assert_eq!(watch.made(), 1);
    }
}

/// A reader that is alone is never given up, however slowly it reads.
#[tokio::test(start_paused = true)]
async fn g8_alone_a_slow_reader_that_moves_is_waited_for_again_and_again() {
    let mut hub = hub(100, usize::MAX);
    let watch = Watch::default();
    let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 60 });
    // It reads the rest of the log at its own pace, too.
    let layer = layer.recovery_window(SECOND * 3600);
    let app = app(layer, &watch, then(blocks(1_000), chunk("data: 0\nevent: completed\n\n")));
    let mut client = open(&app).await;
    for _ in 0..1_000 {
        client.poll();
        if client.ended {
            break;
        }
        hub.advance(SECOND * 50).await;
    }
    assert_eq!(gaps(&client), 0);
    assert_eq!(numbers_of(&client), (0..1_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn g8_a_reader_that_has_caught_up_is_held_up_for_at_most_the_stall_limit() {
    // The slow client's own request began the work, which is driven on once the client has stalled; or another client's
    // did.
    for its_own in [true, false] {
        let mut hub = hub(100, usize::MAX);
        let watch = Watch::default();
        let layer = hub.sse.layer().id(path()).on_disconnect(Disconnect::Detach { at_most: SECOND * 600 });
        let app = app(layer, &watch, then(blocks(1_000), Step::Hang));
        let first = if its_own { None } else { Some(open(&app).await) };
        let mut slow = open(&app).await;
        assert!(slow.poll());
        if its_own {
            assert!(slow.poll());
        }
        let mut fast = open(&app).await;
        drop(first);
        if its_own {
            read_for(&mut fast, &mut hub, SECOND * 11).await;
        }
        read_for(&mut fast, &mut hub, SECOND * 8).await;
        let given = numbers_of(&fast).len();
        assert!((50..=120).contains(&given), "the slow one is waited for: {given}");
        read_for(&mut fast, &mut hub, SECOND * 6).await;
        assert_eq!(numbers_of(&fast), (0..1_000).collect::<Vec<_>>(), "and not for longer than that");
        assert_eq!(gaps(&fast), 0);
        read_for(&mut slow, &mut hub, SECOND).await;
        assert_eq!(gaps(&slow), 1, "the slow one is told");
        assert_eq!(numbers_of(&slow).last(), Some(&999));
    }
}

/// Delays that were caused by readers that have left do not count against new readers.
#[tokio::test(start_paused = true)]
async fn g8_each_reader_is_waited_for_by_itself() {
    let mut hub = hub(100, usize::MAX);
    let watch = Watch::default();
    let steps = blocks(150).into_iter().chain([Step::Sleep(SECOND * 62)]).chain(blocks(1_000)).chain([Step::Hang]);
    let app = app(hub.sse.generation().id(path()), &watch, steps.collect());
    let first = open(&app).await;
    let mut slow = open(&app).await;
    assert!(slow.poll());
    let mut fast = open(&app).await;
    drop(first);
    read_for(&mut fast, &mut hub, SECOND).await;
    assert!(numbers_of(&fast).len() < 100, "the slow one is waited for");
    drop((slow, fast));
    hub.advance(SECOND * 59).await;
    slow = open(&app).await;
    assert!(slow.poll());
    fast = open(&app).await;
    read_for(&mut fast, &mut hub, SECOND * 7).await;
    assert_eq!(numbers_of(&fast).last(), Some(&149), "and so is the next one");
    read_for(&mut fast, &mut hub, SECOND * 10).await;
    assert!(numbers_of(&fast).len() > 500, "for ten seconds");
}

/// A reader that reads slowly delays the others no longer than one that does not read at all.
#[tokio::test(start_paused = true)]
async fn g8_a_reader_that_crawls_does_not_set_the_pace_of_others() {
    let mut hub = hub(100, usize::MAX);
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(blocks(2_000), Step::Hang));
    let first = open(&app).await;
    let mut slow = open(&app).await;
    let mut fast = open(&app).await;
    drop(first);
    for _ in 0..300 {
        fast.drain();
        slow.poll();
        hub.advance(SECOND / 10).await;
    }
    fast.drain();
    assert_eq!(numbers_of(&fast).len(), 2_000, "after 30 s");
    assert_eq!(gaps(&fast), 0);
}

#[tokio::test(start_paused = true)]
async fn g8_readers_on_other_nodes_are_not_waited_for() {
    let mut here = hub(100, usize::MAX);
    let there = TestHub::on(here.store.clone(), |builder| Builder::anonymous(builder).max_log_events(100)).unwrap();
    let watch = Watch::default();
    let steps = then(blocks(1_000), Step::Hang);
    let app_here = app(here.sse.generation().id(path()), &watch, steps.clone());
    let app_there = app(there.sse.generation().id(path()), &watch, steps);
    let client = open(&app_here).await;
    let mut elsewhere = open(&app_there).await;
    assert!(elsewhere.poll());
    drop(client);
    here.advance(SECOND).await;
    assert!(watch.polls() > 1_000, "{}", watch.polls());
    assert_eq!(watch.made(), 1);
    drop(elsewhere);
}

/// The others wait for a stalled client of the producing node, but no longer than the limit.
#[tokio::test(start_paused = true)]
async fn g8_readers_on_other_nodes_are_held_up_for_at_most_the_stall_limit() {
    let mut here = hub(100, usize::MAX);
    let there = TestHub::on(here.store.clone(), |builder| Builder::anonymous(builder).max_log_events(100)).unwrap();
    let watch = Watch::default();
    let steps = then(blocks(1_000), Step::Hang);
    let app_here = app(here.sse.generation().id(path()), &watch, steps.clone());
    let app_there = app(there.sse.generation().id(path()), &watch, steps);
    let mut stalled = open(&app_here).await;
    assert!(stalled.poll() && stalled.poll());
    let mut elsewhere = open(&app_there).await;
    read_for(&mut elsewhere, &mut here, SECOND * 23).await;
    assert_eq!(numbers_of(&elsewhere).last(), Some(&999), "{:?}", numbers_of(&elsewhere).len());
    read_for(&mut stalled, &mut here, SECOND).await;
    assert_eq!(gaps(&stalled), 1);
}

/// A client that was cut and comes back far behind is not overtaken while it reads.
#[tokio::test(start_paused = true)]
async fn g8_a_client_that_comes_back_is_waited_for_at_the_log_s_bound() {
    let mut hub = hub(1_000, usize::MAX);
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, then(blocks(5_000), chunk("data: 0\nevent: completed\n\n")));
    let mut client = open(&app).await;
    while numbers_of(&client).len() < 10 {
        assert!(client.poll());
    }
    let seen = numbers_of(&client).len();
    let cursor = client.last_id();
    drop(client);
    let mut again = Client::new(send(&app, resuming("/s/a", &cursor)).await.into_body());
    for _ in 0..10_000 {
        again.poll();
        hub.step().await;
        if again.ended {
            break;
        }
    }
    assert_eq!(gaps(&again), 0);
    assert_eq!(numbers_of(&again), (seen..5_000).collect::<Vec<_>>());
}

/// The bound is the log's, however small.
#[tokio::test(start_paused = true)]
async fn g8_a_log_of_a_few_events_is_a_bound_too() {
    for max_events in [1, 2, 5, 10, 63, 64, 65, 200] {
        let mut hub = hub(max_events, usize::MAX);
        let watch = Watch::default();
        let all = (0..500).map(|n| format!("data: {n}\n\n")).collect::<String>();
        let layer = hub.sse.generation().id(path());
        let app = app(layer, &watch, vec![chunk(all), chunk("data: 0\nevent: completed\n\n")]);
        let mut client = open(&app).await;
        assert!(client.poll() && client.poll());
        hub.advance(SECOND * 30).await;
        for _ in 0..2_000 {
            client.poll();
            hub.step().await;
            if client.ended {
                break;
            }
        }
        assert_eq!(gaps(&client), 0, "max_events {max_events}");
        assert_eq!(numbers_of(&client), (0..500).collect::<Vec<_>>(), "max_events {max_events}");
    }
}

/// A reader that wants only new events, and one that has nothing to read, delay nobody.
#[tokio::test(start_paused = true)]
async fn g8_a_reader_of_what_comes_next_is_not_behind() {
    let mut hub = hub(100, usize::MAX);
    let watch = Watch::default();
    let app = app(hub.sse.generation().id(path()), &watch, {
        let mut steps = blocks(500);
        steps.push(Step::Sleep(SECOND * 5));
        steps.extend(blocks(500));
        then(steps, Step::Hang)
    });
    let mut client = open(&app).await;
    read_for(&mut client, &mut hub, SECOND).await;
    let mut live = Client::new(send(&app, request("/s/a?last_event_id=$")).await.into_body());
    live.drain();
    drop(client);
    read_for(&mut live, &mut hub, SECOND * 6).await;
    assert_eq!((gaps(&live), numbers_of(&live)), (0, (0..500).collect()));
}
