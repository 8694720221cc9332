//! A few seeds of the simulation; `make sim` runs many.

#[test]
fn the_cluster_survives_a_few_seeds() {
    for seed in 1..=4 {
        let outcome = e2e::sim::run(seed);
        assert!(outcome.violation.is_none(), "{}", outcome.violation.unwrap());
        assert!(outcome.writes > 500, "seed {seed} did next to nothing: {outcome:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    let runs = [e2e::sim::run(5), e2e::sim::run(5)];
    let [first, second] =
        runs.map(|outcome| (outcome.trace, outcome.writes, outcome.faults, outcome.simulated));
    assert_eq!(first, second);
}
