//! JSONPath templates as kubectl has them: `{.items[*].metadata.name}`, `{range ...}{end}`, filters, slices, unions,
//! recursive descent, and text between the braces.

use std::cell::Cell;
use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

/// Steps from the root (`$`) or from the current value (`@`, or nothing).
#[derive(Clone, Debug, PartialEq)]
struct Path {
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    /// `..`: the value and everything in it.
    Descend,
    Union(Vec<String>),
    Indices(Vec<Slice>),
    Filter(Operand, Option<(Operator, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Slice {
    start: Option<i64>,
    end: Option<i64>,
    step: Option<i64>,
    single: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

type Result<T> = std::result::Result<T, String>;

/// How many values a template may still look at: each `..` or range within another one multiplies them.
struct Budget(Cell<usize>);

/// More than any list has.
const MOST_VALUES: usize = 10_000_000;

impl Budget {
    fn new() -> Self {
        Self(Cell::new(MOST_VALUES))
    }

    fn spend(&self, values: usize) -> Result<()> {
        let left = self.0.get().checked_sub(values);
        self.0.set(left.ok_or_else(|| format!("the template leads to more than {MOST_VALUES} values"))?);
        Ok(())
    }
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self> {
        let mut parser = Parser { chars: source.chars().peekable(), depth: 0 };
        let (nodes, ended) = parser.nodes()?;
        if ended {
            return Err("not in range, nothing to end".to_owned());
        }
        Ok(Self { source: source.to_owned(), nodes })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text that the template makes of an object.
    pub(crate) fn run(&self, object: &Value) -> Result<String> {
        let mut out = String::new();
        execute(&self.nodes, object, object, &Budget::new(), &mut out)?;
        Ok(out)
    }

    /// The values of the template's paths.
    pub(crate) fn values<'a>(&self, object: &'a Value) -> Result<Vec<&'a Value>> {
        let (mut found, budget) = (Vec::new(), Budget::new());
        for node in &self.nodes {
            if let Node::Path(path) = node {
                found.extend(path.values(object, object, &budget)?);
            }
        }
        Ok(found)
    }
}

fn execute(nodes: &[Node], root: &Value, current: &Value, budget: &Budget, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let texts: Vec<String> =
                    path.values(root, current, budget)?.into_iter().map(to_text).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(path, body) => {
                for value in path.values(root, current, budget)? {
                    execute(body, root, value, budget, out)?;
                }
            }
        }
    }
    Ok(())
}

fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Path {
    fn values<'a>(&self, root: &'a Value, current: &'a Value, budget: &Budget) -> Result<Vec<&'a Value>> {
        let mut values = vec![if self.from_root { root } else { current }];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in values {
                let before = next.len();
                step.apply(root, value, budget, &mut next)?;
                budget.spend(1 + next.len() - before)?;
            }
            values = next;
        }
        Ok(values)
    }
}

impl Step {
    fn apply<'a>(
        &self,
        root: &'a Value,
        value: &'a Value,
        budget: &Budget,
        out: &mut Vec<&'a Value>,
    ) -> Result<()> {
        match self {
            Self::Field(key) => out.extend(value.get(key)),
            Self::Union(keys) => out.extend(keys.iter().filter_map(|key| value.get(key))),
            Self::Wildcard => match value {
                Value::Array(list) => out.extend(list),
                Value::Object(map) => out.extend(map.values()),
                _ => {}
            },
            Self::Descend => descend(value, out),
            Self::Indices(slices) => {
                if let Value::Array(list) = value {
                    for slice in slices {
                        slice.apply(list, out)?;
                    }
                } else if !value.is_null() {
                    return Err(format!("{} is not array or slice", kind_of(value)));
                }
            }
            Self::Filter(left, right) => {
                let mut keep = |item: &'a Value| -> Result<()> {
                    if holds(left, right.as_ref(), root, item, budget)? {
                        out.push(item);
                    }
                    Ok(())
                };
                match value {
                    Value::Array(list) => list.iter().try_for_each(&mut keep)?,
                    Value::Object(map) => map.values().try_for_each(&mut keep)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    match value {
        Value::Array(list) => list.iter().for_each(|value| descend(value, out)),
        Value::Object(map) => map.values().for_each(|value| descend(value, out)),
        _ => {}
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "map",
    }
}

impl Slice {
    fn apply<'a>(self, list: &'a [Value], out: &mut Vec<&'a Value>) -> Result<()> {
        let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let absolute = |index: i64| if index < 0 { index + length } else { index };
        let at = |index: i64| usize::try_from(index).ok().and_then(|index| list.get(index));
        if self.single {
            let index = self.start.unwrap_or_default();
            let found = at(absolute(index))
                .ok_or_else(|| format!("array index out of bounds: index {index}, length {length}"))?;
            out.push(found);
            return Ok(());
        }
        let step = self.step.unwrap_or(1);
        if step <= 0 {
            return Err("step must be > 0".to_owned());
        }
        let start = absolute(self.start.unwrap_or(0)).max(0);
        let end = absolute(self.end.unwrap_or(length)).min(length);
        let mut index = start;
        while index < end {
            out.extend(at(index));
            index = index.saturating_add(step);
        }
        Ok(())
    }
}

fn holds(
    left: &Operand,
    right: Option<&(Operator, Operand)>,
    root: &Value,
    item: &Value,
    budget: &Budget,
) -> Result<bool> {
    let values = |operand: &Operand| -> Result<Vec<Value>> {
        Ok(match operand {
            Operand::Literal(value) => vec![value.clone()],
            Operand::Path(path) => path.values(root, item, budget)?.into_iter().cloned().collect(),
        })
    };
    let found = values(left)?;
    let Some((operator, right)) = right else { return Ok(!found.is_empty()) };
    let other = values(right)?;
    // A missing side compares with nothing.
    let (Some(left), Some(right)) = (found.first(), other.first()) else { return Ok(false) };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    Ok(match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    })
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    /// So many ranges and filters are open.
    depth: usize,
}

