//! What the rules of webhooks share: where a hook is called, and, for admission, which requests it is called for.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    admission_rule::{self, FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES},
    check::{list, one_of, problems, same, selector},
    format::fully_qualified_name,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    schema::given::{EMPTY, Given, Way},
};

/// The versions of AdmissionReview and ConversionReview that a hook may speak.
pub(super) const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
/// A side effect that was given as an empty text is told from one that was not given.
pub(super) const GIVEN: &[Given] = &[("webhooks.sideEffects", Way::Marked)];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

/// Where a hook of a service is.
pub(super) struct Service<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: Option<&'a str>,
    pub port: i32,
}

/// Checks that exactly one of URL and service is given, and that one.
pub(super) fn target(errors: &mut Errors, path: &Path, at: Option<&str>, service: Option<Service<'_>>) {
    match (at, service) {
        (Some(given), None) => url(errors, &path.child("url"), given),
        (None, Some(given)) => self::service(errors, &path.child("service"), &given),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// A URL taken apart as Go does, as far as the checks look at it.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

fn parts(url: &str) -> Result<Parts<'_>, String> {
    let wrong = |why: &str| Err(format!("parse {}: {why}", crate::field::quote(url)));
    if url.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return wrong("net/url: invalid control character in URL");
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let letters = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = match rest.split_once(':') {
        Some(("", _)) => return wrong("missing protocol scheme"),
        Some((scheme, rest)) if letters(scheme) => (scheme, rest),
        Some((segment, _)) if !segment.contains('/') && !segment.contains('?') => {
            return wrong("first path segment in URL cannot contain colon");
        }
        _ => ("", rest),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = match authority.unwrap_or_default().rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority.unwrap_or_default()),
    };
    Ok(Parts { scheme, user, host, query, fragment })
}

/// Whether a text is a URL with a scheme and a host.
pub(super) fn is_absolute(value: &str) -> bool {
    parts(value).is_ok_and(|url| !url.scheme.is_empty() && !url.host.is_empty())
}

fn url(errors: &mut Errors, path: &Path, value: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match parts(value) {
        Ok(url) => url,
        Err(why) => {
            errors.push(FieldError::required(path, format!("url must be a valid URL: {why}{FORM}")));
            return;
        }
    };
    let scheme = url.scheme.to_lowercase();
    let mut refuse = |bad: &str, why: String| errors.push(FieldError::invalid(path, bad, why));
    if scheme != "https" {
        refuse(&scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        refuse("", format!("host must be provided{FORM}"));
    }
    if let Some(user) = url.user {
        refuse(user, "user information is not permitted in the URL".to_owned());
    }
    if !url.fragment.is_empty() {
        refuse(url.fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !url.query.is_empty() {
        refuse(url.query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn service(errors: &mut Errors, path: &Path, service: &Service<'_>) {
    // Upstream hands name and namespace over in the wrong order, so that it names the other field.
    if service.namespace.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if service.name.is_empty() {
        errors.push(FieldError::required(&path.child("namespace"), ""));
    }
    let wrong = name::port_number(service.port.into());
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(&path.child("port"), service.port, detail));
    }
    let at = path.child("path");
    let value = service.path.unwrap_or_default();
    let mut refuse = |why: String| errors.push(FieldError::invalid(&at, value, why));
    match value {
        "" | "/" => return,
        "//" => return refuse("segment[0] may not be empty".to_owned()),
        _ => {}
    }
    if !value.starts_with('/') {
        refuse("must start with a '/'".to_owned());
    }
    // Upstream cuts the first character off, whatever it is.
    let rest: &str =
        value.split_at_checked(value.chars().next().map_or(0, char::len_utf8)).unwrap_or_default().1;
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
            continue;
        }
        for problem in name::dns1123_subdomain(step) {
            refuse(format!("segment[{i}]: {problem}"));
        }
    }
}

/// Checks the versions of a review that a hook speaks; at least one must be known if `known` says so.
pub(super) fn review_versions(errors: &mut Errors, path: &Path, versions: &[String], known: bool) {
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(version) {
            errors.push(FieldError::invalid(&at, version, "duplicate version"));
        } else {
            problems(errors, &at, version, name::dns1035_label(version));
        }
    }
    if known && !has_known(versions) {
        let detail = format!("must include at least one of {}", REVIEWS.join(", "));
        errors.push(FieldError::invalid(path, BadValue::of(&versions), detail));
    }
}

/// Whether one of the versions is known.
pub(super) fn has_known(versions: &[String]) -> bool {
    versions.iter().any(|version| REVIEWS.contains(&version.as_str()))
}

/// What both kinds of admission webhooks have.
pub(super) struct Hook<'a> {
    name: &'a str,
    client: &'a WebhookClientConfig,
    rules: &'a [RuleWithOperations],
    failure_policy: &'a Option<String>,
    match_policy: &'a Option<String>,
    namespace_selector: &'a Option<LabelSelector>,
    object_selector: &'a Option<LabelSelector>,
    side_effects: &'a str,
    timeout: Option<i32>,
    review_versions: &'a [String],
    conditions: &'a Option<Vec<MatchCondition>>,
    /// None for hooks that only validate.
    reinvocation_policy: &'a Option<String>,
}

