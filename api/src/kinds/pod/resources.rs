//! Rules for requests and limits of resources.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeSet,
};

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceRequirements};

use super::containers::is_sidecar;
use crate::{
    field::{Errors, FieldError, Path},
    kinds::{
        amount::{Amount, Amounts},
        check::{dns_label, list, problems},
    },
    name,
};

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Container,
    Pod,
}

/// The names of the resource claims of a pod.
#[derive(Default)]
pub(crate) struct Claims {
    names: BTreeSet<String>,
    /// All names in one line.
    line: OnceCell<String>,
    /// The bytes that were spent on telling them to who names another one.
    spent: Cell<usize>,
}

impl Claims {
    /// The bytes that may be spent so; the list is told again and again, and may be as long as the pod.
    const MOST: usize = 1 << 20;

    pub(super) fn of(claims: &[PodResourceClaim]) -> Self {
        let names = claims.iter().map(|claim| claim.name.clone()).filter(|name| !name.is_empty());
        Self { names: names.collect(), ..Self::default() }
    }

    fn told(&self) -> String {
        let what = "must be one of the names in pod.spec.resourceClaims";
        if self.names.is_empty() {
            return format!("{what} which is empty");
        }
        let names = || self.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let line = self.line.get_or_init(names);
        if self.spent.get() > Self::MOST {
            return what.to_owned();
        }
        self.spent.set(self.spent.get() + line.len());
        format!("{what}: {line}")
    }
}

/// Requests and limits.
pub(crate) fn validate(
    errors: &mut Errors,
    requirements: &ResourceRequirements,
    owner: Owner,
    claims: &Claims,
    path: &Path,
) {
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    let (mut compute, mut huge) = (false, false);
    for (resource, text) in requirements.limits.iter().flatten() {
        let at = limits_at.key(resource);
        name_of(errors, resource, owner, &at);
        let Some(amount) = Amount::of(text) else { continue };
        value(errors, resource, amount, &at);
        huge |= huge_page(errors, resource, amount, &at);
        compute |= matches!(resource.as_str(), "cpu" | "memory");
    }
    for (resource, text) in requirements.requests.iter().flatten() {
        let at = requests_at.key(resource);
        name_of(errors, resource, owner, &at);
        let Some(amount) = Amount::of(text) else { continue };
        value(errors, resource, amount, &at);
        match requirements.limits.as_ref().and_then(|l| l.get(resource)).and_then(Amount::of) {
            Some(limit) if amount != limit && !may_overcommit(resource) => {
                let detail = format!("must be equal to {resource} limit of {}", *limit);
                errors.push(FieldError::invalid(&requests_at, amount.to_string(), detail));
            }
            Some(limit) if amount > limit => {
                let detail = format!("must be less than or equal to {resource} limit of {}", *limit);
                errors.push(FieldError::invalid(&requests_at, amount.to_string(), detail));
            }
            Some(_) => {}
            None if !may_overcommit(resource) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_at, detail));
            }
            None => {}
        }
        huge |= huge_page(errors, resource, amount, &at);
        compute |= matches!(resource.as_str(), "cpu" | "memory");
    }
    if huge && !compute {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    claim_names(errors, requirements, claims, &path.child("claims"));
}

/// Names with a domain are extended resources, except those of Kubernetes itself.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

fn is_huge_page(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// Whether limits of the resource may be above its requests.
pub(crate) fn may_overcommit(resource: &str) -> bool {
    is_native(resource) && !is_huge_page(resource)
}

/// A resource that a quota knows without a domain.
pub(crate) fn is_standard_for_quota(resource: &str) -> bool {
    matches!(
        resource,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.storage"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    ) || is_counted(resource)
        || is_huge_page(resource)
        || resource.starts_with("requests.hugepages-")
}

/// The name of any resource: one that Kubernetes knows, or one with a domain.
pub(crate) fn standard_name(errors: &mut Errors, resource: &str, path: &Path) {
    let found = name::qualified_name(resource);
    if !found.is_empty() {
        problems(errors, path, resource, found);
    } else if !resource.contains('/') && resource != "storage" && !is_standard_for_quota(resource) {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, resource, detail));
    }
}

/// Objects that a quota counts by a name of their own.
fn is_counted(resource: &str) -> bool {
    matches!(
        resource,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    )
}

/// A resource counted in whole units.
fn is_integer(resource: &str) -> bool {
    is_counted(resource) || is_extended(resource)
}

/// A resource that somebody else than Kubernetes defines.
pub(crate) fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && name::qualified_name(&format!("requests.{resource}")).is_empty()
}