/// No template that says something is nested deeper.
const MAX_DEPTH: usize = 100;

impl Parser<'_> {
    /// Reads what is within a range or a filter.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} ranges and filters within each other"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Nodes up to the end of the text or of the range; whether it was `{end}` that ended them.
    fn nodes(&mut self) -> Result<(Vec<Node>, bool)> {
        let mut nodes = Vec::new();
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            if c != '{' {
                text.push(c);
                continue;
            }
            if !text.is_empty() {
                nodes.push(Node::Text(std::mem::take(&mut text)));
            }
            if self.action(&mut nodes)? {
                return Ok((nodes, true));
            }
        }
        if !text.is_empty() {
            nodes.push(Node::Text(text));
        }
        Ok((nodes, false))
    }

    /// What is between braces. True for `{end}`.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<bool> {
        loop {
            self.spaces();
            match self.chars.peek().copied() {
                None => return Err("unclosed action".to_owned()),
                Some('}') => {
                    self.chars.next();
                    return Ok(false);
                }
                Some(quote @ ('"' | '\'')) => nodes.push(Node::Text(self.quoted(quote)?)),
                Some('.' | '[' | '$' | '@') => nodes.push(Node::Path(self.path(false)?)),
                Some(c) if c.is_alphabetic() => match self.word().as_str() {
                    "end" => {
                        self.close()?;
                        return Ok(true);
                    }
                    "range" => {
                        self.spaces();
                        let path = self.path(false)?;
                        self.close()?;
                        let (body, ended) = self.within(Self::nodes)?;
                        if !ended {
                            return Err("unexpected end of range: missing {end}".to_owned());
                        }
                        nodes.push(Node::Range(path, body));
                        return Ok(false);
                    }
                    word => {
                        let steps = vec![Step::Field(word.to_owned())];
                        let mut path = self.path(false)?;
                        path.steps.splice(0..0, steps);
                        nodes.push(Node::Path(path));
                    }
                },
                Some(c) if c.is_ascii_digit() || c == '-' => nodes.push(Node::Text(self.number_text())),
                Some(c) => {
                    return Err(format!("unrecognized character in action: U+{:04X} '{c}'", u32::from(c)));
                }
            }
        }
    }

    fn close(&mut self) -> Result<()> {
        self.spaces();
        match self.chars.next() {
            Some('}') => Ok(()),
            _ => Err("unclosed action".to_owned()),
        }
    }

    fn spaces(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '-') {
            word.push(c);
        }
        word
    }

    fn number_text(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_digit() || "+-.eE".contains(*c)) {
            text.push(c);
        }
        text
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        self.chars.next();
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if c == quote => return Ok(text),
                '\\' => match self.chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c) => text.push(c),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    /// A path. In a filter, it ends also where an operator or the parenthesis begins.
    fn path(&mut self, in_filter: bool) -> Result<Path> {
        let from_root = self.chars.next_if_eq(&'$').is_some();
        if !from_root {
            self.chars.next_if_eq(&'@');
        }
        let mut steps = Vec::new();
        loop {
            match self.chars.peek() {
                Some('.') => {
                    self.chars.next();
                    if self.chars.next_if_eq(&'.').is_some() {
                        steps.push(Step::Descend);
                        if self.chars.peek() == Some(&'[') {
                            continue;
                        }
                    }
                    if self.chars.next_if_eq(&'*').is_some() {
                        steps.push(Step::Wildcard);
                        continue;
                    }
                    let field = self.field(in_filter);
                    if !field.is_empty() {
                        steps.push(Step::Field(field));
                    }
                }
                Some('[') => {
                    self.chars.next();
                    steps.push(self.bracket()?);
                }
                _ => return Ok(Path { from_root, steps }),
            }
        }
    }

    fn field(&mut self, in_filter: bool) -> String {
        let mut field = String::new();
        while let Some(c) = self.chars.peek().copied() {
            match c {
                '\\' => {
                    self.chars.next();
                    field.extend(self.chars.next());
                }
                '.' | '[' | ']' | '}' | '{' | '(' | ')' | '"' | '\'' | ',' | '$' | '@' => break,
                '=' | '!' | '<' | '>' | '&' | '|' if in_filter => break,
                c if c.is_whitespace() => break,
                c => {
                    self.chars.next();
                    field.push(c);
                }
            }
        }
        field
    }

    fn bracket(&mut self) -> Result<Step> {
        self.spaces();
        match self.chars.peek().copied() {
            None => Err("unterminated array".to_owned()),
            Some('*') => {
                self.chars.next();
                self.end_bracket()?;
                Ok(Step::Wildcard)
            }
            Some('?') => {
                self.chars.next();
                if self.chars.next() != Some('(') {
                    return Err("invalid filter: expected (".to_owned());
                }
                let filter = self.within(Self::filter)?;
                self.end_bracket()?;
                Ok(filter)
            }
            Some('"' | '\'') => {
                let mut keys = Vec::new();
                loop {
                    self.spaces();
                    match self.chars.peek().copied() {
                        Some(quote @ ('"' | '\'')) => keys.push(self.quoted(quote)?),
                        _ => return Err("unterminated array".to_owned()),
                    }
                    self.spaces();
                    match self.chars.next() {
                        Some(',') => {}
                        Some(']') => return Ok(Step::Union(keys)),
                        _ => return Err("unterminated array".to_owned()),
                    }
                }
            }
            Some(_) => {
                let mut text = String::new();
                loop {
                    match self.chars.next() {
                        Some(']') => break,
                        Some(c) => text.push(c),
                        None => return Err("unterminated array".to_owned()),
                    }
                }
                text.split(',').map(|part| slice(part.trim())).collect::<Result<_>>().map(Step::Indices)
            }
        }
    }

    fn end_bracket(&mut self) -> Result<()> {
        self.spaces();
        if self.chars.next() == Some(']') { Ok(()) } else { Err("unterminated array".to_owned()) }
    }

    fn filter(&mut self) -> Result<Step> {
        let left = self.operand()?;
        self.spaces();
        let mut operator = String::new();
        while let Some(c) = self.chars.next_if(|c| "=!<>".contains(*c)) {
            operator.push(c);
        }
        let right = match operator.as_str() {
            "" => None,
            "==" => Some(Operator::Equal),
            "!=" => Some(Operator::NotEqual),
            "<" => Some(Operator::Less),
            "<=" => Some(Operator::LessOrEqual),
            ">" => Some(Operator::Greater),
            ">=" => Some(Operator::GreaterOrEqual),
            other => return Err(format!("unrecognized filter operator {other}")),
        };
        let right = match right {
            Some(operator) => Some((operator, self.operand()?)),
            None => None,
        };
        self.spaces();
        match self.chars.next() {
            Some(')') => Ok(Step::Filter(left, right)),
            _ => Err("unterminated filter".to_owned()),
        }
    }

    fn operand(&mut self) -> Result<Operand> {
        self.spaces();
        match self.chars.peek().copied() {
            Some(quote @ ('"' | '\'')) => Ok(Operand::Literal(self.quoted(quote)?.into())),
            Some('@' | '$' | '.' | '[') => Ok(Operand::Path(self.path(true)?)),
            Some(c) if c.is_ascii_digit() || c == '-' || c == '+' => {
                let text = self.number_text();
                let number = serde_json::from_str::<Value>(text.trim_start_matches('+'));
                number.map(Operand::Literal).map_err(|_| format!("cannot parse number {text}"))
            }
            Some(c) if c.is_alphabetic() => match self.word().as_str() {
                "true" => Ok(Operand::Literal(true.into())),
                "false" => Ok(Operand::Literal(false.into())),
                word => Err(format!("unrecognized identifier {word}")),
            },
            _ => Err("unterminated filter".to_owned()),
        }
    }
}

