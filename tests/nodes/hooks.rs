//! The `on_end` hook, and the death of the node that runs it. Nodes here are runtimes of this process, which can go
//! down at any point of the hook.

use std::{
    future::pending,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use resilient_sse::{
    Builder, EndedStream, Event, Owner, RedisStore, ResilientSse, StreamId, StreamKey, StreamSpec, StreamState,
};
use tokio::runtime::{self, Runtime};

use crate::support::{example::eventually, redis::RedisServer};

const STALE: Duration = Duration::from_millis(600);
const SWEEP: Duration = Duration::from_millis(100);
/// The recovery window: long compared with the hook's lease, which is the stale threshold.
const WINDOW: Duration = Duration::from_secs(8);

/// A node on a runtime of its own. Killing it drops both at once, like the death of a process.
struct Node {
    sse: ResilientSse,
    runtime: Option<Runtime>,
}

impl Node {
    async fn start(url: &str, setup: impl FnOnce(Builder) -> Builder + Send + 'static) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = url.to_owned();
        let built = runtime.spawn(async move {
            let builder = ResilientSse::builder(RedisStore::connect(&url).await.unwrap()).anonymous();
            let builder = builder.stale_after(STALE).sweep_every(SWEEP).probe_limit(STALE / 2).recovery_window(WINDOW);
            let (sse, guardian) = setup(builder).build().unwrap();
            tokio::spawn(guardian);
            sse
        });
        Self { sse: built.await.unwrap(), runtime: Some(runtime) }
    }

    async fn trusting(self) -> Self {
        eventually(async || {
            let health = self.sse.health();
            (!health.frozen && health.last_sweep.is_some()).then_some(())
        })
        .await;
        self
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.as_ref().unwrap().spawn(work).await.unwrap()
    }

    /// Publishes a stream from this node, up to its end.
    async fn complete(&self, id: &str) {
        let (publisher, id) = (self.sse.publisher(), StreamId::new(id).unwrap());
        self.run(async move {
            let mut publication = publisher.open(StreamSpec::new(Owner::ANONYMOUS, id)).await.unwrap();
            publication.send(Event::new("word")).await.unwrap();
            publication.complete(Event::new("all of it").named("completed")).await.unwrap();
        })
        .await;
    }

    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Waits until the guardian has swept for this long, by the store's clock.
    async fn sweeps_for(&self, time: Duration) {
        let from = self.sse.health().last_sweep.unwrap_or(0);
        eventually(async || (self.sse.health().last_sweep? > from + time.as_millis() as u64).then_some(())).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The streams that hooks ran for, in order, and the nodes that ran them.
#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<String>>>);

impl Ran {
    /// Makes a hook that notes its stream and gives this answer.
    fn hook(&self, node: &'static str, answer: Answer) -> impl FnOnce(Builder) -> Builder + Send + 'static {
        let ran = self.0.clone();
        move |builder| {
            builder.on_end(move |ended: EndedStream| {
                let ran = ran.clone();
                async move {
                    let events = ended.events().await.unwrap().join(",");
                    let data = ended.terminal_data().unwrap_or_default();
                    let note =
                        format!("{node}: {} {} {events} {data}", ended.key().id, ended.ended().ending.state.as_str());
                    ran.lock().unwrap().push(note);
                    answer.give().await
                }
            })
        }
    }

    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) -> Vec<String> {
        eventually(async || Some(self.notes()).filter(|notes| notes.len() >= count)).await
    }
}

/// How a hook answers.
#[derive(Clone, Copy)]
enum Answer {
    Yes,
    No,
    Never,
}

impl Answer {
    async fn give(self) -> io::Result<()> {
        match self {
            Self::Yes => Ok(()),
            Self::No => Err(io::Error::other("the database is away")),
            Self::Never => pending().await,
        }
    }
}

/// G3: the node dies while the hook runs. Another node runs it once, after the hook's lease, and no node runs it again.
#[tokio::test(flavor = "multi_thread")]
async fn g3_on_end_runs_elsewhere_when_its_node_dies_in_it() {
    let redis = RedisServer::start();
    let (dying, living) = (Ran::default(), Ran::default());
    let a = Node::start(&redis.url(), dying.hook("a", Answer::Never)).await;
    let b = Node::start(&redis.url(), living.hook("b", Answer::Yes)).await.trusting().await;
    let c = Node::start(&redis.url(), living.hook("c", Answer::Yes)).await.trusting().await;
    a.complete("chat").await;
    assert_eq!(dying.until(1).await, ["a: chat completed word all of it"]);
    a.kill();
    let notes = living.until(1).await;
    assert!(notes[0].ends_with(": chat completed word all of it"), "{notes:?}");
    // An acknowledged hook does not run again.
    b.sweeps_for(STALE * 4).await;
    c.sweeps_for(STALE * 4).await;
    assert_eq!((living.notes().len(), dying.notes().len()), (1, 1));
}

/// G3: the node dies between the close and its hook.
#[tokio::test(flavor = "multi_thread")]
async fn g3_on_end_runs_elsewhere_when_its_node_dies_before_it() {
    let redis = RedisServer::start();
    let (dying, living) = (Ran::default(), Ran::default());
    // Tasks of this executor never run. The hook is the only one that it would spawn here.
    let hook = dying.hook("a", Answer::Yes);
    let a = Node::start(&redis.url(), |builder| hook(builder).executor(drop)).await;
    let b = Node::start(&redis.url(), living.hook("b", Answer::Yes)).await.trusting().await;
    let c = Node::start(&redis.url(), living.hook("c", Answer::Yes)).await.trusting().await;
    a.complete("chat").await;
    a.kill();
    living.until(1).await;
    b.sweeps_for(STALE * 4).await;
    c.sweeps_for(STALE * 4).await;
    assert_eq!((living.notes().len(), dying.notes().len()), (1, 0));
}

/// G3, G5: the node dies while it produces. The node that closes the orphan runs the hook.
#[tokio::test(flavor = "multi_thread")]
async fn g3_on_end_runs_once_for_an_orphan() {
    let redis = RedisServer::start();
    let ran = Ran::default();
    let a = Node::start(&redis.url(), ran.hook("a", Answer::Yes)).await;
    let b = Node::start(&redis.url(), ran.hook("b", Answer::Yes)).await.trusting().await;
    let c = Node::start(&redis.url(), ran.hook("c", Answer::Yes)).await.trusting().await;
    let publisher = a.sse.publisher();
    // Forget the publication, since nothing drops it when a process dies.
    let publication = a
        .run(async move {
            let spec = StreamSpec::new(Owner::ANONYMOUS, StreamId::new("lost").unwrap());
            let mut publication = publisher.open(spec).await.unwrap();
            publication.send(Event::new("word")).await.unwrap();
            publication
        })
        .await;
    a.kill();
    let notes = ran.until(1).await;
    assert!(notes[0].ends_with(": lost orphaned word ") && !notes[0].starts_with('a'), "{notes:?}");
    b.sweeps_for(STALE * 4).await;
    c.sweeps_for(STALE * 4).await;
    assert_eq!(ran.notes().len(), 1);
    assert_eq!(b.sse.health().orphaned + c.sse.health().orphaned, 1);
    std::mem::forget(publication);
}

/// G3, G6: a hook that is never acknowledged runs repeatedly until the recovery window is over. Then everything is
/// gone.
#[tokio::test(flavor = "multi_thread")]
async fn g3_on_end_is_retried_until_the_window_is_over() {
    let redis = RedisServer::start();
    let ran = Ran::default();
    let window = Duration::from_millis(2500);
    let no = ran.hook("a", Answer::No);
    let a = Node::start(&redis.url(), move |builder| no(builder).recovery_window(window)).await.trusting().await;
    let before = redis.dbsize();
    a.complete("chat").await;
    ran.until(3).await;
    eventually(async || (redis.dbsize() <= before).then_some(())).await;
    let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new("chat").unwrap());
    let registry = a.sse.registry();
    assert!(a.run(async move { registry.stream(&key).await.unwrap() }).await.is_none());
    let notes = ran.notes().len();
    a.sweeps_for(STALE * 3).await;
    assert_eq!(ran.notes().len(), notes, "not after the window");
    assert_eq!(a.sse.health().ended[StreamState::Completed.as_str()], 1);
}
