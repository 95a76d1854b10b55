//! G4: of all requests that race for one stream, one produces. Real threads, real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use resilient_sse::{StreamId, test_util::TestHub};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    client::Client,
    stage::Stage,
    support::handlers::{App, Call, Handler, Script, app},
};

/// Longer than the delay of any contender, and short enough to wait for.
const WINDOW: Duration = Duration::from_secs(5);

fn stage(nodes: usize) -> Stage {
    Stage::nodes(nodes, |hub| hub.recovery_window(WINDOW).sweep_every(Duration::from_millis(100)))
}

/// A handler that counts its calls by stream.
fn counting(script: Script) -> (Handler, Arc<Vec<AtomicU64>>) {
    let calls: Arc<Vec<_>> = Arc::new((0..10_000).map(|_| AtomicU64::new(0)).collect());
    let counted = Arc::clone(&calls);
    let handler = Handler::new(move |call: &Call| {
        let id = call.context.as_ref().unwrap().id();
        let race: usize = id.as_str().trim_start_matches('r').parse().unwrap();
        counted[race].fetch_add(1, Ordering::SeqCst);
        call.stream(&script)
    });
    (handler, calls)
}

fn apps(stage: &Stage, handler: &Handler) -> Vec<App> {
    let layer = |hub: &TestHub| hub.sse.generation().id(StreamId::path("/chat/{id}"));
    stage.hubs.iter().map(|hub| app(layer(hub), handler)).collect()
}

/// All contenders start at the same time and read to the end. Returns what they saw.
async fn race(mut contenders: Vec<Client>) -> Vec<Client> {
    let barrier = Arc::new(Barrier::new(contenders.len()));
    let mut racing = JoinSet::new();
    for mut client in contenders.drain(..) {
        let barrier = Arc::clone(&barrier);
        racing.spawn(async move {
            barrier.wait().await;
            client.finish().await;
            client
        });
    }
    racing.join_all().await
}

fn judge(clients: &[Client]) {
    let sent = clients[0].events_sent();
    assert!(clients[0].witness.ended.is_some());
    for client in clients {
        assert_eq!(client.events_sent(), sent, "byte for byte the same");
        assert_eq!((client.witness.gaps, client.witness.restarts), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g4_ten_thousand_races_have_one_producer_each() {
    const RACES: usize = 10_000;
    const AT_A_TIME: usize = 50;
    let stage = stage(2);
    let (handler, calls) = counting(Script::events(3).every(Duration::ZERO));
    let apps = apps(&stage, &handler);
    for first in (0..RACES).step_by(AT_A_TIME) {
        let mut races = JoinSet::new();
        for n in first..first + AT_A_TIME {
            let contenders = (0..4).map(|c| stage.client(&apps[c % 2], &format!("/chat/r{n}"))).collect();
            races.spawn(race(contenders));
        }
        for clients in races.join_all().await {
            judge(&clients);
        }
    }
    assert_eq!(handler.calls(), RACES as u64);
    assert!(calls.iter().all(|calls| calls.load(Ordering::SeqCst) == 1));
    stage.real_verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g4_a_thousand_contenders_for_one_stream() {
    let stage = stage(4);
    let (script, gate) = Script::events(20).gated();
    let (handler, _) = counting(script);
    let apps = apps(&stage, &handler);
    let contenders: Vec<_> = (0..1000).map(|n| stage.client(&apps[n % 4], "/chat/r0")).collect();
    let racing = tokio::spawn(race(contenders));
    for n in 1..=21 {
        tokio::task::yield_now().await;
        gate.send_replace(n);
    }
    let clients = racing.await.unwrap();
    judge(&clients);
    assert_eq!(handler.calls(), 1);
    stage.real_verdict().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g4_races_with_contenders_who_give_up() {
    let stage = stage(2);
    let (handler, _) = counting(Script::events(3).every(Duration::ZERO));
    let apps = apps(&stage, &handler);
    for n in 0..500 {
        let uri = format!("/chat/r{n}");
        let mut racing = JoinSet::new();
        for c in 0..4u64 {
            let mut client = stage.client(&apps[c as usize % 2], &uri);
            racing.spawn(async move {
                client.cut(c % 3).await;
                client
            });
        }
        // The stream is driven on whichever client left. Each client reconnects and gets all of it.
        let mut clients = racing.join_all().await;
        for client in &mut clients {
            client.finish().await;
            client.has_all(3).await;
        }
    }
    assert_eq!(handler.calls(), 500);
    stage.real_verdict().await;
}
