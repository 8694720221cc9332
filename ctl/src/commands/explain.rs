//! `skiff explain`: what the fields of a resource mean, from the server's OpenAPI documents, laid out as kubectl does.

use clap::Args;
use serde_json::Value;

use super::print;
use crate::Failure;
use crate::resources::{Call, Mapping, Session, items, text};

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// TYPE, or TYPE.FIELD.FIELD
    #[arg(value_name = "TYPE")]
    path: String,
    /// When true, print the name of all the fields recursively
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    recursive: bool,
    /// Use given api-version (group/version) of the resource
    #[arg(long)]
    api_version: Option<String>,
}

impl Explain {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (mapping, fields) = self.resource(session).await?;
        let root = if mapping.group.is_empty() {
            format!("/openapi/v3/api/{}", mapping.version)
        } else {
            format!("/openapi/v3/apis/{}/{}", mapping.group, mapping.version)
        };
        let document = session.json(Call::get(root)).await?;
        let page = Page { schemas: &document["components"]["schemas"], recursive: self.recursive };
        let wanted = |schema: &&Value| {
            items(schema, "x-kubernetes-group-version-kind").iter().any(|gvk| {
                gvk["group"] == mapping.group.as_str()
                    && gvk["version"] == mapping.version.as_str()
                    && gvk["kind"] == mapping.kind.as_str()
            })
        };
        let schema = page.schemas.as_object().and_then(|schemas| schemas.values().find(wanted));
        let schema = schema.ok_or_else(|| {
            Failure::new(format!("error: {} is not in the server's OpenAPI document", mapping.kind))
        })?;
        let mut out = String::new();
        if !mapping.group.is_empty() {
            out.push_str(&format!("GROUP:      {}\n", mapping.group));
        }
        out.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", mapping.kind, mapping.version));
        let path: Vec<&str> = fields.split('.').filter(|field| !field.is_empty()).collect();
        match page.output(schema, &path, &[]) {
            Some(output) => print(out + &output + "\n"),
            None => {
                let field = path.last().copied().unwrap_or_default();
                Err(Failure::new(format!("error: field {field:?} does not exist")))
            }
        }
    }

    /// The resource and the path below it. The resource's name may be followed by its group.
    async fn resource(&self, session: &Session) -> Result<(Mapping, String), Failure> {
        let (name, mut rest) = self.path.split_once('.').unwrap_or((self.path.as_str(), ""));
        let mut mapping = session.resource(name).await?;
        if let Some(version) = &self.api_version {
            mapping = session.kind(version, &mapping.kind).await?.ok_or_else(|| {
                Failure::new(format!("error: couldn't find resource for {version:?}, Kind={}", mapping.kind))
            })?;
            return Ok((mapping, rest.to_owned()));
        }
        for other in session.discover().await? {
            let below = rest.strip_prefix(other.group.as_str()).filter(|_| !other.group.is_empty());
            let below =
                below.and_then(|below| if below.is_empty() { Some("") } else { below.strip_prefix('.') });
            if let Some(below) = below.filter(|_| other.plural == mapping.plural) {
                (mapping, rest) = (other.clone(), below);
                break;
            }
        }
        Ok((mapping, rest.to_owned()))
    }
}

/// What is printed of one document.
struct Page<'a> {
    schemas: &'a Value,
    recursive: bool,
}

impl<'a> Page<'a> {
    /// The schema that a `$ref` leads to, and its name.
    fn referred(&self, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = schema["$ref"].as_str()?.rsplit('/').next()?;
        Some((name, self.schemas.get(name)?))
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        self.referred(schema).map_or(schema, |(_, found)| found)
    }

