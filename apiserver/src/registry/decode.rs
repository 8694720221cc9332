//! From a request's body to an object: media type, JSON, YAML, CBOR or protobuf, schema, typed form, defaults.

use api::cbor;
use api::object::Object;
use api::resource::{GroupVersionKind, Resource};
use api::schema::decode::{self, FieldValidation};
use api::schema::{MAX_DEPTH, YAML_STACK, protobuf};
use api::status::Status;
use bytes::Bytes;
use serde_json::Value;

use crate::context::Context;
use crate::negotiate::{self, Media};

/// A body as JSON, and what YAML was given twice. `expect` is what the body should be.
fn as_json(
    media: Media,
    body: &Bytes,
    strict: bool,
    expect: &GroupVersionKind,
) -> Result<(Bytes, Vec<String>), Status> {
    match media {
        Media::Json => Ok((body.clone(), Vec::new())),
        Media::Protobuf => Ok((protobuf(body, expect)?.to_string().into(), Vec::new())),
        Media::Cbor => Ok((cbor(body, expect)?.to_string().into(), Vec::new())),
        Media::Yaml => {
            let (value, twice) = yaml_body(body, strict)?;
            Ok((value.to_string().into(), twice))
        }
    }
}

/// A body of YAML as a value, and what was given twice.
pub(crate) fn yaml_body(body: &[u8], strict: bool) -> Result<(Value, Vec<String>), Status> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Status::bad_request("error converting YAML to JSON: yaml: invalid UTF-8"))?;
    yaml(text, strict)
}

/// A body as a value, whatever its type.
pub fn value(media: Media, body: &Bytes, expect: &GroupVersionKind) -> Result<Value, Status> {
    match media {
        Media::Protobuf => return protobuf(body, expect),
        Media::Cbor => return cbor(body, expect),
        Media::Json | Media::Yaml => {}
    }
    let (json, _) = as_json(media, body, false, expect)?;
    decode::parse(&json).map_err(|error| Status::bad_request(error.to_string()))
}

/// Reads CBOR. What is in it is looked at as if it had come in JSON.
fn cbor(body: &[u8], expect: &GroupVersionKind) -> Result<Value, Status> {
    cbor::decode_object(body, "v1.TypeMeta").map(Value::Object).map_err(|error| match error {
        cbor::Error::Malformed(why) => {
            let why = format!("unable to determine group/version/kind: {why}");
            decode::unrecognized(expect, body, &why)
        }
        cbor::Error::Unacceptable(why) => cannot_handle(&expect.kind, &expect.version, &expect.kind, &why),
    })
}

/// Reads protobuf as the kind that its envelope names. Of a kind that is not known only the name is left, by which it is
/// refused like one in JSON.
fn protobuf(body: &Bytes, expect: &GroupVersionKind) -> Result<Value, Status> {
    let mut envelope = protobuf::open(body).map_err(|error| decode::unrecognized(expect, body, &error))?;
    if envelope.kind.is_empty() {
        envelope.kind = expect.kind.to_string();
    }
    if envelope.api_version.is_empty() {
        envelope.api_version = expect.api_version();
    }
    let (kind, version) = (&envelope.kind, &envelope.api_version);
    let Some(ty) = protobuf::kind(version, kind) else {
        return Ok(serde_json::json!({"apiVersion": version, "kind": kind}));
    };
    protobuf::unseal(&envelope, &ty).map_err(|error| {
        let version = version.rsplit('/').next().unwrap_or_default();
        cannot_handle(kind, version, &expect.kind, &error.to_string())
    })
}

