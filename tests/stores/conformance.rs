//! Every store that ships fulfils the contract.

use resilient_sse::{MemoryStore, store_conformance, test_util::FaultStore};

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
