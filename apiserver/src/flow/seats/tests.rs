//! Bounds and fairness of the seats.

use proptest::prelude::*;

use super::*;

fn level(name: &str, nominal: u32, lower: u32, upper: u32, queues: usize, length: usize) -> LevelPlan {
    let queuing = (queues > 0).then_some(Queuing { queues, hand: queues.min(3), length });
    LevelPlan { name: name.to_owned(), nominal, lower, upper, widest: 10, queuing }
}

fn seats(levels: &[LevelPlan]) -> Seats {
    let mut seats = Seats::default();
    assert_eq!(seats.configure(levels.to_vec()), []);
    seats
}

fn running(start: (Start, Vec<(Ticket, Place)>)) -> Place {
    match start {
        (Start::Running(place), _) => place,
        other => panic!("{other:?}"),
    }
}

fn waiting(start: (Start, Vec<(Ticket, Place)>)) -> Ticket {
    match start {
        (Start::Waiting(ticket), _) => ticket,
        other => panic!("{other:?}"),
    }
}

const MOMENT: Duration = Duration::from_millis(3);

#[test]
fn requests_beyond_the_seats_wait_and_beyond_the_queue_are_rejected() {
    let mut seats = seats(&[level("a", 2, 2, 2, 1, 2)]);
    let first = running(seats.start("a", 1, 1));
    let _second = running(seats.start("a", 1, 1));
    let third = waiting(seats.start("a", 1, 1));
    let fourth = waiting(seats.start("a", 1, 1));
    assert_eq!(seats.start("a", 1, 1).0, Start::Rejected(Reason::QueueFull));
    assert!(seats.cancel(third).0);
    assert!(!seats.cancel(third).0);
    let next = seats.finish(&first, MOMENT);
    assert_eq!(next.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [fourth]);
    assert!(!seats.cancel(fourth).0, "it works already");
}

#[test]
fn a_level_without_queues_rejects_at_once() {
    let mut seats = seats(&[level("a", 1, 1, 1, 0, 0)]);
    let _first = running(seats.start("a", 1, 1));
    assert_eq!(seats.start("a", 1, 1).0, Start::Rejected(Reason::ConcurrencyLimit));
    assert_eq!(seats.start("unknown", 1, 1).0, Start::Rejected(Reason::ConcurrencyLimit));
}

#[test]
fn a_wide_request_is_not_overtaken_and_runs_alone_where_it_never_fits() {
    let mut seats = seats(&[level("a", 4, 4, 4, 1, 9)]);
    let narrow = running(seats.start("a", 1, 1));
    let wide = waiting(seats.start("a", 1, 10));
    let behind = waiting(seats.start("a", 1, 1));
    let started = seats.finish(&narrow, MOMENT);
    assert_eq!(started.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [wide]);
    let started = seats.finish(&started[0].1, MOMENT);
    assert_eq!(started.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [behind]);
}

#[test]
fn a_level_borrows_what_others_lend_and_never_what_they_keep() {
    let mut seats = seats(&[level("busy", 4, 2, 100, 4, 50), level("calm", 4, 1, 100, 4, 50)]);
    let mut places = Vec::new();
    for _ in 0..7 {
        places.push(running(seats.start("busy", 1, 1)));
    }
    let _queued = waiting(seats.start("busy", 1, 1));
    // What the calm level keeps is there at once; the rest as it comes free, before the busy one.
    let _own = running(seats.start("calm", 1, 1));
    let calm = waiting(seats.start("calm", 1, 1));
    let started = seats.finish(&places.remove(0), MOMENT);
    assert_eq!(started.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [calm]);
}

#[test]
fn a_change_of_the_queues_loses_nobody() {
    let mut seats = seats(&[level("a", 1, 1, 1, 8, 50)]);
    let first = running(seats.start("a", 9, 1));
    let tickets: Vec<Ticket> = (0..20).map(|flow| waiting(seats.start("a", flow, 1))).collect();
    assert_eq!(seats.configure(vec![level("a", 1, 1, 1, 3, 50), level("b", 5, 5, 5, 2, 2)]), []);
    assert!(seats.cancel(tickets[7]).0);
    // The level goes; whoever waits at it is served all the same.
    assert_eq!(seats.configure(vec![level("b", 5, 5, 5, 2, 2)]), []);
    assert_eq!(seats.levels().count(), 1);
    let (mut served, mut places) = (Vec::new(), vec![first]);
    while let Some(place) = places.pop() {
        for (ticket, place) in seats.finish(&place, MOMENT) {
            served.push(ticket.id);
            places.push(place);
        }
    }
    served.sort_unstable();
    assert_eq!(served, (0..20).filter(|id| *id != 7).collect::<Vec<u64>>());
}

#[test]
fn more_seats_let_those_who_wait_work() {
    let mut seats = seats(&[level("a", 1, 1, 1, 2, 50)]);
    let _first = running(seats.start("a", 1, 1));
    let ticket = waiting(seats.start("a", 1, 1));
    let started = seats.configure(vec![level("a", 2, 2, 2, 2, 50)]);
    assert_eq!(started.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [ticket]);
}

