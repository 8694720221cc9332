//! From what the runtime answers to what is known of a pod.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::pod::observed::User;
use crate::pod::sandbox::{CONTAINER_NAME, HASH, POD_UID, RESTART_COUNT};
use crate::pod::{ContainerState, Observed, ObservedContainer, ObservedSandbox};
use crate::runtime::{Runtime, RuntimeError};

/// How many statuses are asked for at once.
const ASK_AT_ONCE: usize = 16;

/// A time of the runtime, in nanoseconds; 0 is none.
pub(crate) fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

/// The uid of the pod that a labelled object of the runtime belongs to.
pub(crate) fn uid_of(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(POD_UID).map(String::as_str).filter(|uid| !uid.is_empty())
}

/// What a sandbox's status says.
pub(crate) fn sandbox(status: &cri::PodSandboxStatus) -> ObservedSandbox {
    let network = status.network.as_ref();
    let first = network.map(|network| network.ip.clone()).filter(|ip| !ip.is_empty());
    let others = network.into_iter().flat_map(|network| &network.additional_ips).map(|ip| ip.ip.clone());
    ObservedSandbox {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: status.state() == cri::PodSandboxState::SandboxReady,
        created_at: time(status.created_at).unwrap_or_default(),
        ips: first.into_iter().chain(others).collect(),
    }
}

/// What a container's status says. The status doesn't name the sandbox.
pub(crate) fn container(status: &cri::ContainerStatus, sandbox: &str) -> ObservedContainer {
    let metadata = status.metadata.clone().unwrap_or_default();
    let state = match status.state() {
        cri::ContainerState::ContainerCreated => ContainerState::Created,
        cri::ContainerState::ContainerRunning => ContainerState::Running,
        // A container that the runtime has lost is as good as ended.
        cri::ContainerState::ContainerExited | cri::ContainerState::ContainerUnknown => {
            ContainerState::Exited
        }
    };
    let attempt = status.annotations.get(RESTART_COUNT).and_then(|count| count.parse().ok());
    let image = status.image.as_ref().map(|image| {
        if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image }.clone()
    });
    let image_id = if status.image_ref.is_empty() { &status.image_id } else { &status.image_ref };
    ObservedContainer {
        id: status.id.clone(),
        sandbox: sandbox.to_owned(),
        name: status.labels.get(CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: attempt.unwrap_or(metadata.attempt),
        state,
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        image: image.unwrap_or_default(),
        image_id: image_id.clone(),
        hash: status.annotations.get(HASH).cloned().unwrap_or_default(),
        user: status.user.as_ref().and_then(|user| user.linux.as_ref()).map(|user| User {
            uid: user.uid,
            gid: user.gid,
            groups: user.supplemental_groups.clone(),
        }),
    }
}

