//! How the fields of a struct are spread over messages.

use super::super::{Field, Struct};

/// One message: its fields by number.
#[derive(Debug, Default)]
pub(in super::super) struct Plan {
    slots: Vec<Slot>,
    complete: bool,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Slot {
    pub number: u32,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The field of the struct in this place.
    Field(u16),
    /// The message of an embedded struct, whose fields JSON shows in the outer one.
    Inner(Plan),
}

impl Plan {
    pub(in super::super) fn new(fields: &[Field]) -> Self {
        Self::under(fields, &[])
    }

    /// The message to which these numbers lead.
    fn under(fields: &[Field], path: &[u32]) -> Self {
        let mut plan = Self { slots: Vec::new(), complete: true };
        for (place, field) in (0..).zip(fields) {
            let Some(rest) = field.extra().embedded.strip_prefix(path) else { continue };
            match rest {
                [] => {
                    plan.complete &= field.number != 0;
                    plan.slots.push(Slot { number: field.number, what: What::Field(place) });
                }
                [number, ..] if plan.slots.iter().any(|slot| slot.number == *number) => {}
                [number, ..] => {
                    let path: Vec<u32> = path.iter().chain([number]).copied().collect();
                    let inner = Self::under(fields, &path);
                    plan.complete &= *number != 0 && inner.complete;
                    plan.slots.push(Slot { number: *number, what: What::Inner(inner) });
                }
            }
        }
        plan.slots.sort_by_key(|slot| slot.number);
        plan
    }

    /// Every field has a number. Those without are of types that protobuf doesn't carry.
    pub(in super::super) fn complete(&self) -> bool {
        self.complete
    }

    /// The fields, in the order of their numbers.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn find(&self, number: u32) -> Option<&What> {
        let at = self.slots.binary_search_by_key(&number, |slot| slot.number).ok()?;
        Some(&self.slots[at].what)
    }
}

impl Struct {
    /// The messages of this struct.
    pub(in super::super) fn plan(&self) -> &Plan {
        self.plan.get_or_init(|| Plan::new(&self.fields))
    }
}
