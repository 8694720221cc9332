//! Makes sure that a container's image is on the node: pull policy, credentials, events.

pub(crate) mod keyring;
pub(crate) mod name;

use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use client::{Events, Reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{Notify, Semaphore};

use crate::host::Host;
use crate::pod::{Failure, namespace, spec};
use crate::runtime::{Runtime, RuntimeError};
use keyring::Keyring;

/// Pulls beyond this number wait for others to end.
const PULLS_AT_ONCE: usize = 8;
/// The wait after the first pull that failed, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// After this time without a failure the waits start over.
const FORGIVEN: Duration = Duration::from_secs(600);

/// The images of the node.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    runtime: Arc<dyn Runtime>,
    host: Arc<dyn Host>,
    events: Events,
    clock: Clock,
    pulls: Arc<Semaphore>,
    changed: Arc<Notify>,
}

/// An image that a container can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// What the runtime calls it.
    pub(crate) id: String,
    /// The user that the image says to run as, if it is a number.
    pub(crate) uid: Option<i64>,
    /// The user that the image says to run as, if it is a name.
    pub(crate) user: String,
}

/// An image that a container can't be made from, in the words of a waiting container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// How long to wait before an image that could not be pulled is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PullBackoff {
    wait: Duration,
    failed_at: Timestamp,
}

// === impl PullBackoff ===

impl PullBackoff {
    /// The state after a failure at `now`.
    pub(crate) fn after(before: Option<Self>, now: Timestamp) -> Self {
        let forgiven = jiff::SignedDuration::try_from(FORGIVEN).unwrap_or_default();
        let wait = match before {
            Some(before) if now.duration_since(before.failed_at) <= forgiven => {
                (before.wait * 2).min(LONGEST_WAIT)
            }
            _ => FIRST_WAIT,
        };
        Self { wait, failed_at: now }
    }

    pub(crate) fn retry_at(&self) -> Timestamp {
        self.failed_at + self.wait
    }
}

// === impl ImageError ===

impl ImageError {
    /// The failed start of a container with this image. `retry_at` is when to try again.
    pub(crate) fn failure(self, image: &str, at: Timestamp, retry_at: Timestamp) -> Failure {
        let later = (self.reason == "ErrImagePull").then(|| {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", self.message);
            ("ImagePullBackOff".to_owned(), message)
        });
        Failure { reason: self.reason.to_owned(), message: self.message, later, at, retry_at }
    }
}

// === impl Images ===

impl Images {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, host: Arc<dyn Host>, events: Events, clock: Clock) -> Self {
        let pulls = Arc::new(Semaphore::new(PULLS_AT_ONCE));
        Self { runtime, host, events, clock, pulls, changed: Arc::default() }
    }

    /// Returns when an image was pulled since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the container's image, pulled if its policy says so. `about` is the container in events.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        about: &Reference,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Image, ImageError> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let image = name::with_tag(wanted).map_err(|why| {
            let message = format!("Failed to apply default image tag \"{wanted}\": {why}");
            self.events.warning(about, "InspectFailed", &*message);
            ImageError { reason: "InvalidImageName", message }
        })?;
        let present = self.inspect(&image, wanted, about).await?;
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        match (policy, present) {
            ("Never", None) => {
                let message =
                    format!("Container image \"{wanted}\" is not present with pull policy of Never");
                self.events.warning(about, "ErrImageNeverPull", &*message);
                Err(ImageError { reason: "ErrImageNeverPull", message })
            }
            ("Never" | "IfNotPresent", Some(present)) => {
                let message = format!(
                    "Container image \"{wanted}\" already present on machine and can be accessed by the pod"
                );
                self.events.normal(about, "Pulled", message);
                Ok(known(&present))
            }
            _ => self.pull(pod, &image, wanted, about, sandbox).await,
        }
    }

    async fn inspect(
        &self,
        image: &str,
        wanted: &str,
        about: &Reference,
    ) -> Result<Option<cri::Image>, ImageError> {
        self.runtime.image(image).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{wanted}\": {}", error.rpc_text());
            self.events.warning(about, "InspectFailed", &*message);
            ImageError { reason: "ImageInspectError", message }
        })
    }

    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        wanted: &str,
        about: &Reference,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Image, ImageError> {
        let asked = self.clock.instant();
        self.events.normal(about, "Pulling", format!("Pulling image \"{wanted}\""));
        let keyring = self.keyring(pod).await;
        // The semaphore is never closed.
        let _turn = self.pulls.acquire().await;
        let started = self.clock.instant();
        let reference = match self.pull_with(image, &keyring, sandbox).await {
            Ok(reference) => reference,
            Err(error) => {
                let text = error.rpc_text();
                self.events.warning(about, "Failed", format!("Failed to pull image \"{wanted}\": {text}"));
                return Err(ImageError { reason: "ErrImagePull", message: text });
            }
        };
        self.changed.notify_one();
        let now = self.clock.instant();
        let found = self.inspect(image, wanted, about).await?;
        let size = found.as_ref().map_or(0, |found| found.size);
        self.events.normal(
            about,
            "Pulled",
            format!(
                "Successfully pulled image \"{wanted}\" in {} ({} including waiting). Image size: {size} bytes.",
                milliseconds(now - started),
                milliseconds(now - asked)
            ),
        );
        let none = || Image { id: reference.clone(), uid: None, user: String::new() };
        Ok(found.as_ref().map_or_else(none, known))
    }

    /// Tries the credentials that fit the image, the most specific first.
    async fn pull_with(
        &self,
        image: &str,
        keyring: &Keyring,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<String, RuntimeError> {
        let mut credentials = keyring.matching(image).into_iter();
        let mut answer = self.runtime.pull_image(image, credentials.next(), sandbox.clone()).await;
        for credential in credentials {
            if answer.is_ok() {
                break;
            }
            answer = self.runtime.pull_image(image, Some(credential), sandbox.clone()).await;
        }
        answer
    }

    async fn keyring(&self, pod: &Pod) -> Keyring {
        let mut keyring = Keyring::default();
        let mut missing = Vec::new();
        for reference in spec(pod).image_pull_secrets.iter().flatten() {
            match self.host.secret(namespace(pod), &reference.name).await {
                Ok(Some(secret)) => keyring.add(&secret),
                Ok(None) | Err(_) => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.events.warning(&Reference::to(pod), "FailedToRetrieveImagePullSecret", message);
        }
        keyring
    }
}

fn known(image: &cri::Image) -> Image {
    Image { id: image.id.clone(), uid: image.uid.as_ref().map(|uid| uid.value), user: image.username.clone() }
}

/// A duration in Go's words, to the millisecond.
fn milliseconds(duration: Duration) -> String {
    let total = duration.as_millis();
    if total < 1000 {
        return format!("{total}ms");
    }
    let (minutes, rest) = (total / 60_000, total % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_go_tells_them() {
        for (millis, expected) in
            [(0, "0ms"), (357, "357ms"), (1200, "1.2s"), (2000, "2s"), (61_005, "1m1.005s")]
        {
            assert_eq!(milliseconds(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_pull_that_keeps_failing_waits_10_s_doubling_to_5_minutes() {
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut backoff = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let after = PullBackoff::after(backoff, now);
            waits.push(after.retry_at().duration_since(now).as_secs());
            now = after.retry_at();
            backoff = Some(after);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        let later = PullBackoff::after(backoff, now + Duration::from_secs(700));
        assert_eq!(later.wait, FIRST_WAIT);
    }
}
