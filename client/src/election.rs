//! One acting instance among several, by a `coordination.k8s.io/v1` Lease.
//!
//! The holder renews every [`ElectionConfig::retry`]; it stops acting when it could not renew for
//! [`ElectionConfig::renew_deadline`], which is shorter than the [`ElectionConfig::lease_duration`] after
//! which others may take over. Others judge expiry by their own clock from when they saw the last change,
//! so clocks need not agree. `leaseTransitions` is the term: it grows with each change of holder.

use std::time::Duration;

use base::{Clock, Random, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::error;

/// Who takes part in which election, and its times (upstream's defaults: 15 s, 10 s, 2 s).
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    pub namespace: String,
    /// Name of the Lease, for example `kube-scheduler`.
    pub name: String,
    /// This instance, unique among all.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry: Duration,
}

/// A candidate in an election.
#[derive(Debug)]
pub struct LeaderElection {
    client: Leases,
    clock: Clock,
    random: Random,
    config: ElectionConfig,
}

struct Leases(Api<Lease>);

/// What was last seen of the lease, and when by our own clock.
struct Observed {
    lease: Lease,
    at: Instant,
}

impl ElectionConfig {
    /// The election of a control plane component in `kube-system`.
    pub fn component(name: &str, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl LeaderElection {
    /// A candidate that does not take part before [`LeaderElection::run`].
    pub fn new(client: Client, clock: Clock, random: Random, config: ElectionConfig) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { client: Leases(api), clock, random, config }
    }

    /// Takes part until the task that runs it ends. Each time this instance becomes the leader, `lead` starts
    /// the work in a group of tasks that is shut down when the leadership is lost or given up.
    pub async fn run(self, tasks: &Tasks, lead: impl Fn(Tasks)) {
        let mut observed: Option<Observed> = None;
        loop {
            let (term, since) = self.acquire(&mut observed).await;
            info!(election = %self.config.name, identity = %self.config.identity, term, "became the leader");
            let work = tasks.child(&format!("{} term {term}", self.config.name));
            lead(work.clone());
            self.hold(&mut observed, since).await;
            warn!(election = %self.config.name, identity = %self.config.identity, term, "lost the leadership");
            if let Err(still_running) = work.shutdown(self.config.lease_duration).await {
                warn!(election = %self.config.name, %still_running, "former leader's work does not end");
            }
        }
    }

    /// Gives the lease up, so that another instance need not wait for its expiry.
    pub async fn release(client: Client, clock: &Clock, config: &ElectionConfig) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(client, &config.namespace);
        let Some(mut lease) = api.get_opt(&config.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&config.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(clock.now()));
        api.replace(&config.name, &PostParams::default(), &lease).await.map(drop)
    }

    /// The term, and a moment before the lease was written: others count from when they see it, so what an answer
    /// took on its way must not lengthen the time in which this instance acts.
    async fn acquire(&self, observed: &mut Option<Observed>) -> (i32, Instant) {
        loop {
            let began = self.clock.instant();
            match self.try_hold(observed).await {
                Ok(Some(term)) if began.elapsed() < self.config.renew_deadline => return (term, began),
                Ok(_) => {}
                Err(failure) => warn!(election = %self.config.name, error = %failure, "can't take part"),
            }
            self.clock.wait(self.random.jitter(self.config.retry, 0.2)).await;
        }
    }

    /// Returns when the lease is lost, or could not be renewed for too long after `renewed`.
    async fn hold(&self, observed: &mut Option<Observed>, mut renewed: Instant) {
        loop {
            let deadline = renewed + self.config.renew_deadline;
            self.clock.wait_until(deadline.min(self.clock.instant() + self.config.retry)).await;
            let began = self.clock.instant();
            let attempt = tokio::time::timeout_at(deadline, self.try_hold(observed)).await;
            match attempt {
                Ok(Ok(Some(_))) => renewed = began,
                Ok(Ok(None)) => return,
                Ok(Err(failure)) => {
                    warn!(election = %self.config.name, error = %failure, "can't renew the lease");
                    if self.clock.instant() >= deadline {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// One attempt to become or stay the holder; the term if it succeeded.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<Option<i32>, kube::Error> {
        let (api, name) = (&self.client.0, &self.config.name);
        let lease = match api.get_opt(name).await? {
            None => match api.create(&PostParams::default(), &self.first_lease(self.clock.now())).await {
                Ok(created) => return Ok(Some(self.observe(observed, created))),
                Err(failure) if error::is_already_exists(&failure) => return Ok(None),
                Err(failure) => return Err(failure),
            },
            Some(lease) => lease,
        };
        self.observe(observed, lease.clone());
        let Some(mut next) =
            next_lease(&lease, &self.config, self.clock.now(), self.expired(observed.as_ref()))
        else {
            return Ok(None);
        };
        next.metadata.managed_fields = None;
        match api.replace(name, &PostParams::default(), &next).await {
            Ok(written) => Ok(Some(self.observe(observed, written))),
            Err(failure) if error::is_conflict(&failure) || error::is_not_found(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn observe(&self, observed: &mut Option<Observed>, lease: Lease) -> i32 {
        let term = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let unchanged = observed
            .as_ref()
            .is_some_and(|last| last.lease.metadata.resource_version == lease.metadata.resource_version);
        if !unchanged {
            *observed = Some(Observed { lease, at: self.clock.instant() });
        }
        term
    }

    fn expired(&self, observed: Option<&Observed>) -> bool {
        observed.is_none_or(|last| {
            let seconds = last.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
            self.clock.instant() >= last.at + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        })
    }

    fn first_lease(&self, now: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.identity.clone()),
                lease_duration_seconds: Some(seconds(self.config.lease_duration)),
                acquire_time: Some(MicroTime(now)),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The lease as this candidate would write it now; `None` while another instance holds it.
fn next_lease(lease: &Lease, config: &ElectionConfig, now: Timestamp, expired: bool) -> Option<Lease> {
    let mut next = lease.clone();
    let spec = next.spec.get_or_insert_default();
    let holder = spec.holder_identity.as_deref().unwrap_or("");
    let ours = holder == config.identity;
    if !ours && !holder.is_empty() && !expired {
        return None;
    }
    if !ours {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
    }
    spec.holder_identity = Some(config.identity.clone());
    spec.lease_duration_seconds = Some(seconds(config.lease_duration));
    spec.renew_time = Some(MicroTime(now));
    Some(next)
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api<Lease>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, transitions: i32) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        Lease { metadata: ObjectMeta::default(), spec: Some(spec) }
    }

    #[test]
    fn a_lease_changes_hands_only_when_free_or_expired() {
        let config = ElectionConfig::component("kube-scheduler", "me");
        let rows = [
            ("ours is renewed in the same term", "me", false, Some(3)),
            ("another's is left alone", "you", false, None),
            ("an expired one is taken in a new term", "you", true, Some(4)),
            ("a released one is taken in a new term", "", false, Some(4)),
        ];
        for (name, holder, expired, term) in rows {
            let next = next_lease(&lease(holder, 3), &config, Timestamp::UNIX_EPOCH, expired);
            let spec = next.and_then(|lease| lease.spec);
            assert_eq!(spec.as_ref().and_then(|spec| spec.lease_transitions), term, "{name}");
            if let Some(spec) = spec {
                assert_eq!(spec.holder_identity.as_deref(), Some("me"), "{name}");
            }
        }
    }
}
