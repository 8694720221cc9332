//! Objects of the cluster, from the command line's side.
//!
//! - [`session`]: the connection; [`call`]: a request and how it can fail
//! - [`mapping`]: which resource a word means; [`select`]: which objects the arguments mean
//! - [`files`]: objects from files

pub(crate) mod call;
pub(crate) mod files;
pub(crate) mod mapping;
pub(crate) mod select;
pub(crate) mod session;

use serde_json::Value;

pub(crate) use call::{ApiError, Call, Patch};
pub(crate) use mapping::Mapping;
pub(crate) use select::{Target, Targets};
pub(crate) use session::Session;

/// The text of a field, by the path of its keys; empty if it isn't there.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// The number of a field; 0 if it isn't there.
pub(crate) fn number(object: &Value, path: &str) -> i64 {
    at(object, path).as_i64().unwrap_or_default()
}

/// The items of a list field; none if it isn't there.
pub(crate) fn items<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A field by the path of its keys, `spec.nodeName`; null if it isn't there.
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|key| !key.is_empty()).fold(object, |value, key| &value[key])
}

/// `name` of the metadata.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "metadata.name")
}

/// `namespace` of the metadata.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "metadata.namespace")
}
