//! Label selectors: as text (`app=web,tier in (a,b),!old`), and as objects have them (`metav1.LabelSelector`).

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::SelectorError;
use crate::{
    field::{self, BadValue, Errors, FieldError, Path, quote},
    meta::validate_labels,
    name,
};

/// How a label relates to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    /// `=`
    Equals,
    /// `==`
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A condition, if key, operator and values go together.
    pub fn new(key: String, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = Errors::new();
        let path = Path::new("values");
        let problems = name::qualified_name(&key);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(&Path::new("key"), &key, problems.join("; ")));
        }
        let detail = match (operator, values.len()) {
            (Operator::In | Operator::NotIn, 0) => "for 'in', 'notin' operators, values set can't be empty",
            (Operator::Equals | Operator::DoubleEquals | Operator::NotEquals, n) if n != 1 => {
                "exact-match compatibility requires one single value"
            }
            (Operator::Exists | Operator::DoesNotExist, n) if n != 0 => {
                "values set must be empty for exists and does not exist"
            }
            (Operator::GreaterThan | Operator::LessThan, n) if n != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !detail.is_empty() {
            errors.push(FieldError::invalid(&path, BadValue::of(&values), detail));
        }
        if let Operator::GreaterThan | Operator::LessThan = operator {
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&path.index(i), value, detail));
            }
        }
        for (i, value) in values.iter().enumerate() {
            let problems = name::label_value(value);
            if !problems.is_empty() {
                errors.push(FieldError::invalid(&path.index(i).key(&key), value, problems.join("; ")));
            }
        }
        match errors.is_empty() {
            true => Ok(Self { key, operator, values }),
            false => Err(SelectorError(field::aggregate(&errors))),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the condition holds for the value of the label, if it has one.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match (self.operator, value) {
            (Operator::In | Operator::Equals | Operator::DoubleEquals, value) => value.is_some_and(among),
            (Operator::NotIn | Operator::NotEquals, value) => !value.is_some_and(among),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::GreaterThan | Operator::LessThan, value) => {
                let numbers = (
                    value.and_then(|v| v.parse::<i64>().ok()),
                    self.values.first().and_then(|v| v.parse::<i64>().ok()),
                );
                match (numbers, self.operator) {
                    ((Some(is), Some(limit)), Operator::GreaterThan) => is > limit,
                    ((Some(is), Some(limit)), _) => is < limit,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// All requirements must hold; none holds always. Sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// The selector of an object that has none: it selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Selects what has all these labels. Not checked: the labels come from an object that was.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self::of(labels.into_iter().map(requirement).collect())
    }

    /// The selector of an object; an absent one selects nothing, an empty one everything.
    pub fn from_meta(selector: Option<&meta::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key.clone(), Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let other = quote(other);
                    return Err(SelectorError(format!("{other} is not a valid label selector operator")));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(expression.key.clone(), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// Reads the form of the query parameter `labelSelector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser::new(text).parse().map(Self::of).map_err(SelectorError)
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The labels that an object must have to be selected, with their values.
    pub fn pinned(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| {
            match (requirement.operator, &*requirement.values) {
                (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => {
                    Some((requirement.key.as_str(), value.as_str()))
                }
                _ => None,
            }
        })
    }

    /// True if it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// True if it selects nothing, whatever the labels.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }

    /// The same, for labels kept in another form.
    pub fn matches_with<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(value_of(&r.key)))
    }

    /// The one value that a label must have, if there is one: this is what an index is asked for.
    pub fn exact(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In | Operator::Equals | Operator::DoubleEquals, [one]) => Some(one),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Checks the selector of an object (upstream's `ValidateLabelSelector`).
pub fn validate(selector: &meta::LabelSelector, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(labels) = &selector.match_labels {
        errors.extend(validate_labels(labels, &path.child("matchLabels")));
    }
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &at.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(
                    &at.child("operator"),
                    other,
                    "not a valid selector operator",
                ));
            }
        }
        let key = &expression.key;
        let invalid = |path: &Path, value: &str, problem| FieldError::invalid(path, value, problem);
        errors.extend(name::qualified_name(key).into_iter().map(|p| invalid(&at.child("key"), key, p)));
        for (i, value) in values.iter().enumerate() {
            let at = at.child("values").index(i);
            errors.extend(name::label_value(value).into_iter().map(|p| invalid(&at, value, p)));
        }
    }
    errors
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Cuts the text into tokens; the last is the end.
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while let Some(first) = rest.chars().next() {
        let used = if special(first) {
            // Each symbol is an operator, and so are some pairs of them.
            if rest.get(..2).is_some_and(|pair| keyword(pair).is_some()) { 2 } else { 1 }
        } else {
            rest.find(|c| special(c) || space(c)).unwrap_or(rest.len())
        };
        let word = &rest[..used];
        let (token, literal) = (keyword(word).unwrap_or(Token::Identifier), word.to_owned());
        out.push((token, literal));
        rest = rest[used..].trim_start_matches(space);
    }
    out.push((Token::End, String::new()));
    out
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Self { tokens: tokens(text), at: 0 }
    }

    /// The next token where `in` and `notin` are operators.
    fn operator(&self) -> (Token, &str) {
        let last = self.tokens.len() - 1;
        let (token, literal) = &self.tokens[self.at.min(last)];
        (*token, literal)
    }

    /// The next token where `in` and `notin` are words like others.
    fn look(&self) -> (Token, String) {
        let (token, literal) = self.operator();
        let token = if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token };
        (token, literal.to_owned())
    }

    fn take(&mut self) -> (Token, String) {
        let found = self.look();
        self.at += 1;
        found
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.look() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements.push(requirement.map_err(|e| format!("unable to parse requirement: {e}"))?);
                    match self.take() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.look() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, found) => {
                                return Err(format!("found '{found}', expected: identifier after ','"));
                            }
                        },
                        (_, found) => {
                            return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, found) => {
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = name::qualified_name(&key);
        if !problems.is_empty() {
            // Upstream has no path here and prints that it has none.
            return Err(FieldError::invalid(&Path::new("<nil>"), &key, problems.join("; ")).to_string());
        }
        let new = |operator, values| Requirement::new(key, operator, values).map_err(|e| e.to_string());
        if negated {
            return new(Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look().0, Token::End | Token::Comma) {
            return new(Operator::Exists, Vec::new());
        }
        let (token, literal) = self.operator();
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        self.at += 1;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.value()?],
        };
        values.sort_unstable();
        values.dedup();
        new(operator, values)
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, found) => return Err(format!("found '{found}' expected: '('")),
        }
        let (token, first) = self.look();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.list()?;
                match self.take() {
                    (Token::Close, _) => Ok(values),
                    _ => Err(format!("found '{first}', expected: ')'")),
                }
            }
            Token::Close => {
                self.take();
                Ok(vec![String::new()])
            }
            _ => Err(format!("found '{first}', expected: ',', ')' or identifier")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        loop {
            match self.take() {
                (Token::Identifier, value) => {
                    values.push(value);
                    match self.look() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look().0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => values.push(String::new()),
                        _ => {}
                    }
                }
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            }
        }
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, value) => Ok(value),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> LabelSelector {
        LabelSelector::parse(text).expect(text)
    }

    #[test]
    fn selectors_are_read_and_printed() {
        for (text, printed) in [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("x!=a,y==b", "x!=a,y==b"),
            ("x=", "x="),
            ("x= ,z= ", "x=,z="),
            ("!x", "!x"),
            ("x", "x"),
            ("z,x in (b, a,b)", "x in (a,b),z"),
            ("x notin ()", "x notin ()"),
            ("x in (a,,b)", "x in (,a,b)"),
            ("x>1,y<2", "x>1,y<2"),
            ("in=in,notin", "in=in,notin"),
            ("example.com/a=b", "example.com/a=b"),
        ] {
            assert_eq!(parse(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn mistakes_read_as_upstreams() {
        for (text, message) in [
            (
                "x=a||y=b",
                "unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must be an \
              empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
              alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
              '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            ("x,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("x a", "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt"),
            ("x in a", "unable to parse requirement: found 'a' expected: '('"),
            ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!=a", "found '!=', expected: !, identifier, or 'end of string'"),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value \
              must be an integer",
            ),
            ("!", "unable to parse requirement: found '', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(text).expect_err(text).to_string(), message, "{text}");
        }
        assert!(LabelSelector::parse("a/b/c").expect_err("bad").to_string().starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"
        ));
    }

    #[test]
    fn labels_match() {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("n", "5"), ("empty", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, expect) in [
            ("", true),
            ("app=web", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web,db)", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<4", false),
            ("app>4", false),
            ("empty=", true),
            ("app=web,other", false),
        ] {
            assert_eq!(parse(text).matches(Some(&labels)), expect, "{text}");
        }
        assert!(!LabelSelector::nothing().matches(Some(&labels)));
        assert_eq!(parse("app=web").exact("app"), Some("web"));
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        let of = |s: Option<&meta::LabelSelector>| LabelSelector::from_meta(s).expect("good");
        assert!(of(None).is_nothing());
        assert!(of(Some(&meta::LabelSelector::default())).is_empty());
        let bad = meta::LabelSelector {
            match_expressions: Some(vec![meta::LabelSelectorRequirement {
                key: "a".into(),
                operator: "Is".into(),
                values: None,
            }]),
            ..Default::default()
        };
        let error = LabelSelector::from_meta(Some(&bad)).expect_err("bad").to_string();
        assert_eq!(error, "\"Is\" is not a valid label selector operator");
        assert_eq!(
            validate(&bad, &Path::new("s")).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["s.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"]
        );
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_identity(
            parts in proptest::collection::vec(("[a-z]{1,3}", 0..9usize, "[a-z0-9]{0,3}", "[a-z0-9]{0,3}"), 0..4)
        ) {
            let requirements = parts.into_iter().filter_map(|(key, operator, a, b)| {
                let (operator, values) = match operator {
                    0 if a == b => (Operator::In, vec![a]),
                    0 => (Operator::In, vec![a, b]),
                    1 => (Operator::NotIn, vec![a]),
                    2 => (Operator::Equals, vec![a]),
                    3 => (Operator::DoubleEquals, vec![a]),
                    4 => (Operator::NotEquals, vec![a]),
                    5 => (Operator::Exists, vec![]),
                    6 => (Operator::DoesNotExist, vec![]),
                    7 => (Operator::GreaterThan, vec![a]),
                    _ => (Operator::LessThan, vec![a]),
                };
                Requirement::new(key, operator, values).ok()
            });
            let selector = LabelSelector::of(requirements.collect());
            let text = selector.to_string();
            prop_assert_eq!(LabelSelector::parse(&text).map(|s| s.to_string()), Ok(text));
        }

        #[test]
        fn nothing_panics(text in "[a-z(),=!<> ]{0,20}|.*") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
