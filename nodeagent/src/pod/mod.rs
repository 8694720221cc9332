//! PURE: what to do next for a pod, and what to tell the API about it. No IO, no async, no clock: the
//! state of the runtime, the results of probes and the time are arguments.
//!
//! - [`plan`]: from a [`View`] to the next [`Action`]s, and when to look again;
//! - [`status`]: from a [`View`] to the `PodStatus` for the API;
//! - [`backoff`], [`probe`]: the two small state machines behind them;
//! - [`admission`]: whether the node takes the pod at all;
//! - [`environment`], [`network`], [`security`], [`resources`], [`sandbox`]: the parts of what a container is told.
//!
//! ```text
//! seen ─► admitted ─► sandbox ─► init containers ─► containers ⇄ restart with backoff
//!   │                                                   │
//!   └► rejected (Failed)        deleted, past its deadline, or all done
//!                                                       ▼
//!                            killed ─► final status ─► files removed ─► gone from the API
//! ```

pub mod admission;
pub mod backoff;
pub mod environment;
pub mod network;
pub mod observed;
pub mod plan;
pub mod probe;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use observed::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
pub use plan::{Action, KillReason, Plan, plan};

/// Everything that a decision about one pod depends on.
#[derive(Debug)]
pub struct View<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// By container id. A container without an entry has no result yet.
    pub probes: &'a BTreeMap<String, ProbeResults>,
    /// By container name: why the last attempt to start it failed.
    pub failures: &'a BTreeMap<String, Failure>,
    /// By container name.
    pub backoff: &'a BTreeMap<String, backoff::Backoff>,
    pub sandbox_failure: Option<&'a Failure>,
    /// The node did not take this pod.
    pub rejection: Option<&'a Rejection>,
    /// When the node took the pod.
    pub start_time: Timestamp,
    /// The pod is gone from the API: there is nobody to write a status for.
    pub gone: bool,
    pub now: Timestamp,
    /// The runtime's name, the scheme of container ids in the API.
    pub runtime: &'a str,
    pub host_ips: &'a [String],
}

/// What the probes of one running container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// The startup probe has succeeded; true without one.
    pub started: bool,
    /// The readiness probe's last word; true without one.
    pub ready: bool,
    /// A liveness or startup probe gave the container up.
    pub failed: Option<ProbeKind>,
}

/// The three kinds of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

/// Why something could not be started, in the words of a waiting container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    /// Reason and message that are shown instead once the error itself was shown for a while.
    pub later: Option<(String, String)>,
    pub at: Timestamp,
    /// Not to be tried again before.
    pub retry_at: Timestamp,
}

/// The node refuses a pod: it becomes `Failed` with these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// Which of the pod's container lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    /// A restartable init container: runs beside the main containers.
    Sidecar,
    Main,
    Ephemeral,
}

// === impl ProbeKind ===

impl ProbeKind {
    /// As in `Liveness probe failed: …`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

// === helpers on the spec ===

/// The pod's spec; an empty one if the object has none.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as pods are called in messages.
pub fn title(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn main_containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An init container that runs beside the main ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub fn uses_host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

/// A container of any list by name, as an ordinary container.
pub fn find_container(pod: &Pod, name: &str) -> Option<(Container, Role)> {
    if let Some(found) = main_containers(pod).iter().find(|container| container.name == name) {
        return Some((found.clone(), Role::Main));
    }
    if let Some(found) = init_containers(pod).iter().find(|container| container.name == name) {
        let role = if is_sidecar(found) { Role::Sidecar } else { Role::Init };
        return Some((found.clone(), role));
    }
    let found = ephemeral_containers(pod).iter().find(|container| container.name == name)?;
    Some((ephemeral_as_container(found), Role::Ephemeral))
}

/// The fields that an ephemeral container shares with ordinary ones.
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let source = ephemeral.clone();
    Container {
        args: source.args,
        command: source.command,
        env: source.env,
        env_from: source.env_from,
        image: source.image,
        image_pull_policy: source.image_pull_policy,
        name: source.name,
        resources: source.resources,
        security_context: source.security_context,
        stdin: source.stdin,
        stdin_once: source.stdin_once,
        termination_message_path: source.termination_message_path,
        termination_message_policy: source.termination_message_policy,
        tty: source.tty,
        volume_mounts: source.volume_mounts,
        working_dir: source.working_dir,
        ..Container::default()
    }
}

/// The path of a container in events, as `spec.containers{web}`.
pub fn field_path(role: Role, name: &str) -> String {
    match role {
        Role::Init | Role::Sidecar => format!("spec.initContainers{{{name}}}"),
        Role::Main => format!("spec.containers{{{name}}}"),
        Role::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

/// What makes a running container another one when it changes in the spec: its name and its image.
pub fn container_hash(container: &Container) -> String {
    // FNV-1a: stable over versions of the compiler, which the standard library's hasher isn't.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in
        container.name.bytes().chain([0]).chain(container.image.as_deref().unwrap_or_default().bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

/// A time as the API shows it, in whole seconds.
pub fn api_time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// A duration in Go's words: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The grace that the API gives a pod to end: what the deletion says, else what the spec says.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let deletion =
        pod.metadata.deletion_grace_period_seconds.filter(|_| pod.metadata.deletion_timestamp.is_some());
    deletion.or(spec(pod).termination_grace_period_seconds).unwrap_or(30).max(0)
}

/// True when the API says that the pod has come to its end.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