/// The state of a container now; `None` if the runtime has none of this id.
pub(crate) async fn ask_container(
    runtime: &dyn Runtime,
    id: &str,
    sandbox: &str,
) -> Result<Option<ObservedContainer>, RuntimeError> {
    match runtime.container_status(id).await {
        Ok(status) => Ok(Some(container(&status, sandbox))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The state of a sandbox now; `None` if the runtime has none of this id.
pub(crate) async fn ask_sandbox(
    runtime: &dyn Runtime,
    id: &str,
) -> Result<Option<ObservedSandbox>, RuntimeError> {
    match runtime.sandbox_status(id).await {
        Ok(status) => Ok(Some(sandbox(&status))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A pod as the runtime knows it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) observed: Observed,
    /// The labels of its sandbox, from which an unknown pod is told of.
    pub(crate) labels: HashMap<String, String>,
    /// Annotations by container name.
    pub(crate) containers: HashMap<String, HashMap<String, String>>,
}

/// What is new between two listings.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By the pod's uid. What carries no uid belongs to somebody else.
    pub(crate) changed: HashMap<String, Found>,
    /// The pod's uid and the id of what the runtime no longer has.
    pub(crate) removed: Vec<(String, String)>,
}

/// Lists what the runtime has, and asks for the details only of what has changed.
#[derive(Debug, Default)]
pub(crate) struct Lister {
    /// By id: the pod's uid and the state.
    known: HashMap<String, (String, i32)>,
}

impl Lister {
    /// Everything that changed since the last listing or note.
    pub(crate) async fn list(&mut self, runtime: &dyn Runtime) -> Result<Listing, RuntimeError> {
        let (sandboxes, containers) =
            futures::try_join!(runtime.list_sandboxes(None), runtime.list_containers(None))?;
        let mut now = HashMap::new();
        let mut listing = Listing::default();
        let is_new = |now: &mut HashMap<String, (String, i32)>, id: &str, uid: &str, state: i32| {
            now.insert(id.to_owned(), (uid.to_owned(), state));
            self.known.get(id).is_none_or(|(_, before)| *before != state)
        };
        let mut asked = Vec::new();
        for sandbox in sandboxes {
            let Some(uid) = uid_of(&sandbox.labels).map(str::to_owned) else { continue };
            if is_new(&mut now, &sandbox.id, &uid, sandbox.state) {
                asked.push((uid, sandbox));
            }
        }
        let answers = stream::iter(asked)
            .map(|(uid, listed)| async move {
                Ok::<_, RuntimeError>((uid, ask_sandbox(runtime, &listed.id).await?, listed.labels))
            })
            .buffer_unordered(ASK_AT_ONCE);
        let answers: Vec<_> = answers.try_collect().await?;
        for (uid, sandbox, labels) in answers {
            let found = listing.changed.entry(uid).or_default();
            found.labels = labels;
            sandbox.into_iter().for_each(|sandbox| found.observed.merge_sandbox(sandbox));
        }
        let mut asked = Vec::new();
        for container in containers {
            let Some(uid) = uid_of(&container.labels).map(str::to_owned) else { continue };
            if is_new(&mut now, &container.id, &uid, container.state) {
                asked.push((uid, container));
            }
        }
        let answers = stream::iter(asked)
            .map(|(uid, listed)| async move {
                let state = ask_container(runtime, &listed.id, &listed.pod_sandbox_id).await?;
                Ok::<_, RuntimeError>((uid, state, listed))
            })
            .buffer_unordered(ASK_AT_ONCE);
        let answers: Vec<_> = answers.try_collect().await?;
        for (uid, container, listed) in answers {
            let found = listing.changed.entry(uid).or_default();
            if found.labels.is_empty() {
                found.labels = listed.labels;
            }
            if let Some(container) = container {
                found.containers.insert(container.name.clone(), listed.annotations);
                found.observed.merge_container(container);
            }
        }
        let gone = self.known.iter().filter(|(id, _)| !now.contains_key(*id));
        listing.removed = gone.map(|(id, (uid, _))| (uid.clone(), id.clone())).collect();
        self.known = now;
        Ok(listing)
    }

    /// Takes over an event of the runtime. Returns the pod's uid and what the event tells.
    pub(crate) fn note(&mut self, event: &cri::ContainerEventResponse) -> Option<(String, Noted)> {
        let of_sandbox = event.pod_sandbox_status.as_ref();
        let uid = of_sandbox
            .and_then(|status| uid_of(&status.labels))
            .or_else(|| event.containers_statuses.iter().find_map(|status| uid_of(&status.labels)))
            .map(str::to_owned)
            .or_else(|| self.known.get(&event.container_id).map(|(uid, _)| uid.clone()))?;
        let mut noted = Noted::default();
        if let Some(status) = of_sandbox {
            self.known.insert(status.id.clone(), (uid.clone(), status.state));
            noted.sandbox = Some(sandbox(status));
            for status in &event.containers_statuses {
                self.known.insert(status.id.clone(), (uid.clone(), status.state));
                noted.containers.push(container(status, &noted.sandbox.as_ref()?.id));
            }
        }
        if event.container_event_type() == cri::ContainerEventType::ContainerDeletedEvent {
            self.known.remove(&event.container_id);
            noted.removed = Some(event.container_id.clone());
        }
        Some((uid, noted))
    }
}

/// What an event tells of a pod.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) sandbox: Option<ObservedSandbox>,
    pub(crate) containers: Vec<ObservedContainer>,
    pub(crate) removed: Option<String>,
}
