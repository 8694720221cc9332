//! Who may work now, who waits and who is turned away: the seats of all priority levels. Pure; the time is an argument.
//!
//! A level holds at most its own seats and what it borrows. What a level can be asked to lend is in one pool, from
//! which every level takes that has used up what it keeps (`lower`), up to its `upper`. So all levels together never
//! hold more than the server has (one request on an empty level excepted), and a level always gets what it keeps, at
//! once. Seats that come free go to the level with the smallest part of its nominal seats in use.
//!
//! Within a level, each flow waits in the emptiest queue of its hand ([`super::hand`]). The queues are served by
//! start-time fair queuing: each has a virtual time at which its next request may start, which moves by the seats and
//! the time that its requests take; the earliest is next. A request that needs several seats is not overtaken within
//! its level.

use std::collections::VecDeque;
use std::time::Duration;

use super::hand;
use super::plan::{LevelPlan, Queuing};

/// What a request is taken to need before it is known, in seconds. Upstream's figure.
const GUESS: f64 = 0.003;

/// Why a request was turned away; the words are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::QueueFull, Self::ConcurrencyLimit, Self::TimeOut];

    /// As `/metrics` shows it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Start {
    Running(Place),
    Waiting(Ticket),
    Rejected(Reason),
}

/// Seats that a request holds. They must be given back with [`Seats::finish`].
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) struct Place {
    level: usize,
    /// The queue that is charged for it, and of which making of the queues.
    queue: Option<(u64, usize)>,
    pub(super) width: u32,
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) id: u64,
    level: usize,
    queue: usize,
}

/// The seats of all levels.
#[derive(Debug, Default)]
pub(super) struct Seats {
    levels: Vec<Level>,
    /// How many seats can be borrowed, and how many are.
    pool: u32,
    borrowed: u32,
    next: u64,
}

/// One priority level.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) plan: LevelPlan,
    /// Its object is gone; it ends with its last request.
    gone: bool,
    pub(super) executing: u32,
    pub(super) waiting: usize,
    queues: Vec<Queue>,
    /// Rises whenever the queues are made anew.
    making: u64,
    /// Where the level is in virtual time.
    now: f64,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Seats that wait, and seats that work.
    waiting_seats: u32,
    executing: u32,
    /// When its next request may start, in virtual time.
    next: f64,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: u64,
    width: u32,
    hash: u64,
}

impl Seats {
    /// Goes on with other levels. Who waits, waits on; who works is not disturbed.
    pub(super) fn configure(&mut self, plans: Vec<LevelPlan>) -> Vec<(Ticket, Place)> {
        for level in &mut self.levels {
            level.gone = !plans.iter().any(|plan| plan.name == level.plan.name);
        }
        for plan in plans {
            match self.levels.iter().position(|level| level.plan.name == plan.name) {
                Some(index) => self.levels[index].replan(plan),
                None => {
                    // The place of a level that ended; numbers of others must not move.
                    let free = self.levels.iter().position(|level| level.gone && level.is_idle());
                    let level = Level::new(plan);
                    match free {
                        Some(index) => self.levels[index] = level,
                        None => self.levels.push(level),
                    }
                }
            }
        }
        let staying = self.levels.iter().filter(|level| !level.gone);
        self.pool = staying.map(|level| level.plan.nominal - level.plan.lower).sum();
        self.borrowed = self.levels.iter().map(Level::borrowed).sum();
        self.dispatch()
    }

