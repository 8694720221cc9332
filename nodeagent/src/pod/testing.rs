//! Builders of pods and of what a runtime says of them, for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec, Probe, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::backoff::Backoff;
use super::{
    ContainerState, Failure, Observed, ObservedContainer, ObservedSandbox, Plan, ProbeKind, ProbeResults,
    Rejection, View, container_hash,
};

pub(crate) struct PodBuilder(Pod);

pub(crate) struct ContainerBuilder(Container);

pub(crate) fn pod() -> PodBuilder {
    let mut pod = Pod::default();
    pod.metadata.name = Some("web".into());
    pod.metadata.namespace = Some("default".into());
    pod.metadata.uid = Some("uid-web".into());
    pod.metadata.generation = Some(1);
    pod.spec = Some(PodSpec::default());
    PodBuilder(pod)
}

pub(crate) fn container(name: &str) -> ContainerBuilder {
    ContainerBuilder(Container {
        name: name.into(),
        image: Some(format!("{name}:1")),
        ..Container::default()
    })
}

impl PodBuilder {
    fn spec(&mut self) -> &mut PodSpec {
        self.0.spec.get_or_insert_default()
    }

    pub(crate) fn with(mut self, container: ContainerBuilder) -> Self {
        self.spec().containers.push(container.0);
        self
    }

    pub(crate) fn init(mut self, container: ContainerBuilder) -> Self {
        self.spec().init_containers.get_or_insert_default().push(container.0);
        self
    }

    pub(crate) fn policy(mut self, policy: &str) -> Self {
        self.spec().restart_policy = Some(policy.into());
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    pub(crate) fn build(self) -> Pod {
        self.0
    }
}

impl ContainerBuilder {
    /// `r.cpu=1 l.memory=1Gi`: requests and limits.
    pub(crate) fn resources(mut self, text: &str) -> Self {
        let mut resources = ResourceRequirements::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap();
            let (kind, name) = key.split_once('.').unwrap();
            let list = if kind == "r" { &mut resources.requests } else { &mut resources.limits };
            list.get_or_insert_default().insert(name.into(), Quantity(value.into()));
        }
        self.0.resources = Some(resources);
        self
    }

    pub(crate) fn sidecar(mut self) -> Self {
        self.0.restart_policy = Some("Always".into());
        self
    }

    pub(crate) fn host_port(mut self, port: i32) -> Self {
        let port = ContainerPort { container_port: port, host_port: Some(port), ..ContainerPort::default() };
        self.0.ports.get_or_insert_default().push(port);
        self
    }

    pub(crate) fn liveness_grace(mut self, seconds: i64) -> Self {
        self.0.liveness_probe =
            Some(Probe { termination_grace_period_seconds: Some(seconds), ..Probe::default() });
        self
    }
}

/// Everything a view borrows, with a clock that is moved by hand.
pub(crate) struct World {
    pub(crate) pod: Pod,
    pub(crate) observed: Observed,
    pub(crate) probes: BTreeMap<String, ProbeResults>,
    pub(crate) failures: BTreeMap<String, Failure>,
    pub(crate) backoff: BTreeMap<String, Backoff>,
    pub(crate) sandbox_failure: Option<Failure>,
    pub(crate) rejection: Option<Rejection>,
    pub(crate) gone: bool,
    pub(crate) now: Timestamp,
    host_ips: Vec<String>,
}

/// Seconds on the clock of the tests.
pub(crate) fn at(seconds: u64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(seconds)
}

