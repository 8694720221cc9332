//! Overload protection (KEP-1040, API Priority and Fairness): who may work when not everybody can.
//!
//! A FlowSchema says what sort a request is of, its PriorityLevelConfiguration what part of the server that sort has.
//! Within a level, requests of one user (or namespace) are one flow; flows share the level fairly, each waits in a
//! bounded queue for a bounded time, and who finds no place is told when to come again (429).
//!
//! - [`plan`]: the objects, digested; [`rules`]: which schema a request belongs to
//! - [`seats`]: the state, pure; [`hand`]: the queues of a flow; [`width`]: what a request needs
//! - [`follow`]: keeps the plan in step with the objects, and tells of schemas whose level is missing
//!
//! A request holds its seats until the head of its answer is there: what follows (the chunks of a list, the events of a
//! watch) is copied as the client reads. Requests that last (exec, logs, proxies) are not held up at all, as upstream.
//! An exempt request takes no lock; any other takes one, for the time of a few comparisons, when it begins and when
//! it ends.

mod counters;
pub(crate) mod follow;
mod hand;
mod plan;
mod retry_after;
mod rules;
mod seats;
mod width;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use base::Clock;
use http::{HeaderMap, HeaderName};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::plan::{Plan, Schema};
use self::retry_after::RetryAfter;
pub(crate) use self::seats::Reason;
use self::seats::{Place, Seats, Start, Ticket};
use crate::server::Server;
use crate::{RequestInfo, UserInfo};

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// No request waits longer for a seat.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Overload protection of one API server.
#[derive(Debug)]
pub struct Flow {
    clock: Clock,
    /// How many requests work at a time, all in all.
    total: u32,
    plan: RwLock<Arc<Plan>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    seats: Seats,
    /// Who waits, by the number of the ticket.
    wakes: HashMap<u64, oneshot::Sender<Place>>,
    retry: HashMap<String, RetryAfter>,
}

/// The sort that a request is of. The client is told, by numbers that say nothing to outsiders.
#[derive(Clone, Debug)]
pub struct Sort(Arc<Schema>);

/// The right to work. Dropping it lets others work.
#[must_use]
pub struct Seat {
    flow: Arc<Flow>,
    schema: Arc<Schema>,
    /// None for requests that are exempt.
    place: Option<Place>,
    width: u32,
    started: Instant,
}

/// A request that was turned away, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    pub seconds: u32,
}

/// The wait of one request. Dropping it before its end gives the place in the queue back, or the seats.
struct Wait<'a> {
    flow: &'a Flow,
    ticket: Ticket,
    woken: oneshot::Receiver<Place>,
    ended: bool,
}

impl Flow {
    /// Overload protection by the mandatory objects alone, until [`Flow::configure`].
    pub fn new(clock: Clock, total: u32) -> Self {
        let (plan, levels) = plan::digest(&[], &[], total, &[]);
        let mut held = Held::default();
        drop(held.seats.configure(levels));
        Self { clock, total, plan: RwLock::new(Arc::new(plan)), held: Mutex::new(held) }
    }

    /// Goes on by these objects.
    pub fn configure(&self, levels: &[PriorityLevelConfiguration], schemas: &[FlowSchema]) {
        let earlier = self.plan();
        let (plan, levels) = plan::digest(levels, schemas, self.total, &earlier.schemas);
        let mut held = self.held();
        let started = held.seats.configure(levels);
        held.wake(started);
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
    }

    /// The sort that a request is of.
    pub fn sort(&self, info: &RequestInfo, user: &UserInfo) -> Sort {
        Sort(self.plan().classify(info, user).clone())
    }

