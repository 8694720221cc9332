//! The defaults in a schema: each must be a value that the schema takes.
//!
//! Patterns and rules in CEL are not asked here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::check::{list, text},
};

/// Checks the defaults of a schema and of its parts.
pub(super) fn validate(errors: &mut Errors, path: &Path, schema: &JSONSchemaProps) {
    if let Some(default) = &schema.default
        && !default.0.is_null()
    {
        value(errors, &path.child("default"), "", schema, &default.0);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        validate(errors, &path.child("items"), items);
    }
    for (name, property) in schema.properties.iter().flatten() {
        validate(errors, &path.child("properties").key(name), property);
    }
}

/// Checks a value. `name` is where it is inside of the default; upstream begins its words with it.
fn value(errors: &mut Errors, path: &Path, name: &str, schema: &JSONSchemaProps, value: &Value) {
    let before = errors.len();
    let at = if name.is_empty() { path.clone() } else { path.child(name) };
    let kind = text(&schema.type_);
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    if !kind.is_empty() && !is_of(value, kind) {
        let is = type_of(value);
        let detail = format!("{name} in body must be of type {kind}: \"{is}\"");
        errors.push(FieldError::type_invalid(&at, is, detail));
    }
    if !list(&schema.enum_).is_empty() && !list(&schema.enum_).iter().any(|allowed| allowed.0 == *value) {
        let allowed: Vec<String> = list(&schema.enum_).iter().map(|allowed| plain(&allowed.0)).collect();
        errors.push(FieldError::not_supported(&at, shown(value), &allowed));
    }
    if errors.len() > before {
        return;
    }
    let mut refuse =
        |why: String| errors.push(FieldError::invalid(&at, shown(value), format!("{name} in body {why}")));
    match value {
        Value::Number(number) => {
            number_problems(schema, number.as_f64().unwrap_or_default()).for_each(&mut refuse)
        }
        Value::String(given) => {
            let length = i64::try_from(given.chars().count()).unwrap_or(i64::MAX);
            if let Some(least) = schema.min_length.filter(|least| length < *least) {
                refuse(format!("should be at least {least} chars long"));
            }
            if let Some(most) = schema.max_length.filter(|most| length > *most) {
                errors.push(FieldError::too_long(&at, usize::try_from(most).unwrap_or_default()));
            }
        }
        Value::Array(items) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if let Some(least) = schema.min_items.filter(|least| length < *least) {
                refuse(format!("should have at least {least} items"));
            }
            if let Some(most) = schema.max_items.filter(|most| length > *most) {
                let most = usize::try_from(most).unwrap_or_default();
                errors.push(FieldError::too_many(&at, items.len(), most));
            }
            if let Some(JSONSchemaPropsOrArray::Schema(of_item)) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    self::value(errors, path, &format!("{name}[{i}]"), of_item, item);
                }
            }
        }
        Value::Object(fields) => {
            for required in list(&schema.required).iter().filter(|required| !fields.contains_key(*required)) {
                errors.push(FieldError::required(&path.child(&inside(name, required)), ""));
            }
            for (field, given) in fields {
                let property = schema.properties.as_ref().and_then(|properties| properties.get(field));
                let of_others = match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(others)) => Some(&**others),
                    _ => None,
                };
                if let Some(of_field) = property.or(of_others) {
                    self::value(errors, path, &inside(name, field), of_field, given);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn inside(name: &str, field: &str) -> String {
    if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") }
}

fn number_problems(schema: &JSONSchemaProps, number: f64) -> impl Iterator<Item = String> {
    let below = schema.minimum.and_then(|least| match schema.exclusive_minimum == Some(true) {
        true => (number <= least).then(|| format!("should be greater than {}", go_float(least))),
        false => (number < least).then(|| format!("should be greater than or equal to {}", go_float(least))),
    });
    let above = schema.maximum.and_then(|most| match schema.exclusive_maximum == Some(true) {
        true => (number >= most).then(|| format!("should be less than {}", go_float(most))),
        false => (number > most).then(|| format!("should be less than or equal to {}", go_float(most))),
    });
    let of = schema.multiple_of.filter(|of| *of > 0.0 && (number / of).fract() != 0.0);
    let odd = of.map(|of| format!("should be a multiple of {}", go_float(of)));
    [odd, above, below].into_iter().flatten()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match (value, kind) {
        (Value::Number(_), "number") => true,
        (Value::Number(number), "integer") => number.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => type_of(value) == kind,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shown(value: &Value) -> BadValue {
    BadValue::of(value)
}

/// A number as Go prints it: with an exponent where it has more than four zeros in front or more than six digits.
fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    if exponent.parse().is_ok_and(|power: i32| (-4..6).contains(&power)) {
        return number.to_string();
    }
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::aggregate;

    #[test]
    fn a_default_is_a_value_that_its_schema_takes() {
        let whole = json!({"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 2});
        let text =
            json!({"type": "string", "minLength": 2, "maxLength": 3, "enum": ["ab", "abc", "a", "abcd"]});
        let deep = json!({
            "type": "object", "required": ["n"], "additionalProperties": {"type": "string"},
            "properties": {"n": {"type": "array", "minItems": 1, "maxItems": 2, "items": whole}},
        });
        for (schema, default, problem) in [
            (&whole, json!(2), ""),
            (&whole, json!(2.0), ""),
            (&whole, json!(null), ""),
            (
                &whole,
                json!(2.5),
                "p.default: Invalid value: \"number\":  in body must be of type integer: \"number\"",
            ),
            (
                &whole,
                json!("x"),
                "p.default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ),
            (&whole, json!(0), "p.default: Invalid value: 0:  in body should be greater than or equal to 1"),
            (&whole, json!(10), "p.default: Invalid value: 10:  in body should be less than or equal to 9"),
            (&whole, json!(3), "p.default: Invalid value: 3:  in body should be a multiple of 2"),
            (&text, json!("ab"), ""),
            (&text, json!("a"), "p.default: Invalid value: \"a\":  in body should be at least 2 chars long"),
            (&text, json!("abcd"), "p.default: Too long: may not be more than 3 bytes"),
            (
                &text,
                json!("x"),
                "p.default: Unsupported value: \"x\": supported values: \"ab\", \"abc\", \"a\", \"abcd\"",
            ),
            (&deep, json!({"n": [2], "m": "x"}), ""),
            (&deep, json!({}), "p.default.n: Required value"),
            (
                &deep,
                json!({"n": []}),
                "p.default.n: Invalid value: []: n in body should have at least 1 items",
            ),
            (&deep, json!({"n": [2, 2, 2]}), "p.default.n: Too many: 3: must have at most 2 items"),
            (
                &deep,
                json!({"n": [true]}),
                "p.default.n[0]: Invalid value: \"boolean\": n[0] in body must be of type integer: \"boolean\"",
            ),
            (
                &deep,
                json!({"n": [2], "m": 1}),
                "p.default.m: Invalid value: \"integer\": m in body must be of type string: \"integer\"",
            ),
        ] {
            let mut schema: JSONSchemaProps = serde_json::from_value(schema.clone()).unwrap();
            schema.default = serde_json::from_value(default.clone()).ok();
            let mut errors = Errors::new();
            validate(&mut errors, &Path::new("p"), &schema);
            assert_eq!(aggregate(&errors), problem, "{default}");
        }
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.5, "1.5"),
            (-3.0, "-3"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_099_511_627_776.0, "1.099511627776e+12"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }
}