impl World {
    pub(crate) fn new(pod: PodBuilder) -> Self {
        Self {
            pod: pod.build(),
            observed: Observed::default(),
            probes: BTreeMap::new(),
            failures: BTreeMap::new(),
            backoff: BTreeMap::new(),
            sandbox_failure: None,
            rejection: None,
            gone: false,
            now: at(100),
            host_ips: vec!["192.0.2.1".into()],
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            pod: &self.pod,
            observed: &self.observed,
            probes: &self.probes,
            failures: &self.failures,
            backoff: &self.backoff,
            sandbox_failure: self.sandbox_failure.as_ref(),
            rejection: self.rejection.as_ref(),
            start_time: at(0),
            gone: self.gone,
            now: self.now,
            runtime: "fake",
            host_ips: &self.host_ips,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        super::plan(&self.view())
    }

    pub(crate) fn sandbox(mut self, id: &str, ready: bool) -> Self {
        let attempt = id.trim_start_matches('s').parse().unwrap_or(0);
        let ips = vec!["10.0.0.5".into()];
        self.observed.merge_sandbox(ObservedSandbox {
            id: id.into(),
            attempt,
            ready,
            created_at: at(1),
            ips,
        });
        self
    }

    /// A container in the newest sandbox; `state` is `created`, `running` or an exit code. A running one without
    /// probes is started and ready.
    pub(crate) fn container(mut self, name: &str, attempt: u32, state: &str) -> Self {
        let (container, _) = super::find_container(&self.pod, name).unwrap();
        let id = format!("{name}-{attempt}");
        let (observed_state, exit_code) = match state {
            "created" => (ContainerState::Created, 0),
            "running" => (ContainerState::Running, 0),
            code => (ContainerState::Exited, code.parse().unwrap()),
        };
        let sandbox = self.observed.sandbox().map(|sandbox| sandbox.id.clone()).unwrap_or_default();
        let started = at(10 + u64::from(attempt));
        self.observed.merge_container(ObservedContainer {
            id: id.clone(),
            sandbox,
            name: name.into(),
            attempt,
            state: observed_state,
            created_at: started,
            started_at: (observed_state != ContainerState::Created).then_some(started),
            finished_at: (observed_state == ContainerState::Exited).then_some(at(90)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: container.image.clone().unwrap_or_default(),
            image_id: "sha256:1".into(),
            hash: container_hash(&container),
            user: None,
        });
        if observed_state == ContainerState::Running {
            self.probes.insert(id, ProbeResults { started: true, ready: true, failed: None });
        }
        self
    }

    pub(crate) fn probe(mut self, id: &str, started: bool, ready: bool, failed: Option<ProbeKind>) -> Self {
        self.probes.insert(id.into(), ProbeResults { started, ready, failed });
        self
    }

    pub(crate) fn backoff(mut self, name: &str, delay: u64) -> Self {
        self.backoff.insert(name.into(), Backoff { delay: Duration::from_secs(delay), updated: at(80) });
        self
    }

    pub(crate) fn failure(mut self, name: &str, reason: &str, retry_at: u64) -> Self {
        let failure = Failure {
            reason: reason.into(),
            message: format!("{reason} happened"),
            later: None,
            at: at(95),
            retry_at: at(retry_at),
        };
        self.failures.insert(name.into(), failure);
        self
    }

    pub(crate) fn deleted(mut self, grace: i64) -> Self {
        self.pod.metadata.deletion_timestamp = Some(super::api_time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut PodSpec)) -> Self {
        change(self.pod.spec.get_or_insert_default());
        self
    }
}

/// Actions as short words, for tables.
pub(crate) fn describe(plan: &Plan) -> String {
    use super::Action;
    let actions: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::CreateSandbox { attempt } => format!("sandbox#{attempt}"),
            Action::StartContainer { name, attempt, .. } => format!("start {name}#{attempt}"),
            Action::KillContainer { name, reason, grace, .. } => {
                format!("kill {name} {reason:?} {}s", grace.as_secs())
            }
            Action::KillPod { reason, grace } => format!("kill pod {reason:?} {}s", grace.as_secs()),
            Action::Collect { containers, sandboxes } => {
                format!("collect {} {}", containers.join(","), sandboxes.join(","))
            }
            Action::Finish => "finish".to_owned(),
        })
        .collect();
    let wake = plan.wake.map(|wake| format!(" until {}", wake.duration_since(at(0)).as_secs()));
    format!("{}{}", actions.join("; "), wake.unwrap_or_default())
}
