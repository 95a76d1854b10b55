//! Faults beside the readers, until the handle is dropped.

use std::time::Duration;

use resilient_sse::{Owner, ResilientSse, StreamId, test_util::Fault};
use tokio::{task::JoinHandle, time::sleep};

use crate::stress::node::World;

/// A task that ends when its handle is dropped.
pub struct Trouble(JoinHandle<()>);

impl Drop for Trouble {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The store is slow, refuses, loses replies, and heals.
pub fn faults(world: &World) -> Trouble {
    const OPERATIONS: [&str; 8] = ["append", "close", "interrupt", "read", "open", "reopen", "withdraw", "announce"];
    let (store, random) = (world.store.clone(), world.random.clone());
    Trouble(tokio::spawn(async move {
        loop {
            sleep(random.millis(150)).await;
            let operation = random.pick(&OPERATIONS);
            match random.below(5) {
                0 => store.fail_on(operation, Fault::Delay(random.millis(100))),
                1 => store.fail_on(operation, Fault::Refuse),
                2 => store.fail_on(operation, Fault::LoseReply),
                3 => store.fail(Fault::Delay(random.millis(30))),
                _ => store.heal(),
            }
            sleep(random.millis(150)).await;
            store.heal();
        }
    }))
}

/// The store forgets everything, and does not always report that it was away.
///
/// This happens only once: ends that a store loses twice within a beat may be repeated in the wrong order
/// (ARCHITECTURE.md).
pub fn forgets(world: &World) -> Trouble {
    let (store, random) = (world.store.clone(), world.random.clone());
    Trouble(tokio::spawn(async move {
        sleep(Duration::from_millis(30) + random.millis(200)).await;
        store.forget();
        if random.one_in(2) {
            store.reconnected();
        }
    }))
}

/// Stops some of these streams.
pub fn stops(world: &World, sse: &ResilientSse, ids: Vec<String>) -> Trouble {
    let (sse, random) = (sse.clone(), world.random.clone());
    Trouble(tokio::spawn(async move {
        for _ in 0..6 {
            sleep(random.millis(60)).await;
            let id = StreamId::new(random.pick(&ids)).unwrap();
            // The store may be away, so the stop may fail.
            let _ = sse.streams().stop(&Owner::ANONYMOUS, &id).await;
        }
    }))
}
