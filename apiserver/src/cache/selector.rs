//! Which objects of a resource a list or a watch is about.

use api::selector::LabelSelector;

use super::Entry;

/// One term of a field selector. Terms on name and namespace are part of [`Selector`] where they pin it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: Field,
    /// `=` or, if false, `!=`.
    pub equals: bool,
    pub value: String,
}

/// What a term of a field selector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Name,
    Namespace,
    /// Selectable field number.
    Row(usize),
}

/// Which objects of a resource a list or a watch is about.
#[derive(Clone, Debug)]
pub struct Selector {
    /// `None` is all namespaces; `Some("")` is the place of cluster-scoped objects.
    pub namespace: Option<String>,
    /// The one name, if the namespace is known too.
    pub name: Option<String>,
    pub labels: LabelSelector,
    pub fields: Vec<FieldTerm>,
}

impl Default for Selector {
    /// Everything.
    fn default() -> Self {
        Self { namespace: None, name: None, labels: LabelSelector::everything(), fields: Vec::new() }
    }
}

impl Selector {
    /// Everything in a namespace.
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::default() }
    }

    /// True if labels or fields restrict it.
    pub fn is_restricted(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty() || self.name.is_some()
    }

    /// True if the object is selected.
    pub fn matches(&self, entry: &Entry) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != entry.namespace())
            || self.name.as_deref().is_some_and(|name| name != entry.name())
        {
            return false;
        }
        let fields = self.fields.iter().all(|term| {
            let value = match term.field {
                Field::Name => entry.name(),
                Field::Namespace => entry.namespace(),
                Field::Row(index) => entry.field(index),
            };
            (value == term.value) == term.equals
        });
        fields && self.labels.matches_with(|key| entry.label(key))
    }

    /// The selectable fields that are pinned to a value other than "".
    pub(super) fn pinned_fields(&self) -> impl Iterator<Item = (usize, &str)> {
        self.fields.iter().filter(|term| term.equals && !term.value.is_empty()).filter_map(|term| match term
            .field
        {
            Field::Row(index) => Some((index, term.value.as_str())),
            Field::Name | Field::Namespace => None,
        })
    }
}
