//! The whole control plane in one thread, on virtual time, from a seed, with faults.
//!
//! - `log`: every change of the store, who made it, and what was found wrong; `record`: fills it
//! - `network`: the way from every component to the API servers, with faults of its own
//! - `plane`: API servers, schedulers and controllers, which crash and start again
//! - `agent`: node agents without containers; `users`: what people do; `chaos`: what befalls everything
//! - `witness`: watches that are compared with the log, event by event
//! - `commit`, `settled`: what must hold after each write, and after everything is healed
//!
//! A run goes through three phases: work under faults, healing until everything has come to rest, and a
//! time in which nothing may be written any more. See [`run`].

mod agent;
mod chaos;
mod commit;
mod log;
mod network;
mod plane;
mod record;
mod rest;
mod settled;
mod users;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use base::{Clock, Random, Tasks};
use store::Embedded;

use agent::Node;
use log::Log;
use network::Network;
use plane::Plane;
use record::Recorder;

pub use log::Violation;

/// After the healing everything must have come to rest within this time.
const CONVERGENCE: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_secs(10);
/// Then nothing may be written for this time.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// How one seed went.
#[derive(Debug)]
pub struct Outcome {
    /// What was found wrong first.
    pub violation: Option<Violation>,
    /// Simulated time.
    pub simulated: Duration,
    /// Faults injected into store, network, components and nodes.
    pub faults: u64,
    /// Transactions that wrote.
    pub writes: u64,
    /// A number that is the same for the same history.
    pub trace: u64,
    /// How long it took to come to rest after the healing.
    pub settled_in: Duration,
}

/// Runs one seed from beginning to end.
///
/// # Panics
/// If the operating system refuses what a runtime or a certificate needs.
#[expect(clippy::expect_used, reason = "nothing can be simulated without a runtime")]
pub fn run(seed: u64) -> Outcome {
    log::watch_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of the current thread");
    runtime.block_on(simulate(seed))
}

/// What every part of the simulated cluster is given.
#[derive(Clone)]
struct World {
    clock: Clock,
    /// Chance of what is simulated; faults have sources of their own.
    seed: u64,
    tasks: Tasks,
    log: Log,
    network: Network,
}

impl World {
    /// A source of chance for one part, independent of how the others use theirs.
    fn random(&self, part: &str) -> Random {
        let mixed = part.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random::seeded(mixed)
    }
}

async fn simulate(seed: u64) -> Outcome {
    let started = tokio::time::Instant::now();
    let clock = Clock::simulated(jiff::Timestamp::from_second(1_767_225_600).unwrap_or_default());
    let tasks = Tasks::new("simulation");
    let log = Log::new();
    let random = Random::seeded(seed);
    let network = Network::new(clock.clone(), Random::seeded(random.u64()), log.clone());
    let world = World { clock, seed, tasks, log, network };
    let embedded = Arc::new(Embedded::in_memory(world.clock.clone(), world.tasks.clone()));
    // The keys come from the operating system, but nothing that happens depends on them.
    let pki = match Pki::in_memory(world.clock.clone(), world.random("certificates")) {
        Ok(pki) => Arc::new(pki),
        Err(error) => panic!("no certificates: {error}"),
    };
    let recorder = Arc::new(Recorder::new(embedded, world.log.clone(), pki.clone()).await);
    let count = 1 + random.below(2);
    let planes: Vec<Plane> =
        (0..count).map(|number| Plane::start(&world, number, recorder.clone(), &pki)).collect();
    let nodes: Vec<Node> = (0..3 + random.below(6)).map(|number| Node::start(&world, number)).collect();
    let mut settled_in = Duration::ZERO;
    tokio::select! {
        biased;
        () = world.log.violated() => {}
        () = phases(&world, &planes, &nodes, &random, &mut settled_in) => {}
    }
    let faults = world.network.faults() + planes.iter().map(Plane::faults).sum::<u64>() + world.log.chaos();
    let (writes, trace) = world.log.totals();
    let violation = world.log.violation().map(|mut violation| {
        violation.seed = seed;
        violation
    });
    let simulated = started.elapsed();
    world.tasks.token().cancel();
    Outcome { violation, simulated, faults, writes, trace, settled_in }
}

async fn phases(world: &World, planes: &[Plane], nodes: &[Node], random: &Random, settled_in: &mut Duration) {
    for plane in planes {
        plane.up().await;
    }
    witness::start(world);
    let work = world.tasks.child("work");
    users::start(world, &work, 2 + random.below(2));
    chaos::quake(world, planes, nodes, Duration::from_secs(150 + random.below(360))).await;
    work.token().cancel();
    drop(work);
    chaos::heal(world, planes, nodes).await;
    users::clean_up(world).await;
    let healed = world.clock.instant();
    loop {
        world.clock.wait(LOOK).await;
        match world.log.with(|state| settled::missing(state)) {
            None => break,
            Some(missing) if healed.elapsed() > CONVERGENCE => {
                let text = format!("not at rest {}s after the healing: {missing}", CONVERGENCE.as_secs());
                return world.log.report("I9", text);
            }
            Some(_) => {}
        }
    }
    *settled_in = healed.elapsed();
    rest::quiet(world, QUIET).await;
    if let Some(missing) = world.log.with(|state| settled::missing(state)) {
        world.log.report("I9", format!("what had come to rest is broken: {missing}"));
    }
    rest::final_checks(world);
    world.log.with(witness::all_seen);
}
