//! YAML as kubectl prints it: sorted keys, two spaces, lists at the level of their key, text quoted only where it
//! would mean something else.

use std::fmt::Write;

use serde_json::Value;

/// The object as a document, with a line feed at its end.
pub(crate) fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0, true),
        Value::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        scalar => {
            inline(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// `first_padded`: the first key begins a line of its own, not one that a dash has begun.
fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize, first_padded: bool) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 || first_padded {
            pad(out, indent);
        }
        scalar(out, key, indent, true);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2, true);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                sequence(out, list, indent);
            }
            other => {
                out.push(' ');
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, list: &[Value], indent: usize) {
    for value in list {
        pad(out, indent);
        out.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, indent + 2, false),
            Value::Array(inner) if !inner.is_empty() => {
                // The inner list starts on the same line as the dash.
                let mut nested = String::new();
                sequence(&mut nested, inner, indent + 2);
                out.push_str(nested.trim_start());
            }
            other => {
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn inline(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => scalar(out, text, indent, false),
        // Writing to a String can't fail.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn scalar(out: &mut String, text: &str, indent: usize, key: bool) {
    let special = text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{feff}' || c == '\u{2028}');
    if special || (key && text.contains('\n')) {
        double_quoted(out, text);
    } else if text.contains('\n') {
        literal(out, text, indent);
    } else if resolves_otherwise(text) {
        double_quoted(out, text);
    } else if is_plain(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text.ends_with("\n\n") || text == "\n" {
        out.push('+');
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent.max(2));
            out.push_str(line);
        }
    }
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || c == '\u{feff}' || c == '\u{2028}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether the text, unquoted, would be read as something else than text.
fn resolves_otherwise(text: &str) -> bool {
    const WORDS: [&str; 15] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf",
        "+.inf",
    ];
    let lower = text.to_lowercase();
    if WORDS.contains(&lower.as_str()) || text == "<<" || text == "=" {
        return true;
    }
    looks_like_number(text) || looks_like_date(text)
}

fn looks_like_number(text: &str) -> bool {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let digits = bare.replace('_', "");
    let radix = |prefix: &str, radix| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    if radix("0x", 16) || radix("0o", 8) || radix("0b", 2) {
        return true;
    }
    // Minutes and hours of YAML 1.1: 1:30.
    let parts: Vec<&str> = digits.split(':').collect();
    let sexagesimal = parts.len() > 1
        && parts.iter().all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
        && parts[1..].iter().all(|part| part.len() <= 2);
    sexagesimal || (digits.chars().any(|c| c.is_ascii_digit()) && digits.parse::<f64>().is_ok())
}

fn looks_like_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && text.chars().all(|c| c.is_ascii_digit() || "-:TtZz. +".contains(c))
}

fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    if text.starts_with(' ') || text.ends_with(' ') || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    if "#,[]{}&*!|>'\"%@`".contains(first) {
        return false;
    }
    if "-?:".contains(first) && text[1..].chars().next().is_none_or(|c| c == ' ') {
        return false;
    }
    !text.contains(": ") && !text.contains(" #") && !text.ends_with(':')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_look_as_kubectl_prints_them() {
        let object = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "x", "labels": {}, "annotations": {"a": "{\"b\":1}\n"}},
            "spec": {"containers": [{"name": "a", "args": ["-c", "x: y", "true"], "ports": []}], "q": [[1, 2], [3]]},
        });
        let text = "\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    a: |
      {\"b\":1}
  labels: {}
  name: x
spec:
  containers:
  - args:
    - -c
    - 'x: y'
    - \"true\"
    name: a
    ports: []
  q:
  - - 1
    - 2
  - - 3
";
        assert_eq!(to_string(&object), text);
    }

    #[test]
    fn text_is_quoted_where_it_would_mean_something_else() {
        for (value, text) in [
            ("plain text", "plain text"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("null", "\"null\""),
            ("12", "\"12\""),
            ("1e3", "\"1e3\""),
            ("0x1f", "\"0x1f\""),
            ("1:30", "\"1:30\""),
            ("1.2.3", "1.2.3"),
            ("10.0.0.1", "10.0.0.1"),
            ("100m", "100m"),
            ("2026-01-01T00:00:00Z", "\"2026-01-01T00:00:00Z\""),
            ("*", "'*'"),
            ("- a", "'- a'"),
            ("-a", "-a"),
            ("it's", "it's"),
            ("'a", "'''a'"),
            ("a: b", "'a: b'"),
            ("a:b", "a:b"),
            ("a #b", "'a #b'"),
            ("a\tb", "\"a\\tb\""),
            ("{a}", "'{a}'"),
        ] {
            assert_eq!(to_string(&json!(value)), format!("{text}\n"), "{value:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "a\nb",
            "a\nb\n",
            "a\n\n",
            " a\nb",
            "\n",
            "\na\n",
            "a\n  b\n\n\nc",
            "é\u{1f600}",
            "\u{7}",
            "0755",
            "a\\b",
        ] {
            let object = json!({"kind": "x", "a": {"b": [text, {"c": text}], text.trim(): 1}});
            let printed = to_string(&object);
            assert_eq!(crate::resources::files::yaml(&printed, 0), Ok(object), "{printed}");
        }
    }
}