    /// A seat for a request of this sort, at once or after a wait of up to `patience`.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        server: &Server,
        sort: &Sort,
        info: &RequestInfo,
        user: &UserInfo,
        patience: Duration,
    ) -> Result<Seat, TurnedAway> {
        let schema = &sort.0;
        if schema.exempt {
            return Ok(self.seat(schema, None, 1, self.clock.instant(), Duration::ZERO));
        }
        let width = width::of(server, info, schema.widest);
        self.enter_with(schema, schema.flow(info, user), width, patience).await
    }

    async fn enter_with(
        self: &Arc<Self>,
        schema: &Arc<Schema>,
        flow: u64,
        width: u32,
        patience: Duration,
    ) -> Result<Seat, TurnedAway> {
        let asked = self.clock.instant();
        let (ticket, woken) = {
            let mut held = self.held();
            let (start, others) = held.seats.start(&schema.level, flow, width);
            match start {
                Start::Running(place) => {
                    drop(held);
                    return Ok(self.seat(schema, Some(place), width, asked, Duration::ZERO));
                }
                Start::Rejected(reason) => {
                    drop(held);
                    return Err(self.turn_away(schema, reason));
                }
                Start::Waiting(ticket) => {
                    let (wake, woken) = oneshot::channel();
                    held.wakes.insert(ticket.id, wake);
                    held.wake(others);
                    (ticket, woken)
                }
            }
        };
        let mut wait = Wait { flow: self, ticket, woken, ended: false };
        let waiting = schema.counters.waits();
        let woken = tokio::time::timeout(patience.min(LONGEST_WAIT), &mut wait.woken).await;
        drop(waiting);
        match woken {
            Ok(Ok(place)) => {
                wait.ended = true;
                let now = self.clock.instant();
                Ok(self.seat(schema, Some(place), width, now, now - asked))
            }
            _ => {
                drop(wait);
                Err(self.turn_away(schema, Reason::TimeOut))
            }
        }
    }

    fn seat(
        self: &Arc<Self>,
        schema: &Arc<Schema>,
        place: Option<Place>,
        width: u32,
        started: Instant,
        waited: Duration,
    ) -> Seat {
        schema.counters.started(width, waited);
        Seat { flow: self.clone(), schema: schema.clone(), place, width, started }
    }

    fn turn_away(&self, schema: &Schema, reason: Reason) -> TurnedAway {
        schema.counters.rejected(reason);
        let now = self.clock.now().as_second();
        let mut held = self.held();
        // One entry for each level that there was: those are few.
        TurnedAway { seconds: held.retry.entry(schema.level.clone()).or_default().rejected(now) }
    }

    fn finish(&self, place: &Place, time: Duration) {
        let mut held = self.held();
        let started = held.seats.finish(place, time);
        held.wake(started);
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is counted, for `/metrics`.
    pub(crate) fn each_schema(&self, mut show: impl FnMut(&str, &str, &Arc<counters::Counters>)) {
        for schema in &self.plan().schemas {
            show(&schema.level, &schema.name, &schema.counters);
        }
    }

    /// Shows name, nominal seats, lower and upper bound, and what it can have now of each level.
    pub(crate) fn each_level(&self, mut show: impl FnMut(&str, [u32; 4])) {
        let held = self.held();
        for level in held.seats.levels() {
            let plan = &level.plan;
            show(&plan.name, [plan.nominal, plan.lower, plan.upper, held.seats.reach(level)]);
        }
    }
}

impl Held {
    /// Tells those who wait that they may work now.
    fn wake(&mut self, started: Vec<(Ticket, Place)>) {
        // Who has just stopped waiting gives the seats back; others may work then.
        let mut started = std::collections::VecDeque::from(started);
        while let Some((ticket, place)) = started.pop_front() {
            let unwanted = match self.wakes.remove(&ticket.id) {
                Some(wake) => wake.send(place).err(),
                None => Some(place),
            };
            if let Some(place) = unwanted {
                started.extend(self.seats.finish(&place, Duration::ZERO));
            }
        }
    }
}

impl Sort {
    /// Tells the client what sort its request was of.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA_UID, self.0.uid.clone());
        headers.insert(LEVEL_UID, self.0.level_uid.clone());
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut held = self.flow.held();
        held.wakes.remove(&self.ticket.id);
        let (was_waiting, started) = held.seats.cancel(self.ticket);
        held.wake(started);
        // Woken in the same moment: the seats are on their way here.
        if let (false, Ok(place)) = (was_waiting, self.woken.try_recv()) {
            let started = held.seats.finish(&place, Duration::ZERO);
            held.wake(started);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.counters.finished(self.width);
        if let Some(place) = &self.place {
            self.flow.finish(place, self.flow.clock.instant() - self.started);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("schema", &self.schema.name).field("width", &self.width).finish()
    }
}

#[cfg(test)]
mod tests;
