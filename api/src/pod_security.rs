//! The Pod Security Standards: what a pod may ask of the machine, by the labels of its namespace.
//!
//! A namespace has a level (`privileged`, `baseline` or `restricted`) for each of three modes, and a version of the
//! standards that the level is meant in. Names, words and the order of findings are upstream's.

mod checks;
mod pods;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

pub use checks::Violation;
pub use pods::{is_significant, pod_of};

use crate::field::{Errors, FieldError, Path};

/// How strict the standards are. Each level allows what the next one does, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Privileged, "privileged"), (Self::Baseline, "baseline"), (Self::Restricted, "restricted")];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(level, _)| *level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(level, _)| level == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// The version of the standards: the minor number of a release, or whatever is the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Latest,
    Minor(u32),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit());
        (plain && digits).then(|| minor.parse().ok().map(Self::Minor))?
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level in a version, written `baseline:v1.30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

impl Standard {
    /// What a pod does that this does not allow, in a fixed order.
    pub fn violations(&self, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
        checks::run(*self, meta, spec)
    }
}

/// What a namespace says about its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is refused.
    pub enforce: Standard,
    /// What is noted in the audit log.
    pub audit: Standard,
    /// What the user is told.
    pub warn: Standard,
}

impl Policy {
    /// Whether there is nothing to look for.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }

    /// The policy that labels ask for, and what is wrong with them. A level to enforce that can't be read is the
    /// strictest; one to tell of is none.
    pub fn of(labels: Option<&BTreeMap<String, String>>) -> (Self, Errors) {
        let mut policy = Self::default();
        let mut errors = Errors::new();
        let label = |name: &str| labels.and_then(|labels| labels.get(&format!("{PREFIX}{name}")));
        let mut enforced = false;
        let modes = [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ];
        for (mode, standard, otherwise) in modes {
            if let Some(text) = label(mode) {
                let level = Level::parse(text);
                if level.is_none() {
                    let detail = "must be one of privileged, baseline, restricted";
                    errors.push(FieldError::invalid(&place(mode), text, detail));
                }
                enforced |= mode == "enforce" && level.is_some();
                standard.level = level.unwrap_or(otherwise);
            }
            let mode = format!("{mode}-version");
            if let Some(text) = label(&mode) {
                let version = Version::parse(text);
                if version.is_none() {
                    let detail = "must be \"latest\" or \"v1.x\"";
                    errors.push(FieldError::invalid(&place(&mode), text, detail));
                }
                standard.version = version.unwrap_or_default();
            }
        }
        // What is refused is told of elsewhere too: where the pods of a controller are about to be refused.
        if enforced && label("warn").is_none() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

const PREFIX: &str = "pod-security.kubernetes.io/";

fn place(label: &str) -> Path {
    Path::new("metadata").child("labels").key(&format!("{PREFIX}{label}"))
}

/// Reasons and details in one line, as an answer about one pod has them.
pub fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Reasons in one line, as an answer about several pods has them.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(mode, value)| (format!("{PREFIX}{mode}"), (*value).to_owned())).collect()
    }

    #[test]
    fn the_labels_of_a_namespace_are_a_policy() {
        for (pairs, enforce, warn) in [
            (&[][..], "privileged:latest", "privileged:latest"),
            (&[("enforce", "baseline")], "baseline:latest", "baseline:latest"),
            (&[("enforce", "baseline"), ("enforce-version", "v1.20")], "baseline:v1.20", "baseline:v1.20"),
            (&[("enforce", "baseline"), ("warn", "restricted")], "baseline:latest", "restricted:latest"),
            (&[("enforce", "restricted"), ("warn", "privileged")], "restricted:latest", "privileged:latest"),
            (&[("enforce", "strict")], "restricted:latest", "privileged:latest"),
        ] {
            let (policy, _) = Policy::of(Some(&labels(pairs)));
            assert_eq!((policy.enforce.to_string(), policy.warn.to_string()), (enforce.into(), warn.into()));
        }
    }

    #[test]
    fn labels_that_can_not_be_read_are_errors() {
        let (_, errors) = Policy::of(Some(&labels(&[("audit", "x"), ("warn-version", "v1.01")])));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, \
                 baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" \
                 or \"v1.x\""
            ]
        );
    }
}
