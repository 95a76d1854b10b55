//! Random numbers from the operating system, never from a clock.

/// Returns 128 random bits.
///
/// If the system has no randomness, they come from `std`'s per-process random keys and a counter. Ids are then still
/// unique, and cannot be guessed from outside.
pub(crate) fn u128() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_ne_bytes(bytes),
        Err(_) => u128::from(hashed()) << 64 | u128::from(hashed()),
    }
}

fn hashed() -> u64 {
    use std::{
        hash::{BuildHasher as _, RandomState},
        sync::atomic::{AtomicU64, Ordering},
    };
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A source of random numbers that a test can seed.
#[derive(Debug)]
pub(crate) struct Seeded(Option<std::sync::atomic::AtomicU64>);

impl Seeded {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.map(Into::into))
    }

    pub(crate) fn u64(&self) -> u64 {
        match &self.0 {
            None => u128() as u64,
            Some(state) => {
                // SplitMix64.
                let step = 0x9e37_79b9_7f4a_7c15;
                let mut z = state.fetch_add(step, std::sync::atomic::Ordering::Relaxed).wrapping_add(step);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }

    pub(crate) fn u128(&self) -> u128 {
        match &self.0 {
            None => u128(),
            Some(_) => u128::from(self.u64()) << 64 | u128::from(self.u64()),
        }
    }
}