    /// Follows the path and prints what is there. None if it leads nowhere.
    fn output(&self, schema: &'a Value, path: &[&str], above: &[&'a str]) -> Option<String> {
        let reference = self.referred(schema).map(|(name, _)| name);
        let resolved = self.resolved(schema);
        let Some((field, rest)) = path.split_first() else {
            return Some(self.description_and_fields(resolved));
        };
        if reference.is_some_and(|name| above.contains(&name)) {
            return None;
        }
        if let Some(found) = resolved["properties"].get(field) {
            let mut out = String::new();
            if rest.is_empty() {
                out.push_str(&format!(
                    "FIELD: {field} <{}>\n{}\n\n",
                    self.type_name(found),
                    all_values(found)
                ));
            }
            return Some(out + &self.output(found, rest, &[])?);
        }
        let above = [above, reference.as_slice()].concat();
        match inner(resolved) {
            Some(item) => self.output(item, path, &above),
            None => items(resolved, "allOf").iter().find_map(|part| self.output(part, path, &above)),
        }
    }

    fn description_and_fields(&self, schema: &'a Value) -> String {
        let mut description = String::new();
        self.describe(schema, &mut description);
        let description = if description.is_empty() { "<empty>" } else { &description };
        let mut out = format!("DESCRIPTION:\n{}\n", block(description, 76, 4));
        let mut fields = String::new();
        self.list(&mut fields, schema, 1, &[]);
        if !fields.is_empty() {
            out.push_str("FIELDS:\n");
            out.push_str(&fields);
        }
        out
    }

    /// What is said of a schema, and of those that it is made of.
    fn describe(&self, schema: &'a Value, out: &mut String) {
        let schema = self.resolved(schema);
        let own = text(schema, "description");
        if !own.is_empty() {
            out.push_str(own);
            out.push('\n');
        }
        let parts = items(schema, "allOf").iter().chain(schema.get("items"));
        parts.chain(additional(schema)).for_each(|part| self.describe(part, out));
    }

    /// The fields of a schema. A type that holds itself is shown once.
    fn list(&self, out: &mut String, schema: &'a Value, level: usize, above: &[&'a str]) {
        let reference = self.referred(schema).map(|(name, _)| name);
        if reference.is_some_and(|name| above.contains(&name)) {
            return;
        }
        let above = [above, reference.as_slice()].concat();
        let resolved = self.resolved(schema);
        let required = items(resolved, "required");
        for (name, field) in resolved["properties"].as_object().into_iter().flatten() {
            let must = if required.iter().any(|required| required == name) { " -required-" } else { "" };
            let indent = level * 2;
            let pad = " ".repeat(indent);
            let values = first_values(field, &pad);
            out.push_str(&format!("{pad}{name}\t<{}>{must}{values}\n", self.type_name(field)));
            if self.recursive {
                self.list(out, field, level + 1, &above);
                continue;
            }
            let description = match text(field, "description") {
                "" => "<no description>",
                own => own,
            };
            out.push_str(&block(description, 78 - indent, indent + 2));
            out.push_str("\n\n");
        }
        let parts = items(resolved, "allOf").iter().chain(resolved.get("items"));
        parts.chain(additional(resolved)).for_each(|part| self.list(out, part, level, &above));
    }

    fn type_name(&self, schema: &'a Value) -> String {
        if let Some(item) = schema.get("items") {
            return format!("[]{}", self.type_name(item));
        }
        if let Some(item) = additional(schema) {
            return format!("map[string]{}", self.type_name(item));
        }
        if let ([only], true) = (items(schema, "allOf"), schema["properties"].is_null()) {
            return self.type_name(only);
        }
        let ty = match self.referred(schema) {
            Some((name, target)) => match text(target, "type") {
                "" | "object" => name.rsplit('.').next().unwrap_or(name),
                scalar => scalar,
            },
            None => text(schema, "type"),
        };
        match ty {
            "" | "object" => "Object".to_owned(),
            ty => ty.to_owned(),
        }
    }
}

/// The schema of a map's values.
fn additional(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|item| item.is_object())
}

/// The schema of the items of a list or map.
fn inner(schema: &Value) -> Option<&Value> {
    schema.get("items").or_else(|| additional(schema))
}

fn values(schema: &Value) -> impl Iterator<Item = &str> {
    let texts = items(schema, "enum").iter().map(|value| value.as_str().unwrap_or_default());
    texts.map(|value| if value.is_empty() { "\"\"" } else { value })
}

/// The values that a field may have, one a line.
fn all_values(schema: &Value) -> String {
    let lines: String = values(schema).map(|value| format!("\n    {value}")).collect();
    if lines.is_empty() { lines } else { format!("ENUM:{lines}") }
}

/// The first of the values that a field may have, on a line of their own.
fn first_values(schema: &Value, pad: &str) -> String {
    let all: Vec<&str> = values(schema).collect();
    match all.len() {
        0 => String::new(),
        1..=4 => format!("\n{pad}enum: {}", all.join(", ")),
        _ => format!("\n{pad}enum: {}, ....", all[..4].join(", ")),
    }
}

/// A text in lines of at most `width`, indented.
fn block(text: &str, width: usize, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let lines: Vec<String> = text.split('\n').map(|line| wrapped(line, width, &pad)).collect();
    lines.join("\n")
}

/// One line, broken at spaces. Those between words stay as they are, those at a break go.
fn wrapped(line: &str, width: usize, pad: &str) -> String {
    let mut out = pad.to_owned();
    let (mut used, mut rest) = (0, line);
    while !rest.is_empty() {
        let word = rest.trim_start();
        let spaces = rest.len() - word.len();
        let end = word.find(char::is_whitespace).unwrap_or(word.len());
        let length = word[..end].chars().count();
        // A word that is too long for any line stays whole.
        if used + spaces > 0 && length > 0 && used + spaces + length > width {
            out.push('\n');
            out.push_str(pad);
            used = 0;
        } else if used + spaces <= width {
            out.push_str(&rest[..spaces]);
            used += spaces;
        }
        out.push_str(&word[..end]);
        used += length;
        rest = &word[end..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces() {
        for (text, expected) in [
            ("", "  "),
            ("aa bb", "  aa bb"),
            ("aa bb cc dd", "  aa bb cc\n  dd"),
            ("aa bb\n\n - cc", "  aa bb\n  \n   - cc"),
            ("aaaaaaaaaaaa bb", "  aaaaaaaaaaaa\n  bb"),
            ("bb aaaaaaaaaaaa", "  bb\n  aaaaaaaaaaaa"),
            ("aa.\n", "  aa.\n  "),
        ] {
            assert_eq!(block(text, 8, 2), expected, "{text:?}");
        }
    }
}