impl<'a> From<&'a MutatingWebhook> for Hook<'a> {
    fn from(hook: &'a MutatingWebhook) -> Self {
        Self {
            name: &hook.name,
            client: &hook.client_config,
            rules: list(&hook.rules),
            failure_policy: &hook.failure_policy,
            match_policy: &hook.match_policy,
            namespace_selector: &hook.namespace_selector,
            object_selector: &hook.object_selector,
            side_effects: &hook.side_effects,
            timeout: hook.timeout_seconds,
            review_versions: &hook.admission_review_versions,
            conditions: &hook.match_conditions,
            reinvocation_policy: &hook.reinvocation_policy,
        }
    }
}

impl<'a> From<&'a ValidatingWebhook> for Hook<'a> {
    fn from(hook: &'a ValidatingWebhook) -> Self {
        Self {
            name: &hook.name,
            client: &hook.client_config,
            rules: list(&hook.rules),
            failure_policy: &hook.failure_policy,
            match_policy: &hook.match_policy,
            namespace_selector: &hook.namespace_selector,
            object_selector: &hook.object_selector,
            side_effects: &hook.side_effects,
            timeout: hook.timeout_seconds,
            review_versions: &hook.admission_review_versions,
            conditions: &hook.match_conditions,
            reinvocation_policy: &None,
        }
    }
}

/// The parts of a hook that have defaults.
pub(super) struct Defaults<'a> {
    pub failure_policy: &'a mut Option<String>,
    pub match_policy: &'a mut Option<String>,
    pub namespace_selector: &'a mut Option<LabelSelector>,
    pub object_selector: &'a mut Option<LabelSelector>,
    pub timeout: &'a mut Option<i32>,
    pub client: &'a mut WebhookClientConfig,
    pub rules: &'a mut Option<Vec<RuleWithOperations>>,
}

impl Defaults<'_> {
    /// Fills in what was left out.
    pub(super) fn set(self) {
        self.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        self.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
        self.namespace_selector.get_or_insert_default();
        self.object_selector.get_or_insert_default();
        self.timeout.get_or_insert(10);
        if let Some(service) = &mut self.client.service {
            service.port.get_or_insert(443);
        }
        for rule in self.rules.iter_mut().flatten() {
            rule.scope.get_or_insert_with(|| "*".to_owned());
        }
    }
}

