//! Every parser with some hundred inputs near to what it takes, the same ones each time. For more: the example `fuzz`.

#[allow(unreachable_pub)]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[allow(unreachable_pub, missing_debug_implementations)]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::panic::catch_unwind;

use base::Random;
use targets::TARGETS;

const INPUTS: u64 = 300;

#[test]
fn no_parser_is_harmed_by_what_it_is_given() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        seeds.iter().for_each(|seed| (target.run)(seed));
        for number in 0..INPUTS {
            let data = mutate::mutate(&seeds, &Random::seeded(number));
            let result = catch_unwind(|| (target.run)(&data));
            assert!(result.is_ok(), "{} with input {number}: {}", target.name, data.escape_ascii());
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        let program = std::fs::read_to_string(format!("{folder}/fuzz_targets/{name}.rs")).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
    let programs = std::fs::read_dir(format!("{folder}/fuzz_targets")).unwrap().count();
    assert_eq!(programs, TARGETS.len());
}
