//! The workers: take a key, have it planned, carry the plan out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use client::{Cache, Cached, Client, EventKind, Events, Key, error};
use futures::future::join_all;
use serde_json::Value;
use tracing::{debug, warn};

use super::context::Context;
use super::plan::{Plan, What, Write};
use super::queue::WorkQueue;

/// Writes of one plan in flight.
const IN_FLIGHT: usize = 16;
/// How long to wait for a cache to show a write before planning again anyway.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);

/// Why an object could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {}", words(.source))]
    Api { what: String, source: kube::Error },
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// What went wrong, in the API server's own words if it was the API server that refused.
    fn cause(&self) -> String {
        match self {
            Self::Api { source, .. } => words(source),
            Self::Other(text) => text.clone(),
        }
    }
}

/// One controller.
pub trait Reconciler: Send + Sync + 'static {
    /// The controller's name, for example `replicaset-controller`: the source of its events.
    fn name(&self) -> &'static str;

    /// What is to be done about one object now. Reading is done from caches; a controller that must also ask
    /// the API does so here, but writes only by its plan.
    fn plan(&self, key: &Key) -> impl Future<Output = Result<Plan, Error>> + Send;

    /// What to write when `write` failed, for example a condition that says so. Its stages are carried out,
    /// whatever comes of them; then the object is planned again as after any failure.
    fn failed(&self, _key: &Key, _write: &Write, _failure: &str) -> Plan {
        Plan::nothing()
    }
}

type Reached = Box<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What the workers of a controller need besides it.
pub struct Worker {
    queue: Arc<WorkQueue>,
    synced: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    reached: Vec<(String, Reached)>,
    workers: usize,
}

impl Worker {
    /// Workers on a queue of their own, which has a name.
    pub fn new(context: &Context, queue: &str, workers: usize) -> Self {
        let queue = context.queues.queue(queue, &context.clock);
        Self { queue, synced: Vec::new(), reached: Vec::new(), workers }
    }

    /// The queue, for whoever notices changes.
    pub fn queue(&self) -> Arc<WorkQueue> {
        self.queue.clone()
    }

    /// Reads this cache: nothing is planned before it is filled, nor before it shows the last plan's writes.
    pub fn reads<K: Cached<DynamicType = ()>>(&mut self, cache: &Cache<K>) {
        self.reads_as(&K::plural(&()), cache);
    }

    /// Reads the cache of a resource that is known only at run time.
    pub fn reads_as<K: Cached>(&mut self, plural: &str, cache: &Cache<K>) {
        let fill = cache.clone();
        self.synced.push(Box::pin(async move { fill.synced().await }));
        let follow = cache.clone();
        let reached: Reached = Box::new(move |revision| {
            let cache = follow.clone();
            Box::pin(async move { cache.reached(revision).await })
        });
        self.reached.push((plural.to_owned(), reached));
    }

    /// Reads this cache, and looks at the keys that `concerns` finds for each changed object, new and old.
    pub fn watches<K: Cached<DynamicType = ()>>(
        &mut self,
        cache: &Cache<K>,
        concerns: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static,
    ) {
        self.reads(cache);
        let queue = self.queue.clone();
        cache.on_change(move |change| {
            let objects = match change {
                client::Change::Applied(new, old) => [Some(new), old.as_ref()],
                client::Change::Deleted(last) => [Some(last), None],
                client::Change::Missed => [None, None],
            };
            for key in objects.into_iter().flatten().flat_map(|object| concerns(object)) {
                queue.add(key);
            }
        });
    }
}

/// Starts a controller. It ends with the context's tasks.
pub fn start<R: Reconciler>(context: &Context, worker: Worker, reconciler: R) {
    let name = reconciler.name();
    let events = Events::start(
        &context.tasks,
        context.client.clone(),
        context.clock.clone(),
        context.random.clone(),
        name,
        "",
    );
    let shared = Arc::new(Shared {
        reconciler,
        events,
        client: context.client.clone(),
        clock: context.clock.clone(),
        queue: worker.queue,
        reached: worker.reached,
    });
    let (tasks, workers, synced) = (context.tasks.clone(), worker.workers, worker.synced);
    context.tasks.spawn(name, async move {
        for filled in synced {
            filled.await;
        }
        for _ in 0..workers {
            tasks.spawn(name, shared.clone().work());
        }
    });
}

struct Shared<R> {
    reconciler: R,
    events: Events,
    client: Client,
    clock: Clock,
    queue: Arc<WorkQueue>,
    reached: Vec<(String, Reached)>,
}

