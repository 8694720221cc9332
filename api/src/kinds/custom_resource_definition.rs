//! The rules of apiextensions.k8s.io/v1 CustomResourceDefinition.

mod defaults;
mod schema;
mod versions;

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionStatus,
};
use serde_json::Value;

use super::{
    check::{generation, immutable, list, required, required_one_of, same, text},
    webhook::{self, Service},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path, Whole},
    name,
    object::{Kind, Null},
};

/// Groups of Kubernetes itself need the word of its API reviewers.
const APPROVAL: &str = "api-approved.kubernetes.io";

impl Kind for CustomResourceDefinition {
    const OWN_DELETION: bool = true;
    const HAS_FLOATS: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const NULLS: &'static [Null<Self>] = &[
        ("status.conditions", |it| it.status.as_ref().is_some_and(|status| status.conditions.is_none())),
        ("status.storedVersions", |it| {
            it.status.as_ref().is_some_and(|status| status.stored_versions.is_none())
        }),
    ];

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        let names = &mut spec.names;
        if text(&names.singular).is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if text(&names.list_kind).is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let conversion = spec.conversion.get_or_insert_with(|| CustomResourceConversion {
            strategy: "None".to_owned(),
            ..Default::default()
        });
        let client = conversion.webhook.as_mut().and_then(|webhook| webhook.client_config.as_mut());
        if let Some(service) = client.and_then(|client| client.service.as_mut()) {
            service.port.get_or_insert(443);
        }
        let status = self.status.get_or_insert_default();
        status.accepted_names.get_or_insert_default();
        if list(&status.stored_versions).is_empty() {
            store_version(status, spec);
        }
    }

    fn prepare_create(&mut self) {
        let mut status = CustomResourceDefinitionStatus {
            accepted_names: Some(CustomResourceDefinitionNames::default()),
            ..Default::default()
        };
        store_version(&mut status, &self.spec);
        self.status = Some(status);
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
        store_version(self.status.get_or_insert_default(), &self.spec);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let name = text(&self.metadata.name);
        if !name.is_empty() && name != format!("{}.{}", self.spec.names.plural, self.spec.group) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        errors.extend(validate(self, None));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = validate(self, Some(old));
        let path = Path::new("spec");
        let (new, before) = (&self.spec, &old.spec);
        if is_established(old) {
            immutable(&mut errors, &path.child("scope"), &new.scope, &before.scope);
            let at = path.child("names").child("kind");
            immutable(&mut errors, &at, &new.names.kind, &before.names.kind);
        }
        immutable(&mut errors, &path.child("group"), &new.group, &before.group);
        immutable(&mut errors, &path.child("names").child("plural"), &new.names.plural, &before.names.plural);
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        validate_status(self)
    }
}

/// Notes that objects are stored in the storage version from now on.
fn store_version(status: &mut CustomResourceDefinitionStatus, spec: &CustomResourceDefinitionSpec) {
    let Some(version) = spec.versions.iter().find(|version| version.storage) else { return };
    let stored = status.stored_versions.get_or_insert_default();
    if !stored.contains(&version.name) {
        stored.push(version.name.clone());
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn validate_status(definition: &CustomResourceDefinition) -> Errors {
    let mut errors = Errors::new();
    let accepted = definition.status.as_ref().and_then(|status| status.accepted_names.as_ref());
    if let Some(accepted) = accepted {
        names(&mut errors, &Path::new("status").child("acceptedNames"), accepted);
    }
    errors
}

fn validate(definition: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) -> Errors {
    let mut errors = Errors::new();
    let spec = &definition.spec;
    let path = Path::new("spec");
    let group_at = path.child("group");
    required(&mut errors, &group_at, &spec.group);
    if !spec.group.is_empty() {
        let wrong = name::dns1123_subdomain(&spec.group);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&group_at, &spec.group, wrong.join(",")));
        } else if !spec.group.contains('.') {
            let detail = "should be a domain with at least one dot";
            errors.push(FieldError::invalid(&group_at, &spec.group, detail));
        }
    }
    required_one_of(&mut errors, &path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]);
    versions::validate(&mut errors, &path.child("versions"), spec, old.map(|old| &old.spec));

    let names_at = path.child("names");
    for (field, value) in [
        ("plural", spec.names.plural.as_str()),
        ("singular", text(&spec.names.singular)),
        ("kind", spec.names.kind.as_str()),
        ("listKind", text(&spec.names.list_kind)),
    ] {
        required(&mut errors, &names_at.child(field), value);
    }
    names(&mut errors, &names_at, &spec.names);
    versions::validate_common(&mut errors, &path, spec);
    if let Some(given) = &spec.conversion {
        let known = old.and_then(|old| old.spec.conversion.as_ref()).is_none_or(|old| {
            let versions = old.webhook.as_ref().map(|webhook| webhook.conversion_review_versions.as_slice());
            versions.is_none_or(|versions| versions.is_empty() || webhook::has_known(versions))
        });
        let preserve = spec.preserve_unknown_fields.unwrap_or_default();
        conversion(&mut errors, &path.child("conversion"), given, preserve, known);
    }

    errors.extend(validate_status(definition));
    stored_versions(&mut errors, definition);
    errors.extend(approval(definition, old));
    let preserved = |spec: &CustomResourceDefinitionSpec| spec.preserve_unknown_fields == Some(true);
    if preserved(spec) && !old.is_some_and(|old| preserved(&old.spec)) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), true, detail));
    }
    errors
}