/// The name of a resource.
pub(crate) fn name_of(errors: &mut Errors, resource: &str, owner: Owner, path: &Path) {
    let found = name::qualified_name(resource);
    if !found.is_empty() {
        problems(errors, path, resource, found);
        return;
    }
    if owner == Owner::Pod {
        let supported = matches!(resource, "cpu" | "memory") || is_huge_page(resource);
        if !supported {
            let supported = ["cpu", "memory", "hugepages-"];
            errors.push(FieldError::not_supported(path, resource, &supported[..2]));
        }
        return;
    }
    if !resource.contains('/') {
        let standard = matches!(resource, "cpu" | "ephemeral-storage" | "memory") || is_huge_page(resource);
        if !standard {
            errors.push(FieldError::invalid(path, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        errors.push(FieldError::invalid(path, resource, "doesn't follow extended resource name standard"));
    }
}

/// An amount is not negative, and whole where the resource comes in whole units.
pub(crate) fn value(errors: &mut Errors, resource: &str, amount: Amount, path: &Path) {
    if amount.is_negative() {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path, amount.to_string(), detail));
    }
    if is_integer(resource) && !amount.is_integer() {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

fn huge_page(errors: &mut Errors, resource: &str, amount: Amount, path: &Path) -> bool {
    let Some(size) = resource.strip_prefix("hugepages-") else { return false };
    let page = crate::quantity::Quantity::parse(size).map(|q| q.value()).unwrap_or_default();
    let value = amount.value();
    if !(page > 0 && value % page == 0) || value < 0 {
        let detail = format!("{} is not positive integer multiple of {resource}", *amount);
        errors.push(FieldError::invalid(path, amount.to_string(), detail));
    }
    true
}

fn claim_names(errors: &mut Errors, requirements: &ResourceRequirements, known: &Claims, path: &Path) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in list(&requirements.claims).iter().enumerate() {
        let at = path.index(i);
        if claim.name.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        if seen.contains(&claim.name) {
            errors.push(FieldError::duplicate(&at, &claim.name));
        } else {
            let mut key = claim.name.clone();
            match claim.request.as_deref().filter(|r| !r.is_empty()) {
                Some(request) => {
                    dns_label(errors, &at.child("request"), request);
                    key = format!("{key}/{request}");
                    if seen.contains(&key) {
                        errors.push(FieldError::duplicate(&at, &key));
                    }
                }
                None => {
                    let prefix = format!("{key}/");
                    for _ in seen.range(prefix.clone()..).take_while(|k| k.starts_with(&prefix)) {
                        errors.push(FieldError::duplicate(&at, &claim.name));
                    }
                }
            }
            seen.insert(key);
        }
        if !known.names.contains(&claim.name) {
            let mut error = FieldError::not_found(&at, &claim.name);
            error.detail = known.told();
            errors.push(error);
        }
    }
}

/// The resources of the pod as a whole.
pub(super) fn validate_pod(errors: &mut Errors, spec: &PodSpec, claims: &Claims, path: &Path) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.is_some() {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), detail));
    }
    validate(errors, resources, Owner::Pod, claims, path);
    for (resource, wanted) in aggregate_requests(spec) {
        let given = resources.requests.as_ref().and_then(|r| r.get(&resource)).and_then(Amount::of);
        let at = path.child("requests").key(&resource);
        if given.is_none_or(|given| wanted > given) {
            let shown = given.map_or_else(|| "0".to_owned(), |g| g.to_string());
            let detail =
                format!("must be greater than or equal to aggregate container requests of {}", *wanted);
            errors.push(FieldError::invalid(&at, shown, detail));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for (resource, limit) in limits.into_iter().flatten() {
            let pod = resources.limits.as_ref().and_then(|l| l.get(resource)).and_then(Amount::of);
            if let (Some(limit), Some(pod)) = (Amount::of(limit), pod)
                && limit > pod
            {
                let at = path.child("containers").index(i).key(resource).child("limits");
                let detail = format!("must be less than or equal to pod limits of {}", *pod);
                errors.push(FieldError::invalid(&at, limit.to_string(), detail));
            }
        }
    }
}

/// What the containers of a pod request together: all regular ones and sidecars, or more while it starts.
pub(super) fn aggregate_requests(spec: &PodSpec) -> Vec<(String, Amount)> {
    type Sums = std::collections::BTreeMap<String, Amount>;
    fn add(sums: &mut Sums, amounts: Option<&Amounts>) {
        for (resource, text) in amounts.into_iter().flatten() {
            if let Some(amount) = Amount::of(text) {
                sums.entry(resource.clone()).and_modify(|sum| *sum = sum.plus(amount)).or_insert(amount);
            }
        }
    }
    fn raise(sums: &mut Sums, resource: &str, to: Amount) {
        let sum = sums.entry(resource.to_owned()).or_insert(to);
        *sum = (*sum).max(to);
    }
    let (mut running, mut sidecars, mut starting) = (Sums::new(), Sums::new(), Sums::new());
    for container in &spec.containers {
        add(&mut running, container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    }
    for container in list(&spec.init_containers) {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let sidecar = is_sidecar(container);
        if sidecar {
            add(&mut running, requests);
            add(&mut sidecars, requests);
        }
        // Of the resources that this container does not ask for, no more is in use than before.
        for (resource, text) in requests.into_iter().flatten() {
            let Some(own) = Amount::of(text) else { continue };
            let before = sidecars.get(resource).copied();
            let now = if sidecar { before } else { before.map(|sum| sum.plus(own)) };
            raise(&mut starting, resource, now.unwrap_or(own));
        }
    }
    for (resource, amount) in starting {
        raise(&mut running, &resource, amount);
    }
    running.into_iter().collect()
}
