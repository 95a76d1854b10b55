//! One of two nodes drains under load, again and again.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    stress::{
        judge, judged,
        node::{ROUTES, World},
        reader::{Manner, Reader, Rules},
        share_of_time,
        transcript::Transcript,
    },
    support::random::{Shared, seed},
};

const STREAMS: u64 = 12;
const DRAIN: Duration = Duration::from_millis(300);
/// The delay that a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn g5_nodes_go_down_under_load_in_time_and_lose_nothing() {
    let seed = seed();
    eprintln!("STRESS_SEED={seed}");
    let random = Shared::new(seed);
    let until = Instant::now() + share_of_time(2);
    let (mut rounds, mut events, mut slowest) = (0, 0, Duration::ZERO);
    while Instant::now() < until {
        for immediate in [true, false] {
            let what = format!("round {rounds}, immediate: {immediate}");
            let (seen, took) = round(immediate, &random, &what, seed).await;
            events += seen.iter().map(|seen| seen.events).sum::<u64>();
            slowest = slowest.max(took);
            rounds += 1;
        }
    }
    eprintln!("{rounds} drains, the slowest took {slowest:?}, {events} events read");
}

/// Returns what readers saw, and how long the drain took.
async fn round(immediate: bool, random: &Shared, what: &str, seed: u64) -> (Vec<Transcript>, Duration) {
    let world = World::new(immediate, random.clone());
    let node = || world.node(|hub| hub.store_limit(SLACK).open_limit(SLACK).drain_limit(DRAIN));
    let mut nodes = [node(), node()];
    let mut readers = JoinSet::new();
    for stream in 0..STREAMS {
        for _ in 0..=random.below(3) {
            let reader = Reader {
                app: world.balanced(&nodes, stream as usize % ROUTES),
                id: format!("d{stream}"),
                manner: random.pick(&[Manner::Erratic, Manner::Steady]),
                event_source: random.one_in(2),
                rules: Rules { forgets: false, quiet: false, ample: true },
                random: random.clone(),
                left: None,
            };
            readers.spawn(reader.read());
        }
    }
    sleep(random.millis(120)).await;
    let begun = Instant::now();
    let report = timeout(DRAIN + SLACK, nodes[0].goes_down()).await;
    let took = begun.elapsed();
    let mut problems = match report {
        Ok(Ok(report)) if report.unsettled == 0 && report.unrecorded_bytes == 0 => Vec::new(),
        report => vec![format!("the drain: {report:?}")],
    };
    let seen = judged(what, seed, readers.join_all().await);
    problems.extend(is_left(&world, STREAMS as usize).await);
    judge(what, seed, &problems);
    (seen, took)
}

/// Waits until no inner body is left and every hook has run. Returns a description of the rest, if there is one. Every
/// stream has ended, since its readers have read it.
async fn is_left(world: &World, streams: usize) -> Option<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (alive, hooked) = (world.watch.alive(), world.hooked.lock().unwrap().len());
        if (alive, hooked) == (0, streams) {
            return None;
        }
        if Instant::now() > deadline {
            return Some(format!("{alive} inner bodies are left, {hooked} of {streams} hooks ran"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}