/// Serves flows that each always have `depth` requests there, of these widths and times; the seat-seconds of each.
fn serve(flows: &[(u64, u32, u64)], depth: usize, capacity: u32, rounds: usize) -> Vec<f64> {
    let queues = 64;
    let mut seats = seats(&[LevelPlan {
        queuing: Some(Queuing { queues, hand: 1, length: depth + 1 }),
        ..level("a", capacity, capacity, capacity, queues, depth)
    }]);
    // (end, flow, place), the virtual clock, and who waits under which number.
    let (mut working, mut now) = (Vec::<(u64, usize, Place)>::new(), 0);
    let mut owners = std::collections::HashMap::new();
    let mut served = vec![0.0; flows.len()];
    let mut arrivals: Vec<usize> = (0..flows.len()).flat_map(|flow| vec![flow; depth]).collect();
    for _ in 0..rounds {
        for flow in std::mem::take(&mut arrivals) {
            let (hash, width, time) = flows[flow];
            let (start, started) = seats.start("a", hash, width);
            match start {
                Start::Running(place) => working.push((now + time, flow, place)),
                Start::Waiting(ticket) => drop(owners.insert(ticket.id, flow)),
                Start::Rejected(reason) => panic!("{reason:?}"),
            }
            for (ticket, place) in started {
                let owner = owners[&ticket.id];
                working.push((now + flows[owner].2, owner, place));
            }
        }
        let next = (0..working.len()).min_by_key(|at| (working[*at].0, *at)).unwrap();
        let (end, flow, place) = working.remove(next);
        now = end;
        served[flow] += flows[flow].2 as f64 * f64::from(place.width);
        for (ticket, place) in seats.finish(&place, Duration::from_millis(flows[flow].2)) {
            let owner = owners[&ticket.id];
            working.push((now + flows[owner].2, owner, place));
        }
        arrivals.push(flow);
    }
    served
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn busy_flows_get_the_same_part_whatever_they_ask_for(
        capacity in 4u32..16,
        shapes in prop::collection::vec((1u32..4, 1u64..40), 2..5),
    ) {
        // Hashes with queues of their own.
        let flows: Vec<(u64, u32, u64)> =
            shapes.iter().enumerate().map(|(at, (width, time))| (at as u64, *width, *time)).collect();
        let served = serve(&flows, 40, capacity, 6000);
        let least = served.iter().copied().fold(f64::MAX, f64::min);
        let most = served.iter().copied().fold(0.0, f64::max);
        prop_assert!(most <= 1.25 * least + 40.0 * 40.0, "{served:?}");
    }

    #[test]
    fn whatever_comes_the_bounds_hold_and_nobody_is_forgotten(
        steps in prop::collection::vec((0u8..12, 0usize..3, 0u64..6, 1u32..5), 1..400),
    ) {
        let plans = [level("a", 4, 1, 5, 4, 3), level("b", 6, 3, 100, 2, 2), level("c", 2, 2, 2, 0, 0)];
        let names = ["a", "b", "c"];
        let mut seats = seats(&plans);
        let (mut working, mut queued) = (Vec::<Place>::new(), Vec::<Ticket>::new());
        for (what, which, flow, width) in steps {
            let started = match what {
                0..=6 => {
                    let (start, started) = seats.start(names[which], flow, width);
                    match start {
                        Start::Running(place) => working.push(place),
                        Start::Waiting(ticket) => queued.push(ticket),
                        Start::Rejected(_) => {}
                    }
                    started
                }
                7..=9 if !working.is_empty() => {
                    let place = working.remove(flow as usize % working.len());
                    seats.finish(&place, Duration::from_millis(flow))
                }
                10 if !queued.is_empty() => {
                    let ticket = queued.remove(flow as usize % queued.len());
                    let (was_there, started) = seats.cancel(ticket);
                    prop_assert!(was_there);
                    started
                }
                _ => {
                    let mut plans = plans.to_vec();
                    plans[0].queuing.as_mut().unwrap().queues = 1 + flow as usize;
                    seats.configure(plans)
                }
            };
            for (ticket, place) in started {
                let before = queued.len();
                queued.retain(|other| other.id != ticket.id);
                prop_assert_eq!(queued.len() + 1, before);
                working.push(place);
            }
            let total: u32 = seats.levels().map(|level| level.executing).sum();
            prop_assert_eq!(total, working.iter().map(|place| place.width).sum::<u32>());
            // A wide request may be alone on each level.
            prop_assert!(total <= 12 + 3 * 4);
            for level in seats.levels() {
                let alone = working.iter().filter(|place| seats.levels[place.level].plan.name == level.plan.name);
                prop_assert!(level.executing <= level.plan.upper || alone.count() == 1);
                let waiting: usize = level.queues.iter().map(|queue| queue.waiting.len()).sum();
                prop_assert_eq!(level.waiting, waiting);
                // Nobody waits at a level where nobody works: it would be for ever.
                prop_assert!(level.executing > 0 || level.waiting == 0);
            }
            let waiting: usize = seats.levels().map(|level| level.waiting).sum();
            prop_assert_eq!(waiting, queued.len());
        }
    }
}
