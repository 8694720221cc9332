//! What the kinds about storage share: access modes, sizes, parameters, the names of drivers and classes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{SecretReference, TopologySelectorTerm},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    amount::Amount,
    check::{dns_label, dns_subdomain, list, one_of, problems, qualified_name, required},
    pod::warnings::deprecated_label,
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
};

/// The annotation that named the class before there was a field for it.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// What a user of the annotation is told.
pub(crate) const CLASS_ANNOTATION_IS_OLD: &str =
    "deprecated since v1.8; use \"storageClassName\" attribute instead";

const ALONE: &str = "ReadWriteOncePod";
const MODES: [(&str, &str); 4] =
    [("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOnce", "RWO"), (ALONE, "RWOP")];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// The ways in which a volume may be mounted.
pub(crate) fn access_modes(errors: &mut Errors, modes: &[String], path: &Path) {
    let known = MODES.map(|(mode, _)| mode);
    for mode in modes {
        one_of(errors, path, mode, &known);
    }
    let others = modes.iter().any(|mode| mode != ALONE && known.contains(&mode.as_str()));
    if others && modes.iter().any(|mode| mode == ALONE) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
}

/// Access modes in their short form, each once: `RWO,ROX`.
pub(crate) fn short_modes(modes: &[String]) -> String {
    let order = ["RWO", "ROX", "RWX", "RWOP"];
    let given = |short: &&str| {
        MODES.iter().any(|(mode, other)| other == short && modes.iter().any(|given| given == mode))
    };
    order.into_iter().filter(given).collect::<Vec<_>>().join(",")
}

/// Whether a volume has a filesystem.
pub(crate) fn volume_mode(errors: &mut Errors, mode: Option<&String>, path: &Path) {
    if let Some(mode) = mode {
        one_of(errors, path, mode, VOLUME_MODES);
    }
}

/// An amount of bytes that there can be.
pub(crate) fn basic_amount(errors: &mut Errors, amount: Amount, path: &Path) -> bool {
    let sound = amount.value() >= 0;
    if !sound {
        errors.push(FieldError::invalid(path, amount.value(), "must be a valid resource quantity"));
    }
    sound
}

/// An amount above zero.
pub(crate) fn positive_amount(errors: &mut Errors, amount: Amount, path: &Path) -> bool {
    let sound = amount.sign() > 0;
    if !sound {
        errors.push(FieldError::invalid(path, amount.to_string(), "must be greater than zero"));
    }
    sound
}

/// The class that an object names: by the old annotation, or by the field.
pub(crate) fn class_of<'a>(meta: &'a ObjectMeta, class: Option<&'a String>) -> &'a str {
    let old = meta.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    old.or(class).map(String::as_str).unwrap_or_default()
}

/// The name of a driver.
pub(crate) fn driver_name(errors: &mut Errors, value: &str, path: &Path) {
    required(errors, path, value);
    if value.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    problems(errors, path, value, name::dns1123_subdomain(&value.to_lowercase()));
}

/// The name of a provisioner.
pub(crate) fn provisioner(errors: &mut Errors, value: &str, path: &Path) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        qualified_name(errors, path, &value.to_lowercase());
    }
}

/// The parameters of a class: at most 512, and 256 KiB together.
pub(crate) fn parameters(errors: &mut Errors, given: Option<&BTreeMap<String, String>>, path: &Path) {
    const MOST: usize = 512;
    const MOST_BYTES: usize = 256 * 1024;
    let count = given.map_or(0, BTreeMap::len);
    if count > MOST {
        errors.push(FieldError::too_long(path, MOST));
        return;
    }
    let mut size = 0;
    for (key, value) in given.into_iter().flatten() {
        if key.is_empty() {
            errors.push(FieldError::invalid(path, key, "field can not be empty."));
        }
        size += key.len() + value.len();
    }
    if size > MOST_BYTES {
        errors.push(FieldError::too_long(path, MOST_BYTES));
    }
}

/// A secret of any namespace.
pub(crate) fn secret(errors: &mut Errors, secret: &SecretReference, path: &Path) {
    let (name, namespace) = (&secret.name, &secret.namespace);
    match name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("name"), "")),
        name => dns_subdomain(errors, &path.child("name"), name),
    }
    match namespace.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("namespace"), "")),
        namespace => dns_label(errors, &path.child("namespace"), namespace),
    }
}

/// How often the repetitions of terms are told, beyond once for each term.
const MOST_REPEATED: usize = 10_000;

/// Where volumes may be: terms of labels with values, no term twice.
pub(crate) fn topologies(errors: &mut Errors, terms: &[TopologySelectorTerm], path: &Path) {
    type Values<'a> = BTreeMap<&'a str, std::collections::BTreeSet<&'a String>>;
    let mut seen: BTreeMap<Values<'_>, usize> = BTreeMap::from([(Values::new(), terms.len())]);
    let mut left = terms.len() + MOST_REPEATED;
    for (i, term) in terms.iter().enumerate() {
        let at = path.index(i).child("matchLabelExpressions");
        let mut values = Values::new();
        for (j, requirement) in list(&term.match_label_expressions).iter().enumerate() {
            let at = at.index(j);
            if requirement.values.is_empty() {
                errors.push(FieldError::required(&at.child("values"), ""));
            }
            qualified_name(errors, &at.child("key"), &requirement.key);
            let mut found = std::collections::BTreeSet::new();
            for (k, value) in requirement.values.iter().enumerate() {
                if !found.insert(value) {
                    errors.push(FieldError::duplicate(&at.child("values").index(k), value));
                }
            }
            if values.insert(&requirement.key, found).is_some() {
                errors.push(FieldError::duplicate(&at.child("key"), &requirement.key));
            }
        }
        // An empty term counts as given before, once for each term: so does upstream.
        let count = seen.entry(values).or_default();
        for _ in 0..(*count).min(left) {
            errors.push(FieldError::duplicate(&at, ""));
        }
        left -= (*count).min(left);
        *count += 1;
    }
}

/// Advice about labels in topologies that have a newer name.
pub(crate) fn topology_warnings(terms: &[TopologySelectorTerm], path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        for (j, requirement) in list(&term.match_label_expressions).iter().enumerate() {
            if let Some(message) = deprecated_label(&requirement.key) {
                let at = path.index(i).child("matchLabelExpressions").index(j).child("key");
                out.push(format!("{at}: {message}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_listed_in_a_fixed_order() {
        let modes = |modes: &[&str]| modes.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
        assert_eq!(short_modes(&modes(&["ReadWriteMany", "ReadWriteOnce", "ReadWriteOnce"])), "RWO,RWX");
        assert_eq!(short_modes(&modes(&["ReadWriteOncePod"])), "RWOP");
        assert_eq!(short_modes(&[]), "");
    }

    #[test]
    fn a_pod_that_wants_a_volume_alone_wants_no_other_mode() {
        let mut errors = Errors::new();
        let modes = ["ReadWriteOncePod".to_owned(), "ReadWriteOnce".to_owned(), "x".to_owned()];
        access_modes(&mut errors, &modes, &Path::new("m"));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "m: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "m: Forbidden: may not use ReadWriteOncePod with other access modes",
            ]
        );
    }
}
