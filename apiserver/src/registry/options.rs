//! The options of requests: query parameters, and the DeleteOptions of a body.

use api::field::{FieldError, Path};
use api::resource::GroupVersionKind;
use api::schema::decode::FieldValidation;
use api::status::Status;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::context::Context;
use crate::negotiate::{self, Media};
use crate::registry::decode;
use crate::request::Query;

/// The options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
    pub field_manager: String,
    /// An apply takes what others own.
    pub force: bool,
    /// Who owns what is in the object already: the write itself changes nothing about it.
    pub owners_known: bool,
    /// An update of an object that is not there creates it, whatever its kind.
    pub creates: bool,
}

impl WriteOptions {
    /// Reads them; `kind` is CreateOptions or UpdateOptions.
    pub fn read(query: &Query, kind: &str) -> Result<Self, Status> {
        Self::with(query, kind, Vec::new())
    }

    /// Reads those of a patch.
    pub fn of_patch(query: &Query, is_apply: bool) -> Result<Self, Status> {
        let mut errors = Vec::new();
        if is_apply {
            if query.get("fieldManager").is_none() {
                errors.push(FieldError::required(&Path::new("fieldManager"), "is required for apply patch"));
            }
        } else if query.all("force").next().is_some() {
            let detail = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&Path::new("force"), detail));
        }
        Self::with(query, "PatchOptions", errors)
    }

    fn with(query: &Query, kind: &str, mut errors: Vec<FieldError>) -> Result<Self, Status> {
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        errors.extend(api::meta::validate_field_manager(&field_manager, &Path::new("fieldManager")));
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let given = query.get("fieldValidation").unwrap_or_default();
        let validation = FieldValidation::parse(given).unwrap_or_else(|| {
            let path = Path::new("fieldValidation");
            errors.push(FieldError::not_supported(&path, given, &["Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        });
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        Ok(Self { dry_run, validation, field_manager, force: query.flag("force"), ..Self::default() })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        let shown = Value::from(values.iter().map(|value| Value::from(*value)).collect::<Vec<_>>());
        errors.push(FieldError::not_supported(&Path::new("dryRun"), shown, &["All"]));
    }
    !values.is_empty()
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The options of delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period: Option<i64>,
    pub propagation: Option<Propagation>,
    /// The old `orphanDependents: false` was given.
    pub cascade_asked: bool,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    dry_run: Option<Vec<String>>,
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads them from the body, or, without one, from the query.
    pub fn read(context: &Context<'_>, body: &Bytes) -> Result<Self, Status> {
        let query = &context.info.query;
        let wire = if body.is_empty() {
            Wire {
                dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
                grace_period_seconds: integer(query, "gracePeriodSeconds")?,
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
                preconditions: None,
            }
        } else {
            let media = negotiate::object_media(context.headers)?;
            let expect = GroupVersionKind::fixed("", "v1", "DeleteOptions");
            let value = decode::value(media, body, &expect)?;
            if media == Media::Protobuf && value["kind"] != "DeleteOptions" {
                return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
            }
            Self::wire(value)?
        };
        let mut options = Self::check(wire)?;
        // The query's dry run counts beside a body, too: losing it would delete for good.
        options.dry_run |= query.get("dryRun").is_some();
        Ok(options)
    }

    /// Reads the DeleteOptions within another object (an Eviction).
    pub fn from_value(value: Value) -> Result<Self, Status> {
        Self::check(Self::wire(value)?)
    }

    fn wire(value: Value) -> Result<Wire, Status> {
        serde_json::from_value(value).map_err(|error| {
            Status::bad_request(format!(
                "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {error}"
            ))
        })
    }

    fn check(wire: Wire) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let dry_run = wire.dry_run.unwrap_or_default();
        let dry_run = self::dry_run(dry_run.iter().map(String::as_str), &mut errors);
        let path = Path::new("propagationPolicy");
        if wire.propagation_policy.is_some() && wire.orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(
                &path,
                wire.propagation_policy.clone().unwrap_or_default(),
                detail,
            ));
        }
        let mut propagation = match wire.propagation_policy.as_deref() {
            None | Some("") => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, other, &supported));
                None
            }
        };
        if let Some(orphan) = wire.orphan_dependents {
            propagation = Some(if orphan { Propagation::Orphan } else { Propagation::Background });
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let preconditions = wire.preconditions.unwrap_or_default();
        Ok(Self {
            dry_run,
            // A negative period is taken for the shortest one that is one.
            grace_period: wire.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation,
            cascade_asked: wire.orphan_dependents == Some(false),
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
        })
    }
}

/// An integer parameter; 400 in the words of Go's conversion.
pub fn integer(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    match query.get(name) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                api::field::quote(text)
            ))
        }),
    }
}
