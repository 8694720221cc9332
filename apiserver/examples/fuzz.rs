//! Fuzzing without tools: `cargo run --release -p skiff-apiserver --example fuzz -- SECONDS [TARGET...]` runs each target
//! (or those named) for so long with ever new inputs, and prints the inputs that it does not stand: those that panic, and
//! those that take more than a second.

#[allow(unreachable_pub)]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[allow(unreachable_pub, missing_debug_implementations)]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use base::Random;
use targets::{TARGETS, Target};

const SLOW: Duration = Duration::from_secs(1);
/// So many findings of one target are shown.
const SHOWN: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let names: Vec<String> = arguments.collect();
    let chosen =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name));
    let found: usize = chosen.map(|target| run(target, Duration::from_secs(seconds))).sum();
    std::process::exit(i32::from(found > 0));
}

/// Runs one target; how many inputs it did not stand.
fn run(target: &Target, length: Duration) -> usize {
    let (seeds, random, started) = ((target.seeds)(), Random::system(), Instant::now());
    let (mut inputs, mut slowest, mut found) = (0u64, Duration::ZERO, 0);
    while started.elapsed() < length && found < SHOWN {
        let data = mutate::mutate(&seeds, &random);
        let begun = Instant::now();
        let panicked = catch_unwind(|| (target.run)(&data)).is_err();
        let took = begun.elapsed();
        inputs += 1;
        slowest = slowest.max(took);
        if panicked || took > SLOW {
            found += 1;
            let what = if panicked { "panics" } else { "is slow" };
            println!("{} {what} ({took:?}): {}", target.name, data.escape_ascii());
        }
    }
    println!("{}: {inputs} inputs, {found} findings, the slowest took {slowest:?}", target.name);
    found
}