fn slice(text: &str) -> Result<Slice> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |i: usize| match parts.get(i).map(|part| part.trim()) {
        None | Some("") => Ok(None),
        Some(part) => part.parse().map(Some).map_err(|_| format!("invalid array index {text}")),
    };
    let single = parts.len() == 1;
    if parts.len() > 3 || (single && text.is_empty()) {
        return Err(format!("invalid array index {text}"));
    }
    Ok(Slice { start: number(0)?, end: number(1)?, step: number(2)?, single })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Value {
        json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "a"}},
                 "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "Legacy", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2"},
                 "status": {"capacity": {"cpu": "8"}, "n": 5, "addresses": [
                     {"type": "Legacy", "address": "127.0.0.2"}, {"type": "Other", "address": "127.0.0.3"}]}},
            ],
            "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
        })
    }

    #[test]
    fn templates_make_what_kubectl_documents() {
        for (template, text) in [
            ("{.kind}", "List"),
            ("{['kind']}", "List"),
            ("{$.kind}", "List"),
            ("kind is {.kind}\n", "kind is List\n"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.users[0].name}", "myself"),
            ("{.users[-1].name}", "e2e"),
            ("{.users[0,1].name}", "myself e2e"),
            ("{.users[0:2:2].name}", "myself"),
            ("{.users[1:].name}", "e2e"),
            ("{.users[1:2:9223372036854775807].name}", "e2e"),
            (r#"{.users[?(@.name=="e2e")].user.password}"#, "secret"),
            ("{.users[?(@.name=='e2e')].user.password}", "secret"),
            ("{.items[?(@.status.n>4)].metadata.name}", "127.0.0.2"),
            ("{.items[?(@.status.n)].metadata.name}", "127.0.0.2"),
            ("{.items[?(@.status.n != 5)].metadata.name}", ""),
            (
                r#"{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}"#,
                "[127.0.0.1, 4] [127.0.0.2, 8] ",
            ),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{end}{"\n"}"#, "127.0.0.1\t127.0.0.2\t\n"),
            (r"{.items[*].metadata.labels.kubernetes\.io/hostname}", "a"),
            (
                r#"{range .items[*]}{range .status.addresses[*]}{.address};{end}|{end}"#,
                "127.0.0.1;|127.0.0.2;127.0.0.3;|",
            ),
            ("{.nothing.there}", ""),
            ("{.items[1].status.capacity}", r#"{"cpu":"8"}"#),
            ("{.items[1].status.n}", "5"),
            ("{@.kind}", "List"),
        ] {
            let made = Template::parse(template).and_then(|parsed| parsed.run(&pods()));
            assert_eq!(made.as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn unions_take_several_keys() {
        let object = json!({"a": 1, "b": {"c": 2}});
        let made = Template::parse("{['a','b']}").and_then(|parsed| parsed.run(&object));
        assert_eq!(made.as_deref(), Ok(r#"1 {"c":2}"#));
    }

    #[test]
    fn a_template_that_multiplies_values_comes_to_an_end() {
        let ranges = format!("{}{}", "{range ..}".repeat(100), "{end}".repeat(100));
        for template in [format!("{{{}}}", "..".repeat(60)), ranges] {
            let made = Template::parse(&template).and_then(|parsed| parsed.run(&pods()));
            assert_eq!(made, Err("the template leads to more than 10000000 values".to_owned()), "{template}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_no_template() {
        let filters = format!("{{.a{}", "[?(@".repeat(100_000));
        for template in ["{range .a}".repeat(100_000), filters] {
            let why = "more than 100 ranges and filters within each other";
            assert_eq!(Template::parse(&template), Err(why.to_owned()), "{}", &template[..10]);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, error) in [
            ("{.a", "unclosed action"),
            ("{.a[}", "unterminated array"),
            ("{.a[x]}", "invalid array index x"),
            ("{range .items[*]}x", "unexpected end of range: missing {end}"),
            ("{end}", "not in range, nothing to end"),
            ("{\"a}", "unterminated quoted string"),
            ("{.a[?(@.b=~'c')]}", "unrecognized filter operator ="),
            ("{.users[5]}", "array index out of bounds: index 5, length 2"),
        ] {
            let made = Template::parse(template).and_then(|parsed| parsed.run(&pods()));
            assert!(made.as_ref().is_err_and(|why| why.starts_with(error)), "{template}: {made:?}");
        }
    }
}
