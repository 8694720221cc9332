//! Label and node selectors, compiled.

use super::types::Labels;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The label is an integer greater than the only value. Node selectors only.
    Gt,
    /// The label is an integer less than the only value. Node selectors only.
    Lt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// All requirements must hold. Without requirements it matches everything; see [`LabelSelector::nothing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// Matches nothing at all, as an absent selector does.
    pub none: bool,
}

/// One of the terms must match; without terms nothing matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSelector {
    pub terms: Vec<NodeSelectorTerm>,
}

/// All expressions and fields must match; an empty term matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSelectorTerm {
    pub labels: Vec<Requirement>,
    /// On `metadata.name` only.
    pub fields: Vec<Requirement>,
}

impl Requirement {
    /// True if the value, or its absence, satisfies this requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.iter().any(|wanted| wanted == value)),
            Operator::NotIn => value.is_none_or(|value| self.values.iter().all(|unwanted| unwanted != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::Lt => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl LabelSelector {
    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), none: true }
    }

    /// True if the labels satisfy all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.none && all_match(&self.requirements, labels)
    }
}

impl NodeSelector {
    /// True if a term matches the node.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.terms.iter().any(|term| term.matches(name, labels))
    }

    /// The node names that the terms restrict the choice to, if every term names some.
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in &self.terms {
            let by_name = term.fields.iter().find(|field| field.operator == Operator::In)?;
            names.extend(by_name.values.iter().map(String::as_str));
        }
        (!names.is_empty()).then_some(names)
    }
}

impl NodeSelectorTerm {
    /// True if the node satisfies every requirement of a term that has any.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !(self.labels.is_empty() && self.fields.is_empty())
            && self.fields.iter().all(|field| field.matches(Some(name)))
            && all_match(&self.labels, labels)
    }
}

fn all_match(requirements: &[Requirement], labels: &Labels) -> bool {
    requirements.iter().all(|wanted| wanted.matches(labels.get(&wanted.key).map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_follow_upstreams_rules_for_absent_labels() {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
        let rows = [
            (In, vec!["a", "b"], Some("b"), true),
            (In, vec!["a"], None, false),
            (NotIn, vec!["a"], Some("a"), false),
            (NotIn, vec!["a"], None, true),
            (Exists, vec![], Some(""), true),
            (Exists, vec![], None, false),
            (DoesNotExist, vec![], None, true),
            (Gt, vec!["5"], Some("6"), true),
            (Gt, vec!["5"], Some("five"), false),
            (Lt, vec!["5"], Some("4"), true),
            (Lt, vec!["5"], None, false),
        ];
        for (operator, values, value, expected) in rows {
            let values = values.into_iter().map(str::to_owned).collect();
            let requirement = Requirement { key: "k".into(), operator, values };
            assert_eq!(requirement.matches(value), expected, "{requirement:?} on {value:?}");
        }
    }

    #[test]
    fn an_empty_selector_matches_all_and_an_absent_one_nothing() {
        assert!(LabelSelector::default().matches(&Labels::new()));
        assert!(!LabelSelector::nothing().matches(&Labels::new()));
        assert!(!NodeSelector { terms: vec![NodeSelectorTerm::default()] }.matches("n", &Labels::new()));
    }
}
