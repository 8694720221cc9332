//! Field paths and field errors, with exactly the text that Kubernetes gives them.
//!
//! ```
//! use api::field::{FieldError, Path};
//! let path = Path::new("spec").child("containers").index(0).child("image");
//! assert_eq!(FieldError::required(&path, "").to_string(), "spec.containers[0].image: Required value");
//! ```

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

/// The errors of one object, in the order in which they were found.
pub type Errors = Vec<FieldError>;

/// Where a value sits inside an object, such as `spec.containers[0].ports[1].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// A path that starts at `name`.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of the object itself; its children have plain names.
    pub fn root() -> Self {
        Self::default()
    }

    /// `self.name`
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self::new(name);
        }
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        path.push_str(&self.0);
        path.push('.');
        path.push_str(name);
        Self(path)
    }

    /// `self[index]`
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// `self[key]`
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field; the names are those of `metav1.CauseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The machine readable form, used as the reason of a cause in a Status.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::Internal => "Internal error",
        })
    }
}

/// The value that was refused, as it appears in the message.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Not shown.
    Omitted,
    /// Shown quoted.
    Text(String),
    /// Shown as JSON (numbers and booleans are the same in both languages).
    Json(Value),
    /// Shown as it is, for what upstream shows in a form of its own.
    Plain(String),
}

impl BadValue {
    /// Any serializable value, shown as JSON; strings are shown quoted.
    pub fn of<T: serde::Serialize>(value: &T) -> Self {
        match serde_json::to_value(value) {
            Ok(Value::String(text)) => Self::Text(text),
            Ok(value) => Self::Json(value),
            Err(_) => Self::Omitted,
        }
    }
}

impl From<&str> for BadValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for BadValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<&String> for BadValue {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}
impl From<&Option<String>> for BadValue {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone().unwrap_or_default())
    }
}
impl From<Value> for BadValue {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            value => Self::Json(value),
        }
    }
}
macro_rules! bad_number {
    ($($t:ty),*) => {$(
        impl From<$t> for BadValue {
            fn from(value: $t) -> Self {
                Self::Json(Value::from(value))
            }
        }
    )*};
}
bad_number!(bool, i32, i64, u16, u32, u64, usize, f64);

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where.
    pub field: Path,
    /// The value that was refused.
    pub bad_value: BadValue,
    /// Why, in words; may be empty.
    pub detail: String,
}

impl FieldError {
    fn with(kind: ErrorKind, field: &Path, bad_value: BadValue, detail: String) -> Self {
        Self { kind, field: field.clone(), bad_value, detail }
    }

    /// A value is missing.
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Required, field, BadValue::Omitted, detail.into())
    }

    /// A value is malformed.
    pub fn invalid(field: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Invalid, field, value.into(), detail.into())
    }

    /// A value is of the wrong type.
    pub fn type_invalid(field: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::TypeInvalid, field, value.into(), detail.into())
    }

    /// A value is none of `supported`, which are listed in the order given.
    pub fn not_supported<S: AsRef<str>>(field: &Path, value: impl Into<BadValue>, supported: &[S]) -> Self {
        let mut detail = String::new();
        for (i, value) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            detail.push_str(&quote(value.as_ref()));
        }
        Self::with(ErrorKind::NotSupported, field, value.into(), detail)
    }

    /// A value names something that doesn't exist.
    pub fn not_found(field: &Path, value: impl Into<BadValue>) -> Self {
        Self::with(ErrorKind::NotFound, field, value.into(), String::new())
    }

    /// A value that must be unique appears twice.
    pub fn duplicate(field: &Path, value: impl Into<BadValue>) -> Self {
        Self::with(ErrorKind::Duplicate, field, value.into(), String::new())
    }

    /// A value that is well formed, but not allowed here.
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Forbidden, field, BadValue::Omitted, detail.into())
    }

    /// A value of more than `max` bytes; the value itself is not shown.
    pub fn too_long(field: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::with(ErrorKind::TooLong, field, BadValue::Omitted, format!("may not be more than {max} {unit}"))
    }

    /// A value of more than `max` characters; the value itself is not shown.
    pub fn too_long_characters(field: &Path, max: usize) -> Self {
        let unit = if max == 1 { "character" } else { "characters" };
        Self::with(ErrorKind::TooLong, field, BadValue::Omitted, format!("may not be more than {max} {unit}"))
    }

    /// A value of less than `min` characters.
    pub fn too_short(field: &Path, value: impl Into<BadValue>, min: usize) -> Self {
        let unit = if min == 1 { "character" } else { "characters" };
        Self::with(ErrorKind::TooShort, field, value.into(), format!("must be at least {min} {unit}"))
    }

    /// A list of `actual` items where at most `max` are allowed.
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::with(ErrorKind::TooMany, field, actual.into(), format!("must have at most {max} {unit}"))
    }

    /// Something failed that is not the fault of the input.
    pub fn internal(field: &Path, error: impl fmt::Display) -> Self {
        Self::with(ErrorKind::Internal, field, BadValue::Omitted, error.to_string())
    }

    /// The message without the path.
    pub fn body(&self) -> String {
        let mut text = self.kind.to_string();
        let shown = !matches!(
            self.kind,
            ErrorKind::Required
                | ErrorKind::Forbidden
                | ErrorKind::TooLong
                | ErrorKind::TooShort
                | ErrorKind::Internal
        );
        match &self.bad_value {
            BadValue::Text(value) if shown => {
                text.push_str(": ");
                text.push_str(&quote(value));
            }
            BadValue::Json(value) if shown => {
                text.push_str(": ");
                text.push_str(&value.to_string());
            }
            BadValue::Plain(value) if shown => {
                text.push_str(": ");
                text.push_str(value);
            }
            _ => {}
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// A value that is shown as a whole each time a part of it is wrong. There may be as many errors as it has parts, and
/// each has the text of all of them: only as many are added as stay in proportion to what a request may bring.
#[derive(Debug)]
pub struct Whole {
    shown: BadValue,
    left: usize,
}

impl Whole {
    /// The bytes that all errors together may show.
    const MOST: usize = 1 << 20;

    /// The value, as all errors show it.
    pub fn new(shown: impl Into<BadValue>) -> Self {
        let shown = shown.into();
        let size = match &shown {
            BadValue::Omitted => 0,
            BadValue::Text(text) | BadValue::Plain(text) => text.len(),
            BadValue::Json(value) => value.to_string().len(),
        };
        Self { shown, left: 2 + Self::MOST / (64 + size) }
    }

    /// Says that the value is malformed; false if it was said often enough.
    pub fn invalid(&mut self, errors: &mut Errors, field: &Path, detail: impl Into<String>) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            errors.push(FieldError::invalid(field, self.shown.clone(), detail));
        }
        self.left > 0
    }
}

/// All errors in one line: alone as it is, several as `[a, b]`, each text once. Empty for no errors.
pub fn aggregate(errors: &[FieldError]) -> String {
    aggregate_texts(errors.iter().map(ToString::to_string))
}

/// Several messages in one line: alone as it is, several as `[a, b]`, each text once.
pub fn aggregate_texts(texts: impl IntoIterator<Item = String>) -> String {
    // There may be as many as an object has values.
    let (mut seen, mut kept) = (HashSet::new(), Vec::new());
    for text in texts {
        if seen.insert(text.clone()) {
            kept.push(text);
        }
    }
    match kept.as_slice() {
        [one] => one.clone(),
        [] => String::new(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Whether Go takes a character for one that can be shown. Of those that can't, these are the ones that people meet.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c as u32, 0xa0 | 0x200b..=0x200f | 0x2028..=0x202f | 0xfeff | 0xe000..=0xf8ff)
}

/// The text in double quotes, escaped as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if !is_printable(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_upstreams() {
        let image = Path::new("spec").child("containers").index(0).child("image");
        let limits = Path::new("spec").child("limits").key("cpu");
        for (error, text) in [
            (FieldError::required(&image, ""), "spec.containers[0].image: Required value"),
            (FieldError::required(&image, "why"), "spec.containers[0].image: Required value: why"),
            (
                FieldError::invalid(&limits, "x\"y", "must be less"),
                r#"spec.limits[cpu]: Invalid value: "x\"y": must be less"#,
            ),
            (FieldError::invalid(&limits, -1, "too low"), "spec.limits[cpu]: Invalid value: -1: too low"),
            (FieldError::invalid(&limits, Value::Null, "no"), "spec.limits[cpu]: Invalid value: null: no"),
            (
                FieldError::invalid(&limits, serde_json::json!({"a": [1]}), "no"),
                r#"spec.limits[cpu]: Invalid value: {"a":[1]}: no"#,
            ),
            (
                FieldError::not_supported(&limits, "x", &["a", "b"]),
                r#"spec.limits[cpu]: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (FieldError::not_found(&limits, "x"), r#"spec.limits[cpu]: Not found: "x""#),
            (FieldError::duplicate(&limits, "x"), r#"spec.limits[cpu]: Duplicate value: "x""#),
            (FieldError::forbidden(&limits, "not now"), "spec.limits[cpu]: Forbidden: not now"),
            (FieldError::too_long(&limits, 63), "spec.limits[cpu]: Too long: may not be more than 63 bytes"),
            (FieldError::too_many(&limits, 5, 1), "spec.limits[cpu]: Too many: 5: must have at most 1 item"),
            (FieldError::internal(&limits, "oops"), "spec.limits[cpu]: Internal error: oops"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn several_errors_are_listed_once_each_in_brackets() {
        let a = FieldError::required(&Path::new("a"), "");
        let b = FieldError::required(&Path::new("b"), "");
        assert_eq!(aggregate(&[]), "");
        assert_eq!(aggregate(std::slice::from_ref(&a)), "a: Required value");
        assert_eq!(aggregate(&[a.clone(), a.clone()]), "a: Required value");
        assert_eq!(aggregate(&[a.clone(), b, a]), "[a: Required value, b: Required value]");
    }
}
