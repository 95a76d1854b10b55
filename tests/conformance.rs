//! Every store that ships keeps to the contract.
#![cfg(feature = "test-util")]

use resilient_sse::{MemoryStore, store_conformance, test_util::FaultStore};

#[cfg(feature = "redis")]
#[path = "redis_conformance/mod.rs"]
mod redis;
#[cfg(feature = "redis")]
mod redis_servers;

store_conformance!(
    #[tokio::test(start_paused = true)]
    mod memory = || async { MemoryStore::new() }
);

store_conformance!(
    #[tokio::test(flavor = "multi_thread")]
    mod memory_in_real_time = || async { MemoryStore::new() }
);

store_conformance!(
    #[tokio::test(start_paused = true)]
    mod wrapped = || async { FaultStore::new(MemoryStore::new()) }
);

store_conformance!(
    #[tokio::test(start_paused = true)]
    mod wrapped_and_batched = || async { FaultStore::new(MemoryStore::new()).batched() }
);

#[tokio::test(start_paused = true)]
async fn one_entry_runs_them_all() {
    resilient_sse::store::conformance::run(|| async { MemoryStore::new() }).await;
}
