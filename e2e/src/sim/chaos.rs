//! What befalls the cluster, and how it is healed.

use std::time::Duration;

use base::Random;
use store::Faults;

use super::World;
use super::agent::{Blow, Node};
use super::network::Rates;
use super::plane::{Part, Plane};

/// The mean time between two blows.
const MEAN: u64 = 10_000;

/// The store while it can't be reached.
const OUTAGE: Faults = Faults {
    read_fails: 1000,
    fails_before: 1000,
    fails_after: 0,
    delays: 0,
    watch_breaks: 1000,
    event_delays: 0,
    compacts: 0,
    delay: Duration::ZERO,
};

fn steady(random: &Random) -> (Rates, Faults) {
    let delay = Duration::from_millis(50 + random.below(3000));
    let rates = Rates {
        lost: random.below(12),
        unanswered: random.below(12),
        late: random.below(80),
        cut: random.below(6),
        late_piece: random.below(60),
        delay,
    };
    let faults = Faults {
        read_fails: random.below(8),
        fails_before: random.below(8),
        fails_after: random.below(8),
        delays: random.below(60),
        watch_breaks: random.below(6),
        event_delays: random.below(80),
        compacts: random.below(4),
        delay: Duration::from_millis(50 + random.below(2000)),
    };
    (rates, faults)
}

/// Brings a fault about every ten seconds for so long.
pub(crate) async fn quake(world: &World, planes: &[Plane], nodes: &[Node], duration: Duration) {
    let random = world.random("chaos");
    let (rates, faults) = steady(&random);
    world.network.set(rates);
    for plane in planes {
        plane.set_store(faults);
    }
    let end = world.clock.instant() + duration;
    while world.clock.instant() < end {
        world.clock.wait(Duration::from_millis(MEAN / 4 + random.below(MEAN * 3 / 2))).await;
        strike(world, &random, planes, nodes, faults);
    }
}

fn strike(world: &World, random: &Random, planes: &[Plane], nodes: &[Node], faults: Faults) {
    let at = |count: usize| usize::try_from(random.below(count as u64)).unwrap_or(0);
    let plane = &planes[at(planes.len())];
    let node = &nodes[at(nodes.len())];
    let short = Duration::from_millis(random.below(8000));
    let long = Duration::from_secs(5 + random.below(random.below(200) + 1));
    let number = plane.number();
    match random.below(100) {
        0..=14 => {
            world.log.fault(&format!("API server {number} crashes for {short:?}"));
            plane.crash(Part::Api, short);
        }
        15..=29 => {
            world.log.fault(&format!("controllers {number} crash for {short:?}"));
            plane.crash(Part::Controllers, short);
        }
        30..=41 => {
            world.log.fault(&format!("scheduler {number} crashes for {short:?}"));
            plane.crash(Part::Scheduler, short);
        }
        42..=46 => {
            world.log.fault(&format!("control plane {number} crashes for {short:?}"));
            for part in [Part::Api, Part::Scheduler, Part::Controllers] {
                plane.crash(part, short);
            }
        }
        47..=58 => {
            world.log.fault(&format!("agent of {} crashes for {short:?}", node.name));
            node.hit(Blow::Agent(short));
        }
        59..=66 => {
            world.log.fault(&format!("machine of {} is off for {long:?}", node.name));
            node.hit(Blow::Machine(long));
        }
        67..=79 => {
            world.log.fault(&format!("{} is cut off for {long:?}", node.name));
            let (gate, clock) = (node.gate.clone(), world.clock.clone());
            gate.cut();
            world.tasks.spawn("partition", async move {
                clock.wait(long).await;
                gate.restore();
            });
        }
        80..=88 => {
            let which = at(2);
            let time = Duration::from_secs(1 + random.below(30));
            world.log.fault(&format!("component {which} of plane {number} is cut off for {time:?}"));
            let (gate, clock) = (plane.gates[which].clone(), world.clock.clone());
            gate.cut();
            world.tasks.spawn("partition", async move {
                clock.wait(time).await;
                gate.restore();
            });
        }
        _ => {
            let time = Duration::from_secs(1 + random.below(20));
            world.log.fault(&format!("plane {number} can't reach the store for {time:?}"));
            plane.set_store(OUTAGE);
            let (plane, clock) = (plane.store(), world.clock.clone());
            world.tasks.spawn("outage", async move {
                clock.wait(time).await;
                plane.set(faults);
            });
        }
    }
}

/// Ends every fault. What crashed is started again by itself.
pub(crate) async fn heal(world: &World, planes: &[Plane], nodes: &[Node]) {
    // What was to end by itself ends before the rest is healed.
    world.clock.wait(Duration::from_secs(21)).await;
    world.network.set(Rates::default());
    for plane in planes {
        plane.set_store(Faults::default());
        plane.gates.iter().for_each(super::network::Gate::restore);
    }
    for node in nodes {
        node.gate.restore();
        node.calm();
    }
    world.log.fault("healed");
}