impl<R: Reconciler> Shared<R> {
    async fn work(self: Arc<Self>) {
        loop {
            let key = self.queue.take().await;
            match self.reconcile(&key).await {
                Ok(again) => {
                    self.queue.done(&key);
                    if let Some(delay) = again {
                        self.queue.add_after(key, delay);
                    }
                }
                Err(failure) => {
                    let retry_in = self.queue.failed(&key);
                    let controller = self.reconciler.name();
                    if is_race(&failure) {
                        debug!(controller, %key, error = %failure, ?retry_in, "lost a race, trying again");
                    } else {
                        warn!(controller, %key, error = %failure, ?retry_in, "trying again");
                    }
                }
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let plan = self.reconciler.plan(key).await?;
        for event in &plan.events {
            match event.kind {
                EventKind::Normal => self.events.normal(&event.about, event.reason, event.message.clone()),
                EventKind::Warning => self.events.warning(&event.about, event.reason, event.message.clone()),
            }
        }
        for stage in &plan.stages {
            if let Err((write, failure)) = self.carry_out(stage).await {
                for stage in self.reconciler.failed(key, &write, &failure.cause()).stages {
                    if let Err((_, failure)) = self.carry_out(&stage).await {
                        debug!(%key, error = %failure, "could not write that a write failed");
                    }
                }
                return Err(failure);
            }
        }
        Ok(plan.again)
    }

    /// Carries out the writes of a stage, a growing number at a time: when they all fail for the same reason
    /// (a quota, a webhook), few requests are wasted.
    async fn carry_out(&self, stage: &[Write]) -> Result<(), (Write, Error)> {
        let mut written: Vec<(&str, u64)> = Vec::new();
        let mut failure = None;
        let (mut from, mut batch) = (0, 1);
        while from < stage.len() && failure.is_none() {
            let until = (from + batch).min(stage.len());
            let mut results = Vec::with_capacity(until - from);
            for chunk in stage[from..until].chunks(IN_FLIGHT) {
                let writes: Vec<_> = chunk.iter().map(|write| self.write(write)).collect();
                results.extend(join_all(writes).await);
            }
            for (write, result) in stage[from..until].iter().zip(results) {
                match result {
                    Ok(revision) => written.push((&write.resource, revision)),
                    Err(error) => failure = failure.or_else(|| Some((write.clone(), error))),
                }
            }
            (from, batch) = (until, batch * 2);
        }
        self.catch_up(written).await;
        failure.map_or(Ok(()), Err)
    }

    /// Carries out one write; the revision that it made, or 0.
    async fn write(&self, write: &Write) -> Result<u64, Error> {
        let describe = || format!("{} {} {}", verb(&write.what), write.resource, write.key);
        let request = write.request().map_err(|source| Error::Api { what: describe(), source })?;
        match self.client.request::<Value>(request).await {
            Ok(answer) => {
                if let Some(events) = &write.announce
                    && !events.done.0.is_empty()
                {
                    let name = answer.pointer("/metadata/name").and_then(Value::as_str);
                    let message = events.done.1.replace("{name}", name.unwrap_or(&write.key.name));
                    self.events.normal(&events.about, events.done.0, message);
                }
                let revision = answer.pointer("/metadata/resourceVersion").and_then(Value::as_str);
                Ok(revision.and_then(|revision| revision.parse().ok()).unwrap_or(0))
            }
            Err(failure) if matches!(write.what, What::Delete { .. }) && is_gone(&failure) => Ok(0),
            Err(source) => {
                if let Some(events) = &write.announce
                    && !events.failed.0.is_empty()
                    && !error::is_namespace_terminating(&source)
                {
                    let message = format!("{}{}", events.failed.1, words(&source));
                    self.events.warning(&events.about, events.failed.0, message);
                }
                Err(Error::Api { what: describe(), source })
            }
        }
    }

    async fn catch_up(&self, written: Vec<(&str, u64)>) {
        for (resource, reached) in &self.reached {
            let revisions =
                written.iter().filter(|(written, _)| written == resource).map(|(_, revision)| *revision);
            let Some(revision) = revisions.max().filter(|&revision| revision > 0) else { continue };
            let deadline = self.clock.instant() + CATCH_UP_LIMIT;
            if tokio::time::timeout_at(deadline, reached(revision)).await.is_err() {
                warn!(
                    controller = self.reconciler.name(),
                    resource, revision, "the cache lags behind our own writes"
                );
            }
        }
    }
}

/// The object with this UID is not there any more, whether or not another has its name.
fn is_gone(failure: &kube::Error) -> bool {
    error::is_not_found(failure) || error::is_conflict(failure)
}

fn words(failure: &kube::Error) -> String {
    match failure {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn is_race(failure: &Error) -> bool {
    match failure {
        Error::Api { source, .. } => {
            error::is_conflict(source) || error::is_already_exists(source) || error::is_not_found(source)
        }
        Error::Other(_) => false,
    }
}

fn verb(what: &What) -> &'static str {
    match what {
        What::Create(_) | What::CreateSubresource(..) => "create",
        What::Replace(_) | What::ReplaceStatus(_) | What::ReplaceSubresource(..) => "update",
        What::Merge(_) | What::MergeStatus(_) | What::StrategicStatus(_) => "patch",
        What::Delete { .. } | What::DeleteUnchanged { .. } => "delete",
        What::DeleteCollection => "deletecollection",
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("workers", &self.workers).finish_non_exhaustive()
    }
}
