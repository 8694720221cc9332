//! `-o custom-columns`: a table of chosen fields.

use serde_json::Value;

use super::jsonpath::Template;
use super::table::aligned;
use crate::Failure;

/// Headers, and where their values are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Columns(Vec<(String, Template)>);

impl Columns {
    /// Reads `HEADER:PATH,HEADER:PATH`.
    pub(crate) fn parse(spec: &str) -> Result<Self, Failure> {
        let mut columns = Vec::new();
        for part in spec.split(',') {
            let Some((header, path)) = part.split_once(':') else {
                return Err(Failure::new(format!(
                    "error: unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                )));
            };
            columns.push((header.to_owned(), field(path)?));
        }
        Ok(Self(columns))
    }

    /// Reads a file: a line of headers, a line of paths.
    pub(crate) fn parse_file(text: &str) -> Result<Self, Failure> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut words = || lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let (headers, paths) = (words(), words());
        if headers.is_empty() || headers.len() != paths.len() {
            return Err(Failure::new(format!(
                "error: number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            )));
        }
        let column = |(header, path): (&str, &str)| Ok((header.to_owned(), field(path)?));
        Ok(Self(headers.into_iter().zip(paths).map(column).collect::<Result<_, Failure>>()?))
    }

    /// The objects as a table.
    pub(crate) fn table(&self, objects: &[Value], headers: bool) -> Result<String, Failure> {
        let mut rows = Vec::new();
        if headers {
            rows.push(self.0.iter().map(|(header, _)| header.clone()).collect());
        }
        for object in objects {
            let cell = |(_, path): &(String, Template)| {
                let found = path.values(object).map_err(|why| Failure::new(format!("error: {why}")))?;
                let texts: Vec<String> = found.into_iter().map(go_text).collect();
                Ok(if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") })
            };
            rows.push(self.0.iter().map(cell).collect::<Result<_, Failure>>()?);
        }
        Ok(aligned(&rows))
    }
}

/// A value as Go prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// A path, with or without braces and leading dot.
pub(crate) fn field(path: &str) -> Result<Template, Failure> {
    let bare = path.trim();
    let bare = bare.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(bare);
    let dotted = if bare.starts_with(['.', '[', '$', '@']) { bare.to_owned() } else { format!(".{bare}") };
    Template::parse(&format!("{{{dotted}}}"))
        .map_err(|why| Failure::new(format!("error: unexpected path string {path:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_become_columns_and_missing_ones_say_so() {
        let objects = [
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [{"image": "i"}, {"image": "j"}]}}),
            json!({"metadata": {"name": "b"}}),
        ];
        let columns =
            Columns::parse("NAME:.metadata.name,IMAGES:spec.containers[*].image,L:{.metadata.labels}")
                .unwrap();
        let lines = "\
NAME   IMAGES   L
a      i,j      map[x:y]
b      <none>   <none>
";
        assert_eq!(columns.table(&objects, true).unwrap(), lines);
        let from_file =
            Columns::parse_file("NAME IMAGES L\n.metadata.name spec.containers[*].image .metadata.labels\n");
        assert_eq!(from_file.unwrap().table(&objects, true).unwrap(), lines);
        for (spec, error) in [
            ("NAME", "error: unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>"),
            ("A:.a[", "error: unexpected path string \".a[\": unterminated array"),
        ] {
            assert_eq!(Columns::parse(spec).unwrap_err().to_string(), error);
        }
    }
}
