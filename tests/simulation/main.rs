//! Clusters of bare replicas on a seeded network that loses, repeats, delays and reorders messages, cuts nodes off and
//! crashes them, in virtual time and through the real codec.
//!
//! `SIM_RUNS=10000 cargo test --release --test simulation` runs more; `SIM_SEED=n` replays one and prints its story.

#[path = "../support/mod.rs"]
mod support;
mod world;

use world::{Outcome, World};

/// Runs per scenario unless SIM_RUNS says otherwise. A debug build does about a hundred per second.
const DEFAULT_RUNS: u64 = 400;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SIM_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SIM_SEED: expected a whole number");
            seed..seed + 1
        }
        Err(_) => {
            let runs = std::env::var("SIM_RUNS")
                .ok()
                .map(|runs| runs.parse().expect("SIM_RUNS: expected a number"));
            0..runs.unwrap_or(DEFAULT_RUNS)
        }
    }
}

fn play(seed: u64) -> Outcome {
    let story = std::env::var_os("SIM_SEED").is_some();
    let run = std::panic::catch_unwind(|| World::new(seed, story).run());
    run.unwrap_or_else(|panic| {
        eprintln!("\nseed {seed} fails; replay it with SIM_SEED={seed} cargo test --test simulation\n");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn nodes_end_equal_and_nothing_acknowledged_is_lost() {
    let mut total = Outcome::default();
    let runs = seeds().end - seeds().start;
    for seed in seeds() {
        total.add(&play(seed));
    }
    println!("{runs} runs: {total}");
    if runs >= DEFAULT_RUNS {
        assert!(
            total.lost > 0 && total.repeated > 0 && total.crashes > 0 && total.cuts > 0,
            "faults happened: {total}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        assert_eq!(
            World::new(seed, false).run(),
            World::new(seed, false).run(),
            "seed {seed}"
        );
    }
}