fn names(errors: &mut Errors, path: &Path, names: &CustomResourceDefinitionNames) {
    let label = |errors: &mut Errors, at: &Path, value: &str| {
        let wrong = name::dns1035_label(value);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(at, value, wrong.join(",")));
        }
    };
    let list_kind = text(&names.list_kind);
    for (field, value) in [("plural", names.plural.as_str()), ("singular", text(&names.singular))] {
        if !value.is_empty() {
            label(errors, &path.child(field), value);
        }
    }
    for (field, value) in [("kind", names.kind.as_str()), ("listKind", list_kind)] {
        let wrong = name::dns1035_label(&value.to_lowercase());
        if !value.is_empty() && !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(FieldError::invalid(&path.child(field), value, detail));
        }
    }
    for (i, short) in list(&names.short_names).iter().enumerate() {
        label(errors, &path.child("shortNames").index(i), short);
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.child("listKind"), list_kind, detail));
    }
    for (i, category) in list(&names.categories).iter().enumerate() {
        label(errors, &path.child("categories").index(i), category);
    }
}

fn conversion(
    errors: &mut Errors,
    path: &Path,
    conversion: &CustomResourceConversion,
    preserve: bool,
    known: bool,
) {
    const ONLY_WEBHOOK: &str = "should not be set when strategy is not set to Webhook";
    let strategy = conversion.strategy.as_str();
    let strategy_at = path.child("strategy");
    if preserve && strategy != "None" {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(&strategy_at, strategy, detail));
    }
    required_one_of(errors, &strategy_at, strategy, &["None", "Webhook"]);
    // The names are those of upstream's inner form of the object.
    let (client_at, versions_at) =
        (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    let client = conversion.webhook.as_ref().and_then(|webhook| webhook.client_config.as_ref());
    let versions = conversion.webhook.as_ref().map(|webhook| webhook.conversion_review_versions.as_slice());
    let versions = versions.unwrap_or_default();
    if strategy != "Webhook" {
        if client.is_some() {
            errors.push(FieldError::forbidden(&client_at, ONLY_WEBHOOK));
        }
        if !versions.is_empty() {
            errors.push(FieldError::forbidden(&versions_at, ONLY_WEBHOOK));
        }
        return;
    }
    match client {
        None => errors.push(FieldError::required(&client_at, "required when strategy is set to Webhook")),
        Some(client) => {
            let service = client.service.as_ref().map(|service| Service {
                namespace: &service.namespace,
                name: &service.name,
                path: service.path.as_deref(),
                port: service.port.unwrap_or_default(),
            });
            webhook::target(errors, &client_at, client.url.as_deref(), service);
        }
    }
    if versions.is_empty() {
        errors.push(FieldError::required(&versions_at, ""));
    } else {
        webhook::review_versions(errors, &versions_at, versions, known);
    }
}

fn stored_versions(errors: &mut Errors, definition: &CustomResourceDefinition) {
    let path = Path::new("status").child("storedVersions");
    let given = definition.status.as_ref().and_then(|status| status.stored_versions.as_ref());
    let stored = given.map(Vec::as_slice).unwrap_or_default();
    if stored.is_empty() {
        let shown = given.map_or(BadValue::Json(Value::Null), BadValue::of);
        errors.push(FieldError::invalid(&path, shown, "must have at least one stored version"));
        return;
    }
    let versions = &definition.spec.versions;
    let given: BTreeSet<&String> = stored.iter().collect();
    let mut whole = Whole::new(BadValue::of(&stored));
    for version in versions.iter().filter(|version| version.storage && !given.contains(&version.name)) {
        whole.invalid(errors, &path, format!("must have the storage version {}", version.name));
    }
    let mut seen: BTreeSet<&String> = versions.iter().map(|version| &version.name).collect();
    for (i, name) in stored.iter().enumerate() {
        if seen.insert(name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(FieldError::invalid(&path.index(i), name, detail));
        }
    }
}

/// What a definition says about the approval of its API.
#[derive(PartialEq)]
enum Approval {
    Given,
    Missing,
    Invalid,
}

fn approval_of(definition: &CustomResourceDefinition) -> (Approval, &str) {
    let annotations = definition.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(APPROVAL)).map(String::as_str) {
        None | Some("") => (Approval::Missing, ""),
        Some(value) if value.starts_with("unapproved") => (Approval::Given, value),
        Some(value) if webhook::is_absolute(value) => (Approval::Given, value),
        Some(value) => (Approval::Invalid, value),
    }
}

fn approval(
    definition: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
) -> Option<FieldError> {
    let group = definition.spec.group.as_str();
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let (state, value) = approval_of(definition);
    if !is_protected || old.is_some_and(|old| approval_of(old).0 == state) {
        return None;
    }
    let at = Path::new("metadata").child("annotations").key(APPROVAL);
    match state {
        Approval::Given => None,
        Approval::Missing => {
            let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                          https://github.com/kubernetes/enhancements/pull/1111";
            Some(FieldError::required(&at, detail))
        }
        Approval::Invalid => {
            let detail = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a \
                          URL or a reason starting with \"unapproved\", see \
                          https://github.com/kubernetes/enhancements/pull/1111";
            Some(FieldError::invalid(&at, value, detail))
        }
    }
}