/// Parses YAML as kubectl reads it: YAML 1.1's booleans and octal numbers, merge keys.
fn yaml(text: &str, strict: bool) -> Result<(Value, Vec<String>), Status> {
    use serde_saphyr::options::{DuplicateKeyPolicy, Options};
    let read = |duplicate_keys| {
        let mut options = Options::default();
        options.legacy_octal_numbers = true;
        if let Some(budget) = &mut options.budget {
            // What aliases can repeat: a bomb is found early, and no manifest has as much.
            budget.max_recorded_anchor_events = 100_000;
            budget.max_depth = MAX_DEPTH;
        }
        options.duplicate_keys = duplicate_keys;
        stacker::grow(YAML_STACK, || serde_saphyr::from_str_with_options::<Value>(text, options))
    };
    let describe = |error: &serde_saphyr::Error| {
        let error = error.without_snippet();
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default();
        match error.location().filter(|_| !message.contains("line ")) {
            Some(at) => format!("line {}, column {}: {message}", at.line(), at.column()),
            None => message.to_owned(),
        }
    };
    let value = read(DuplicateKeyPolicy::LastWins).map_err(|error| {
        Status::bad_request(format!("error converting YAML to JSON: yaml: {}", describe(&error)))
    })?;
    let twice = match strict.then(|| read(DuplicateKeyPolicy::Error)) {
        Some(Err(error)) => vec![describe(&error)],
        _ => Vec::new(),
    };
    Ok((value, twice))
}

/// Reads the object of a create or update: checked against the schema, in typed form, with defaults. Warns of or
/// refuses what the kind does not have, as the client wishes.
pub fn object(
    context: &Context<'_>,
    row: &Resource,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<Box<dyn Object>, Status> {
    let media = negotiate::object_media(context.headers)?;
    let (json, twice) = as_json(media, body, validation != FieldValidation::Ignore, &row.gvk())?;
    of_json(context, row, &json, twice, validation)
}

/// The same for a value, such as the result of a patch; `twice` are complaints about what it was made of.
pub fn of_value(
    context: &Context<'_>,
    row: &Resource,
    value: &Value,
    twice: Vec<String>,
    validation: FieldValidation,
) -> Result<Box<dyn Object>, Status> {
    of_json(context, row, value.to_string().as_bytes(), twice, validation)
}

fn of_json(
    context: &Context<'_>,
    row: &Resource,
    json: &[u8],
    twice: Vec<String>,
    validation: FieldValidation,
) -> Result<Box<dyn Object>, Status> {
    let table = api::resource::Table::builtin();
    let decoded = decode::body(&table, &row.gvk(), &row.schema, json, validation, row.rules.given())?;
    match validation {
        FieldValidation::Strict if !twice.is_empty() => {
            return Err(cannot_handle(&row.kind, &row.version, &row.kind, &decode::strict_error(&twice)));
        }
        FieldValidation::Warn => {
            twice.iter().chain(&decoded.warnings).for_each(|text| context.warnings.add(text))
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    let mut object = row.rules.decode(decoded.value)?;
    row.rules.set_defaults(&mut *object);
    Ok(object)
}

/// `Pod in version "v1" cannot be handled as a Pod: …`
fn cannot_handle(kind: &str, version: &str, expected: &str, why: &str) -> Status {
    let version = api::field::quote(version);
    Status::bad_request(format!("{kind} in version {version} cannot be handled as a {expected}: {why}"))
}

#[cfg(test)]
mod tests {
    use api::resource::Table;
    use api::schema::sample::sample;

    use super::*;
    use crate::negotiate::Accept;
    use crate::respond;

    #[test]
    fn what_is_answered_in_any_form_can_be_sent_back() {
        for row in Table::builtin().rows() {
            let gvk = row.gvk();
            for seed in 0..3 {
                let mut object = sample(&row.schema, seed);
                object["apiVersion"] = gvk.api_version().into();
                object["kind"] = gvk.kind.as_ref().into();
                let json = Bytes::from(object.to_string());
                for media in [Media::Json, Media::Yaml, Media::Cbor, Media::Protobuf] {
                    for pretty in [false, true] {
                        let accept = Accept { media, pretty, ..Accept::default() };
                        let bytes = respond::encode(accept, json.clone()).unwrap();
                        let back = value(media, &bytes, &gvk).unwrap();
                        assert_eq!(back, object, "{media:?} of {}, seed {seed}", gvk.kind);
                    }
                }
            }
        }
    }
}
