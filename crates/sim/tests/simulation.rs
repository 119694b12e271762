//! A bounded number of runs; `make sim N=20000` makes more of them, and faster.

use std::ops::ControlFlow;

use sim::{Fault, Scenario, World};

/// A debug build does some tens of them per second and core.
const RUNS: u64 = 400;

#[test]
fn nodes_end_equal_and_nothing_acknowledged_is_lost() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let totals = sim::run_all(0..RUNS, jobs, Scenario::from_seed, |_, _| ControlFlow::Continue(()));
    println!("{} runs\n{}", totals.runs, totals.outcome);
    for failure in &totals.failures {
        println!("seed {}: {}", failure.seed, failure.message);
    }
    assert!(
        totals.failures.is_empty(),
        "failing seeds; replay each with: make sim SEED={}",
        totals.failures[0].seed
    );
    let outcome = totals.outcome;
    let happened = [
        outcome.lost,
        outcome.repeated,
        outcome.crashes,
        outcome.leaves,
        outcome.handovers,
        outcome.cuts,
        outcome.one_way_cuts,
        outcome.pauses,
        outcome.clock_jumps,
        outcome.slow_consumers,
        outcome.reconciliations,
        outcome.splits,
    ];
    assert!(happened.iter().all(|&times| times > 0), "faults happened: {outcome}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let run = || World::new(Scenario::from_seed(seed), false).run();
        let (first, second) = (run(), run());
        assert_ne!(first.trace, 0);
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn a_dozen_nodes_on_the_worst_network() {
    for seed in 0..5 {
        let scenario = Scenario {
            nodes: 12,
            loss: 0.6,
            repeat: 0.3,
            max_delay_ms: 800,
            max_payload: 1 << 10,
            faults: vec![Fault::Crash, Fault::Cut, Fault::OneWay, Fault::ServerDown, Fault::Pause],
            ..Scenario::from_seed(seed)
        };
        if let Err(failure) = sim::play(scenario, false) {
            panic!("seed {seed}: {}", failure.message);
        }
    }
}
