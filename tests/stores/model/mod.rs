//! Random interleavings of the requests of three nodes to a store, compared with a model of the right answers.

mod nodes;
mod pointers;
mod reference;

use std::time::Duration;

use self::{nodes::World, reference::Model};
use crate::support::random::Random;

const START_MS: u64 = 1_700_000_000_000;
const SEEDS: u64 = 400;
const STEPS: usize = 250;

/// Every answer is the model's, and so is everything that can be read after each step.
#[tokio::test(start_paused = true)]
async fn g4_the_store_answers_as_the_model_does() {
    let mut asked = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let mut world = World::new(START_MS, seed);
        for step in 0..STEPS {
            let pause = world.random.pick(&[0, 0, 0, 0, 1, 5, 40, 120, 400]);
            tokio::time::advance(Duration::from_millis(pause)).await;
            world.model.now += pause;
            let (name, differs) = world.step().await;
            *asked.entry(name).or_insert(0u32) += 1;
            if let Some(differs) = differs {
                panic!("seed {seed}, step {step}: {differs}");
            }
            world.compare().await.unwrap_or_else(|differs| panic!("seed {seed}, step {step}, after {name}: {differs}"));
        }
    }
    assert!(asked.len() > 20 && asked.values().all(|count| *count > 20), "some outcomes never came: {asked:?}");
}

/// Nothing is left once everything has expired and a sweep has run.
#[tokio::test(start_paused = true)]
async fn g6_nothing_is_left_of_any_interleaving() {
    for seed in 0..SEEDS {
        let mut world = World::new(START_MS, seed);
        for _ in 0..STEPS {
            let pause = world.random.pick(&[0, 0, 1, 5, 40]);
            tokio::time::advance(Duration::from_millis(pause)).await;
            world.model.now += pause;
            world.step().await;
        }
        world.end_all().await;
        assert!(world.store.is_empty(), "seed {seed}: {:?}", world.store);
    }
}

#[test]
fn the_same_seed_takes_the_same_path() {
    let path = |seed| {
        let mut random = Random(seed);
        (0..20).map(|_| random.below(1000)).collect::<Vec<_>>()
    };
    assert!(path(1) == path(1) && path(1) != path(2));
    assert_eq!(Model::at(5).now, 5);
}
