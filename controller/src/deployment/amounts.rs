//! How many pods there should be, may be, and must be.

use k8s_openapi::api::apps::v1::{Deployment, RollingUpdateDeployment};

use crate::scaled::{Round, scaled};

/// The strategy is `Recreate`.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The wanted number of pods.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods there may be beyond the wanted number while rolling.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if recreates(deployment) { 0 } else { fenceposts(deployment).0 }
}

/// How many of the wanted pods may be missing while rolling.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if recreates(deployment) { 0 } else { fenceposts(deployment).1.min(wanted(deployment)) }
}

/// Surge rounded up and unavailability rounded down. When both come out as nothing (1% of few pods), one pod
/// may be missing, or nothing would ever move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let empty = RollingUpdateDeployment::default();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref()).unwrap_or(&empty);
    let amount = |value: Option<_>, round| {
        value.and_then(|value| scaled(value, wanted(deployment), round)).unwrap_or(0).max(0)
    };
    let surge = amount(rolling.max_surge.as_ref(), Round::Up);
    let unavailable = amount(rolling.max_unavailable.as_ref(), Round::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Seconds without progress after which the deployment counts as stuck; `None` if it never does.
pub(super) fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
    seconds.filter(|seconds| *seconds != i32::MAX)
}
