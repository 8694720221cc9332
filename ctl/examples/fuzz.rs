//! Fuzzing without tools: `cargo run --release -p skiff-ctl --example fuzz -- SECONDS [TARGET...]` runs each target (or
//! those named) for so many seconds of processor time with ever new inputs, and prints the inputs that it does not
//! stand: those that panic, and those that take more than a second.

use std::panic::catch_unwind;
use std::time::Duration;

use base::Random;
use base::fuzz::{Target, mutate};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const SLOW: Duration = Duration::from_secs(1);
/// So many findings of one target are shown.
const SHOWN: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let names: Vec<String> = arguments.collect();
    let chosen = ctl::fuzz::targets()
        .filter(|target| names.is_empty() || names.iter().any(|name| name == target.name));
    let found: usize = chosen.map(|target| run(target, Duration::from_secs(seconds))).sum();
    std::process::exit(i32::from(found > 0));
}

/// What this thread has used of a processor: whoever else runs on the machine makes no input slow.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    let microseconds = usage.map(|usage| (usage.user_time() + usage.system_time()).num_microseconds());
    Duration::from_micros(microseconds.ok().and_then(|some| some.try_into().ok()).unwrap_or_default())
}

/// Runs one target; how many inputs it did not stand.
fn run(target: &Target, length: Duration) -> usize {
    let (seeds, random, started) = ((target.seeds)(), Random::system(), used());
    let (mut inputs, mut slowest, mut found) = (0u64, Duration::ZERO, 0);
    while used() - started < length && found < SHOWN {
        let data = mutate(&seeds, &random);
        let begun = used();
        let panicked = catch_unwind(|| (target.run)(&data)).is_err();
        let took = used() - begun;
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