/// Checks the hooks of a configuration. What the hooks of the stored one break already, an update may break on.
pub(super) fn hooks(hooks: &[Hook<'_>], old: Option<&[Hook<'_>]>) -> Errors {
    let mut errors = Errors::new();
    let unique = |hooks: &[Hook<'_>]| {
        let mut names = BTreeSet::new();
        hooks.iter().all(|hook| names.insert(hook.name))
    };
    let still = |holds: fn(&Hook<'_>) -> bool| old.is_none_or(|old| old.iter().all(holds));
    let no_side_effects = still(|hook| NO_SIDE_EFFECTS.contains(&hook.side_effects));
    let known_reviews = still(|hook| hook.review_versions.is_empty() || has_known(hook.review_versions));
    let unique_names = old.is_none_or(unique);
    let same_conditions = old.is_some_and(|old| {
        old.len() == hooks.len() && hooks.iter().zip(old).all(|(a, b)| same(a.conditions, b.conditions))
    });
    let mut seen = BTreeSet::new();
    for (i, hook) in hooks.iter().enumerate() {
        let path = Path::new("webhooks").index(i);
        admission_hook(&mut errors, &path, hook, no_side_effects, same_conditions);
        let at = path.child("admissionReviewVersions");
        if hook.review_versions.is_empty() {
            let detail = format!("must specify one of {}", REVIEWS.join(", "));
            errors.push(FieldError::required(&at, detail));
        } else {
            review_versions(&mut errors, &at, hook.review_versions, known_reviews);
        }
        let again = !seen.insert(hook.name);
        if unique_names && again && !hook.name.is_empty() {
            errors.push(FieldError::duplicate(&path.child("name"), hook.name));
        }
    }
    errors
}

fn admission_hook(
    errors: &mut Errors,
    path: &Path,
    hook: &Hook<'_>,
    no_side_effects: bool,
    same_conditions: bool,
) {
    fully_qualified_name(errors, &path.child("name"), hook.name);
    for (i, rule) in hook.rules.iter().enumerate() {
        admission_rule::check(errors, &path.child("rules").index(i), &rule.into());
    }
    let policy = |errors: &mut Errors, field: &str, value: &Option<String>, allowed: &[&str]| {
        if let Some(value) = value {
            one_of(errors, &path.child(field), value, allowed);
        }
    };
    policy(errors, "failurePolicy", hook.failure_policy, &FAILURE_POLICIES);
    policy(errors, "matchPolicy", hook.match_policy, &MATCH_POLICIES);
    let allowed: &[&str] = if no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let at = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        errors.push(FieldError::required(&at, format!("must specify one of {}", allowed.join(", "))));
    } else {
        let given = if hook.side_effects == EMPTY { "" } else { hook.side_effects };
        one_of(errors, &at, given, allowed);
    }
    if let Some(seconds) = hook.timeout.filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds, detail));
    }
    selector(errors, &path.child("namespaceSelector"), hook.namespace_selector.as_ref());
    selector(errors, &path.child("objectSelector"), hook.object_selector.as_ref());
    policy(errors, "reinvocationPolicy", hook.reinvocation_policy, &REINVOCATION_POLICIES);
    let service = hook.client.service.as_ref().map(|service| Service {
        namespace: &service.namespace,
        name: &service.name,
        path: service.path.as_deref(),
        port: service.port.unwrap_or_default(),
    });
    target(errors, &path.child("clientConfig"), hook.client.url.as_deref(), service);
    if !same_conditions {
        admission_rule::match_conditions(errors, &path.child("matchConditions"), list(hook.conditions));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str) -> String {
        let mut errors = Errors::new();
        url(&mut errors, &Path::new("url"), value);
        errors.iter().map(FieldError::body).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_hook_is_called_over_https() {
        const FORM: &str = "; desired format: https://host[/path]";
        assert_eq!(said("https://a.example.org:8443/x"), "");
        let scheme = format!("'https' is the only allowed URL scheme{FORM}");
        let host = format!("Invalid value: \"\": host must be provided{FORM}");
        for (value, expected) in [
            ("", format!("Invalid value: \"\": {scheme}; {host}")),
            ("Not Valid!", format!("Invalid value: \"\": {scheme}; {host}")),
            ("http://x", format!("Invalid value: \"http\": {scheme}")),
            ("https:///x", host.clone()),
            ("https://u@x", "Invalid value: \"u\": user information is not permitted in the URL".to_owned()),
            ("https://x#y", "Invalid value: \"y\": fragments are not permitted in the URL".to_owned()),
            ("https://x?y", "Invalid value: \"y\": query parameters are not permitted in the URL".to_owned()),
            (
                ":x",
                format!(
                    "Required value: url must be a valid URL: parse \":x\": missing protocol scheme{FORM}"
                ),
            ),
        ] {
            assert_eq!(said(value), expected, "{value}");
        }
    }

    #[test]
    fn the_path_of_a_service_is_made_of_names() {
        for (path, expected) in [
            ("/", ""),
            ("/a/b/", ""),
            ("//", "segment[0] may not be empty"),
            ("a", "must start with a '/'"),
            ("/a//b", "segment[1] may not be empty"),
        ] {
            let mut errors = Errors::new();
            let service = Service { namespace: "n", name: "s", path: Some(path), port: 443 };
            self::service(&mut errors, &Path::new("service"), &service);
            let said = errors.first().map(|error| error.detail.as_str()).unwrap_or_default();
            assert_eq!(said, expected, "{path}");
        }
    }
}
