//! Quantities as the rules of kinds use them: compared, rounded, written in their canonical form.

use std::{collections::BTreeMap, ops::Deref};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// The amounts of resources by name.
pub(crate) type Amounts = BTreeMap<String, Text>;

/// The value of a quantity in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(Quantity);

impl Deref for Amount {
    type Target = Quantity;

    fn deref(&self) -> &Quantity {
        &self.0
    }
}

impl Amount {
    /// Reads a quantity; None if it is malformed, which decoding reports.
    pub(crate) fn of(text: &Text) -> Option<Self> {
        Quantity::parse(text.0.trim()).ok().map(Self)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.sign() == 0
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.sign() < 0
    }

    /// As an object holds it.
    pub(crate) fn to_text(self) -> Text {
        Text(self.0.to_string())
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0.plus(&other.0))
    }
}

/// Writes a quantity in its canonical form, as upstream stores it.
pub(crate) fn canonical(text: &mut Text) {
    if let Some(amount) = Amount::of(text) {
        *text = amount.to_text();
    }
}

/// Writes the amounts of resources in their canonical form, rounded up to thousandths.
pub(crate) fn canonical_list(amounts: &mut Option<Amounts>) {
    for text in amounts.iter_mut().flat_map(BTreeMap::values_mut) {
        match Amount::of(text) {
            Some(amount) if amount.is_milli_integer() => *text = amount.to_text(),
            Some(amount) => text.0 = Quantity::from_milli(amount.milli_value()).to_string(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_stored_in_canonical_form_without_parts_below_a_thousandth() {
        let list = |text: &str| Some(Amounts::from([("cpu".to_owned(), Text(text.to_owned()))]));
        for (from, to) in [("1000m", "1"), ("0.0001", "1m"), ("1024Mi", "1Gi"), ("bogus", "bogus")] {
            let mut amounts = list(from);
            canonical_list(&mut amounts);
            assert_eq!(amounts, list(to), "{from}");
        }
    }
}
