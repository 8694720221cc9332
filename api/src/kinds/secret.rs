//! The rules of core/v1 Secret.

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Map, Value};

use super::{
    cells::age,
    check::{immutable, problems, same, text},
    config_map::{IMMUTABLE, MAX_SIZE},
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for Secret {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Type").about(
            "Used to facilitate programmatic handling of secret data. More info: \
             https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
        ),
        Column::text("Data").about(
            "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
             serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
             non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
        ),
        Column::age(),
    ];
    const FIELDS: &'static [&'static str] = &["type"];

    fn set_defaults(&mut self) {
        // Plain text is for writing only; it wins over encoded data.
        for (key, value) in self.string_data.take().into_iter().flatten() {
            self.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
        if text(&self.type_).is_empty() {
            self.type_ = Some("Opaque".to_owned());
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in self.data.iter().flatten() {
            problems(&mut errors, &path.key(key), key, name::config_map_key(key));
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(FieldError::too_long(&path, MAX_SIZE));
        }
        let entry = |key: &str| self.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
        let mut missing = |key: &str| errors.push(FieldError::required(&path.key(key), ""));
        match text(&self.type_) {
            "kubernetes.io/service-account-token" => {
                let key = "kubernetes.io/service-account.name";
                let annotation = self.metadata.annotations.as_ref().and_then(|a| a.get(key));
                if annotation.is_none_or(String::is_empty) {
                    errors
                        .push(FieldError::required(&Path::new("metadata").child("annotations").key(key), ""));
                }
            }
            kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
                let key = if kind == "kubernetes.io/dockercfg" { ".dockercfg" } else { ".dockerconfigjson" };
                match entry(key) {
                    None => missing(key),
                    Some(bytes) => {
                        if let Err(error) = json_object(bytes) {
                            let shown = "<secret contents redacted>";
                            errors.push(FieldError::invalid(&path.key(key), shown, error));
                        }
                    }
                }
            }
            "kubernetes.io/basic-auth" if entry("username").is_none() && entry("password").is_none() => {
                missing("username");
                missing("password");
            }
            "kubernetes.io/ssh-auth" if entry("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
                missing("ssh-privatekey");
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"] {
                    if entry(key).is_none() {
                        missing(key);
                    }
                }
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::new("type"), &self.type_, &old.type_);
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.push(FieldError::forbidden(&Path::new("immutable"), IMMUTABLE));
            }
            if !same(&self.data, &old.data) {
                errors.push(FieldError::forbidden(&Path::new("data"), IMMUTABLE));
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("type", text(&self.type_).to_owned())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.iter().flatten().count();
        vec![name_cell(&self.metadata), text(&self.type_).into(), entries.into(), age(&self.metadata, now)]
    }
}

/// Whether the bytes are a JSON object; the words are those of Go's decoder where it matters.
fn json_object(bytes: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Err(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
        }
        Err(error) if error.is_eof() => Err("unexpected end of JSON input".to_owned()),
        Err(_) => {
            // The first character that cannot be, as Go names it.
            let at = serde_json::from_slice::<Map<String, Value>>(bytes).err().map_or(0, |e| e.column());
            let found = bytes.get(at.saturating_sub(1)).map(|b| char::from(*b)).unwrap_or_default();
            Err(format!("invalid character '{found}' looking for beginning of value"))
        }
    }
}
