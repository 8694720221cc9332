//! The checks of the standards, each from the version on that has it.

mod baseline;
mod restricted;

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, Lifecycle, PodSpec, Probe, SecurityContext},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{Level, Standard, Version};
use crate::kinds::list;

/// One thing that a pod does and may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In a few words.
    pub reason: String,
    /// Who does what; may be empty.
    pub detail: String,
}

/// Looks for one thing; says who does it.
type Look = fn(&ObjectMeta, &PodSpec) -> Option<Violation>;

/// A check as it is from one version on.
struct Since {
    minor: u32,
    look: Look,
    /// The checks of the lower level that this one makes needless.
    overrides: &'static [&'static str],
}

struct Check {
    id: &'static str,
    /// From the oldest to the newest.
    versions: &'static [Since],
}

impl Check {
    fn at(&self, version: Version) -> Option<&'static Since> {
        self.versions.iter().rfind(|since| match version {
            Version::Latest => true,
            Version::Minor(minor) => since.minor <= minor,
        })
    }
}

const fn since(minor: u32, look: Look) -> Since {
    Since { minor, look, overrides: &[] }
}

/// Everything that a pod does and a standard does not allow.
pub(super) fn run(standard: Standard, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    let at = |checks: &'static [Check]| {
        checks.iter().filter_map(move |check| Some((check.id, check.at(standard.version)?)))
    };
    let restricted: Vec<_> = match standard.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => at(restricted::CHECKS).collect(),
    };
    let needless: BTreeSet<&str> =
        restricted.iter().flat_map(|(_, since)| since.overrides).copied().collect();
    let baseline = at(baseline::CHECKS).filter(|(id, _)| !needless.contains(id));
    baseline.chain(restricted.iter().copied()).filter_map(|(_, since)| (since.look)(meta, spec)).collect()
}

/// What the checks look at in a container of whatever sort.
struct View<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

/// All containers: those that come first, the ordinary ones, those added for debugging.
fn containers(spec: &PodSpec) -> Vec<View<'_>> {
    let mut all: Vec<View<'_>> = Vec::new();
    for container in list(&spec.init_containers).iter().chain(&spec.containers) {
        let Container { liveness_probe, readiness_probe, startup_probe, .. } = container;
        all.push(View {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: list(&container.ports),
            probes: [liveness_probe.as_ref(), readiness_probe.as_ref(), startup_probe.as_ref()],
            lifecycle: container.lifecycle.as_ref(),
        });
    }
    for container in list(&spec.ephemeral_containers) {
        all.push(View {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: list(&container.ports),
            probes: [
                container.liveness_probe.as_ref(),
                container.readiness_probe.as_ref(),
                container.startup_probe.as_ref(),
            ],
            lifecycle: container.lifecycle.as_ref(),
        });
    }
    all
}

/// The names of the containers for which something is true.
fn which(spec: &PodSpec, mut is: impl FnMut(&View<'_>) -> bool) -> Vec<String> {
    containers(spec)
        .iter()
        .filter(|container| is(container))
        .map(|container| container.name.to_owned())
        .collect()
}

fn is_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
}

/// Whether the users of a pod are nobody on the node.
fn has_own_users(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

/// `"a", "b"`, without escapes.
fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `container "a"`, `containers "a", "b"`
fn named(names: &[String]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// `uses` or `use`, by how many do it.
fn uses(count: usize) -> &'static str {
    if count == 1 { "uses" } else { "use" }
}

/// Who sets something: the pod, containers, or both. None: nobody.
fn setters(pod: bool, containers: &[String]) -> Option<String> {
    let pod = pod.then(|| "pod".to_owned());
    let containers = (!containers.is_empty()).then(|| named(containers));
    let all: Vec<String> = pod.into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}
