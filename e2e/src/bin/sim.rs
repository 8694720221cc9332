//! Runs the simulation: `sim --seeds N` runs seeds 1 to N, `sim --seed S` one of them.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::sim::{self, Outcome};

const USAGE: &str = "usage: sim [--seeds N] [--seed S] [--from S] [--keep-going] [--verbose]";

struct Options {
    seeds: std::ops::RangeInclusive<u64>,
    verbose: bool,
    keep_going: bool,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    simulated: Duration,
    faults: u64,
    writes: u64,
    failed: Vec<String>,
}

fn options() -> Result<Options, String> {
    let (mut count, mut from, mut single) = (200, 1, None);
    let (mut verbose, mut keep_going) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, String> {
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a number"))?;
            value.parse().map_err(|_| format!("{argument}: {value:?} is no number"))
        };
        match argument.as_str() {
            "--seeds" => count = number()?,
            "--seed" => single = Some(number()?),
            "--from" => from = number()?,
            "--verbose" => verbose = true,
            "--keep-going" => keep_going = true,
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        }
    }
    let seeds = match single {
        Some(seed) => seed..=seed,
        None => from..=(from + count).saturating_sub(1),
    };
    Ok(Options { seeds, verbose, keep_going })
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    // Failures are what it is about: nothing is told of them unless asked, by RUST_LOG.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned());
    let filter = tracing_subscriber::EnvFilter::new(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let started = Instant::now();
    let totals = run(&options);
    println!(
        "{} seeds, {:.1} simulated hours, {} faults, {} writes, {:.1} s, {} failed",
        totals.seeds,
        totals.simulated.as_secs_f64() / 3600.0,
        totals.faults,
        totals.writes,
        started.elapsed().as_secs_f64(),
        totals.failed.len()
    );
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Two seeds at a time, each on a runtime of its own.
fn run(options: &Options) -> Totals {
    let next = AtomicU64::new(*options.seeds.start());
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !options.seeds.contains(&seed) {
                        return;
                    }
                    let outcome = sim::run(seed);
                    if outcome.violation.is_some() && !options.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(seed, &outcome, options.verbose);
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome, verbose: bool) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.faults += outcome.faults;
        self.writes += outcome.writes;
        if verbose {
            println!(
                "seed {seed}: trace {:016x}, {} s simulated, {} faults, {} writes, at rest after {} s",
                outcome.trace,
                outcome.simulated.as_secs(),
                outcome.faults,
                outcome.writes,
                outcome.settled_in.as_secs()
            );
        }
        if let Some(violation) = &outcome.violation {
            println!(
                "{violation}\n  repeat: cargo run --release -p skiff-e2e --bin sim -- --seed {seed} --verbose"
            );
            self.failed.push(violation.to_string());
        }
    }
}
