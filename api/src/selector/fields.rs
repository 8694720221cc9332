//! Field selectors: `spec.nodeName=a,status.phase!=Running`.

use std::fmt;

use super::SelectorError;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// The field must have the value, or must not.
    pub equal: bool,
}

/// All conditions must hold; none holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Selects one value of one field.
    pub fn equal(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self { terms: vec![FieldTerm { field: field.into(), value: value.into(), equal: true }] }
    }

    /// Reads terms between commas. Commas, equal signs and backslashes in values are escaped by a backslash.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let operator = part.char_indices().find_map(|(i, _)| {
                let rest = &part[i..];
                ["!=", "==", "="].into_iter().find(|op| rest.starts_with(op)).map(|op| (i, op))
            });
            let Some((at, operator)) = operator else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let value = unescape(&part[at + operator.len()..])?;
            terms.push(FieldTerm { field: part[..at].to_owned(), value, equal: operator != "!=" });
        }
        Ok(Self { terms })
    }

    /// Refuses fields that a kind doesn't offer, in the words `field label not supported: spec.foo`.
    pub fn check(&self, known: impl Fn(&str) -> bool) -> Result<(), SelectorError> {
        match self.terms.iter().find(|term| !known(&term.field)) {
            Some(term) => Err(SelectorError(format!("field label not supported: {}", term.field))),
            None => Ok(()),
        }
    }

    /// Whether all terms hold; a field without a value is the same as an empty one.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| {
            let value = value_of(&term.field).unwrap_or_default();
            (value == term.value) == term.equal
        })
    }

    /// The one value that a field must have, if there is one: this is what an index is asked for.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let invalid = |sequence: &str| {
        SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}"))
    };
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(invalid(&format!("\\{c}"))),
                None => return Err(invalid("\\")),
            },
            // Go prints the number of the character.
            ',' | '=' => {
                let c = c as u32;
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let (comma, operator) = (if i == 0 { "" } else { "," }, if term.equal { "=" } else { "!=" });
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_are_read_and_matched() {
        let selector = FieldSelector::parse("status.phase!=Running,spec.nodeName=a").expect("good");
        assert_eq!(selector.to_string(), "spec.nodeName=a,status.phase!=Running");
        let value = |field: &str| match field {
            "spec.nodeName" => Some("a"),
            "status.phase" => Some("Pending"),
            _ => None,
        };
        assert!(selector.matches(value));
        assert!(!FieldSelector::parse("spec.nodeName==b").expect("good").matches(value));
        assert!(FieldSelector::parse("spec.other=").expect("good").matches(value));
        assert_eq!(selector.exact("spec.nodeName"), Some("a"));
        assert_eq!(selector.exact("status.phase"), None);
        assert!(FieldSelector::parse("").expect("good").is_empty());
    }

    #[test]
    fn mistakes_read_as_upstreams() {
        for (text, message) in [
            ("foo", "invalid selector: 'foo'; can't understand 'foo'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
        ] {
            assert_eq!(FieldSelector::parse(text).expect_err(text).to_string(), message);
        }
        let selector = FieldSelector::parse("spec.foo=1").expect("good");
        let error = selector.check(|field| field == "metadata.name").expect_err("unknown");
        assert_eq!(error.to_string(), "field label not supported: spec.foo");
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_identity(value in ".*", equal: bool) {
            let selector = FieldSelector { terms: vec![FieldTerm { field: "a.b".into(), value, equal }] };
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