    /// The levels that there are.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Level> {
        self.levels.iter().filter(|level| !level.gone)
    }

    /// How many seats a level could hold now.
    pub(super) fn reach(&self, level: &Level) -> u32 {
        let free = self.pool.saturating_sub(self.borrowed);
        (level.plan.lower + level.borrowed() + free).min(level.plan.upper)
    }

    /// A request of the flow with this hash asks for `width` seats of a level.
    pub(super) fn start(&mut self, level: &str, hash: u64, width: u32) -> (Start, Vec<(Ticket, Place)>) {
        let Some(index) = self.levels.iter().position(|known| known.plan.name == level) else {
            return (Start::Rejected(Reason::ConcurrencyLimit), Vec::new());
        };
        let fits = self.levels[index].waiting == 0 && self.fits(index, width);
        let queue = self.levels[index].pick(hash);
        if fits {
            let start = queue.map(|queue| self.levels[index].queues[queue].next.max(self.levels[index].now));
            return (Start::Running(self.take(index, queue.zip(start), width)), Vec::new());
        }
        let level = &mut self.levels[index];
        let (Some(queue), Some(queuing)) = (queue, level.plan.queuing) else {
            return (Start::Rejected(Reason::ConcurrencyLimit), Vec::new());
        };
        if level.queues[queue].waiting.len() >= queuing.length {
            return (Start::Rejected(Reason::QueueFull), Vec::new());
        }
        let id = self.next;
        self.next += 1;
        level.enqueue(queue, Waiting { id, width, hash });
        // A narrow request in another queue may come before the wide one that the level waits for.
        (Start::Waiting(Ticket { id, level: index, queue }), self.dispatch())
    }

    /// A request that took `time` gives its seats back; who may work now.
    pub(super) fn finish(&mut self, place: &Place, time: Duration) -> Vec<(Ticket, Place)> {
        let level = &mut self.levels[place.level];
        self.borrowed -= level.borrowed();
        level.executing -= place.width;
        self.borrowed += level.borrowed();
        if let Some((_, queue)) = place.queue.filter(|(making, _)| *making == level.making) {
            let queue = &mut level.queues[queue];
            queue.executing -= place.width;
            queue.next += f64::from(place.width) * (time.as_secs_f64() - GUESS);
        }
        self.dispatch()
    }

    /// A request no longer waits. False if it works already.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> (bool, Vec<(Ticket, Place)>) {
        let Some(level) = self.levels.get_mut(ticket.level) else { return (false, Vec::new()) };
        let at = |queue: &Queue| queue.waiting.iter().position(|waiting| waiting.id == ticket.id);
        let likely = level.queues.get(ticket.queue).and_then(at).map(|place| (ticket.queue, place));
        let found = likely.or_else(|| {
            // The queues were made anew since.
            level.queues.iter().enumerate().find_map(|(number, queue)| Some((number, at(queue)?)))
        });
        let Some((queue, place)) = found else { return (false, Vec::new()) };
        let queue = &mut level.queues[queue];
        if let Some(gone) = queue.waiting.remove(place) {
            queue.waiting_seats -= gone.width;
            level.waiting -= 1;
        }
        // It may have been a wide one that others waited behind.
        (true, self.dispatch())
    }

    /// Whether a request of this width can work now.
    fn fits(&self, index: usize, width: u32) -> bool {
        let level = &self.levels[index];
        let after = level.executing + width;
        if level.executing == 0 {
            return true;
        }
        let borrowed = self.borrowed - level.borrowed() + after.saturating_sub(level.plan.lower);
        after <= level.plan.upper && (after <= level.plan.lower || borrowed <= self.pool)
    }

    /// Takes seats, and charges a queue that starts at a virtual time for them.
    fn take(&mut self, index: usize, queue: Option<(usize, f64)>, width: u32) -> Place {
        let level = &mut self.levels[index];
        self.borrowed -= level.borrowed();
        level.executing += width;
        self.borrowed += level.borrowed();
        if let Some((queue, start)) = queue {
            level.now = level.now.max(start);
            let queue = &mut level.queues[queue];
            queue.next = start + f64::from(width) * GUESS;
            queue.executing += width;
        }
        Place { level: index, queue: queue.map(|(queue, _)| (level.making, queue)), width }
    }

    /// Lets everybody work who can now.
    fn dispatch(&mut self) -> Vec<(Ticket, Place)> {
        let mut started = Vec::new();
        loop {
            let waiting = (0..self.levels.len()).filter_map(|index| {
                let level = &self.levels[index];
                let (queue, width) = level.head()?;
                let used = f64::from(level.executing) / f64::from(level.plan.nominal.max(1));
                self.fits(index, width).then_some((index, queue, used))
            });
            let Some((index, queue, _)) = waiting.min_by(|a, b| a.2.total_cmp(&b.2)) else { return started };
            let level = &mut self.levels[index];
            let Some(first) = level.queues[queue].waiting.pop_front() else { return started };
            level.waiting -= 1;
            level.queues[queue].waiting_seats -= first.width;
            let start = level.queues[queue].next;
            let place = self.take(index, Some((queue, start)), first.width);
            started.push((Ticket { id: first.id, level: index, queue }, place));
        }
    }
}

impl Level {
    fn new(plan: LevelPlan) -> Self {
        let queues = plan.queuing.map_or(0, |queuing| queuing.queues);
        Self {
            plan,
            gone: false,
            executing: 0,
            waiting: 0,
            queues: vec![Queue::default(); queues],
            making: 0,
            now: 0.0,
        }
    }

    fn is_idle(&self) -> bool {
        self.executing == 0 && self.waiting == 0
    }

    /// How many seats it holds beyond those that it keeps.
    fn borrowed(&self) -> u32 {
        self.executing.saturating_sub(self.plan.lower)
    }

    fn replan(&mut self, plan: LevelPlan) {
        self.gone = false;
        let count = |queuing: Option<Queuing>| queuing.map_or(0, |queuing| queuing.queues);
        // Who waits at a level that does not queue any more is let through as seats come free.
        let wanted = count(plan.queuing).max(usize::from(self.waiting > 0));
        self.plan = plan;
        if wanted == self.queues.len() {
            return;
        }
        let mut waiting: Vec<Waiting> =
            std::mem::take(&mut self.queues).into_iter().flat_map(|queue| queue.waiting).collect();
        waiting.sort_by_key(|waiting| waiting.id);
        self.queues = vec![Queue { next: self.now, ..Queue::default() }; wanted];
        self.making += 1;
        self.waiting = 0;
        for waiting in waiting {
            let queue = self.pick(waiting.hash).unwrap_or(0);
            self.enqueue(queue, waiting);
        }
    }

    /// The emptiest queue of a flow's hand.
    fn pick(&self, hash: u64) -> Option<usize> {
        if self.queues.is_empty() {
            return None;
        }
        let size = self.plan.queuing.map_or(1, |queuing| queuing.hand);
        let load = |queue: &usize| self.queues[*queue].waiting_seats + self.queues[*queue].executing;
        hand::deal(hash, self.queues.len(), size).min_by_key(load)
    }

    fn enqueue(&mut self, queue: usize, waiting: Waiting) {
        let queue = &mut self.queues[queue];
        if queue.waiting.is_empty() {
            queue.next = queue.next.max(self.now);
        }
        queue.waiting_seats += waiting.width;
        queue.waiting.push_back(waiting);
        self.waiting += 1;
    }

    /// The queue that is next, and what its first request needs.
    fn head(&self) -> Option<(usize, u32)> {
        if self.waiting == 0 {
            return None;
        }
        let heads = self.queues.iter().enumerate();
        let heads =
            heads.filter_map(|(number, queue)| Some((number, queue.waiting.front()?.width, queue.next)));
        heads.min_by(|a, b| a.2.total_cmp(&b.2)).map(|(number, width, _)| (number, width))
    }
}

#[cfg(test)]
mod tests;
