//! A batch: changes of one table that take effect together or not at all.

use std::fmt::Write as _;
use std::time::Duration;

use super::FAMILY_IPV4;
use super::expr::{DATA_VALUE, Expr, Verdict};
use super::message::Attributes;

pub(super) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
pub(super) const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;

/// The `nft` program's number of its type.
const TYPE_MARK: u32 = 19;

/// An attribute's length has 16 bits; a list is split well before.
const MAX_LIST: usize = 48 * 1024;

/// A chain of rules; with a hook, packets enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
}

/// Where a base chain is hooked into the packets' way; its policy is to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// NF_INET_PRE_ROUTING…
    pub number: u32,
    pub priority: i32,
}

/// A set, or a map if it has data. The types are the `nft` program's, for its listing; the kernel counts bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    /// The `nft` types of the key's fields, four bytes each.
    pub key: &'static [u32],
    pub data: Option<&'static [u32]>,
    /// The data are verdicts; `data` then counts for nothing.
    pub verdicts: bool,
    /// Its elements are ranges.
    pub ranges: bool,
    /// Rules add elements, which time out; at most this many.
    pub dynamic: Option<u32>,
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    Key(Vec<u8>),
    Value(Vec<u8>, Vec<u8>),
    /// A key whose fields lie between those of two keys.
    Range(Vec<u8>, Vec<u8>),
    /// A value for this long.
    Expiring(Vec<u8>, Vec<u8>, Duration),
    Verdict(Vec<u8>, Verdict),
}

/// Changes of one table under construction.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    bytes: Vec<u8>,
    /// What each message does, by its sequence number.
    descriptions: Vec<String>,
    last: usize,
    sets: u32,
}

impl Set {
    pub(crate) fn key_length(&self) -> usize {
        self.key.len() * 4
    }
}

impl Batch {
    /// A batch that changes nothing yet.
    pub fn new(table: &str) -> Self {
        let mut batch =
            Self { table: table.to_owned(), bytes: Vec::new(), descriptions: Vec::new(), last: 0, sets: 0 };
        batch.control(BATCH_BEGIN, "begin");
        batch
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.descriptions.len() == 1
    }

    pub fn add_table(&mut self) {
        let name = self.table.clone();
        let flags = libc::NLM_F_CREATE as u16;
        self.message(NEW_TABLE, flags, format!("add table {name}"), |table| table.text(1, &name));
    }

    pub fn delete_table(&mut self) {
        let name = self.table.clone();
        self.message(DELETE_TABLE, 0, format!("delete table {name}"), |table| table.text(1, &name));
    }

    pub fn add_chain(&mut self, chain: &Chain) {
        let table = self.table.clone();
        let flags = libc::NLM_F_CREATE as u16;
        self.message(NEW_CHAIN, flags, format!("add chain {}", chain.name), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, &chain.name);
            if let Some(hook) = chain.hook {
                attributes.nest(4, |nest| {
                    nest.u32(1, hook.number);
                    nest.u32(2, hook.priority.cast_unsigned());
                });
                attributes.u32(5, 1);
                attributes.text(7, hook.kind);
            }
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, exprs: &[Expr]) {
        let table = self.table.clone();
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
        self.message(NEW_RULE, flags, format!("add rule {chain} {exprs:?}"), |rule| {
            rule.text(1, &table);
            rule.text(2, chain);
            rule.nest(4, |list| {
                for expr in exprs {
                    expr.encode(list);
                }
            });
        });
    }

    pub fn add_set(&mut self, set: &Set) {
        let table = self.table.clone();
        self.sets += 1;
        let id = self.sets;
        let flags = libc::NLM_F_CREATE as u16;
        self.message(NEW_SET, flags, format!("add set {}", set.name), |attributes| {
            let mut flags = 0;
            if set.data.is_some() || set.verdicts {
                flags |= SET_MAP;
            }
            if set.key.len() > 1 {
                flags |= SET_CONCAT;
            }
            if set.ranges {
                flags |= SET_INTERVAL;
            }
            if set.dynamic.is_some() {
                flags |= SET_TIMEOUT | SET_EVAL;
            }
            attributes.text(1, &table);
            attributes.text(2, set.name);
            attributes.u32(3, flags);
            attributes.u32(4, concatenated(set.key));
            attributes.u32(5, set.key_length() as u32);
            if set.verdicts {
                attributes.u32(6, DATA_TYPE_VERDICT);
            } else if let Some(data) = set.data {
                attributes.u32(6, concatenated(data));
                attributes.u32(7, data.len() as u32 * 4);
            }
            attributes.nest(9, |description| {
                if let Some(size) = set.dynamic {
                    description.u32(1, size);
                }
                if set.key.len() > 1 {
                    description.nest(2, |fields| {
                        for _ in set.key {
                            fields.nest(1, |field| field.u32(1, 4));
                        }
                    });
                }
            });
            attributes.u32(10, id);
            // Only for the listing: marks are in host byte order.
            const HOST_ORDER: u32 = 1;
            let mut notes = Vec::new();
            for (kind, types) in [(0u8, Some(set.key)), (1, set.data)] {
                if types == Some(&[TYPE_MARK]) {
                    notes.extend([kind, 4]);
                    notes.extend(HOST_ORDER.to_ne_bytes());
                }
            }
            if !notes.is_empty() {
                attributes.bytes(13, &notes);
            }
        });
    }

    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, libc::NLM_F_CREATE as u16, "add", set, elements);
    }

    /// Elements that aren't there make the batch fail.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, "delete", set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, verb: &str, set: &str, mut elements: &[Element]) {
        let table = self.table.clone();
        while let Some(first) = elements.first() {
            let mut description = format!("{verb} elements of {set} from {first:?}");
            let mut taken = 0;
            self.message(kind, flags, String::new(), |attributes| {
                attributes.text(1, &table);
                attributes.text(2, set);
                attributes.nest(3, |list| {
                    let start = list.0.len();
                    for element in elements {
                        if list.0.len() - start > MAX_LIST {
                            break;
                        }
                        list.nest(1, |nest| element.encode(nest));
                        taken += 1;
                    }
                });
            });
            let _ = write!(description, " ({taken})");
            if let Some(last) = self.descriptions.last_mut() {
                *last = description;
            }
            elements = &elements[taken..];
        }
    }

    /// The whole batch as bytes with what each sequence number stands for. The last change asks for an answer.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let position = self.last + 6;
        let set = u16::from_ne_bytes([self.bytes[position], self.bytes[position + 1]]) | flags;
        self.bytes[position..position + 2].copy_from_slice(&set.to_ne_bytes());
        self.control(BATCH_END, "end");
        (self.bytes, self.descriptions)
    }

    fn control(&mut self, kind: u16, description: &str) {
        let sequence = self.descriptions.len() as u32;
        let flags = libc::NLM_F_REQUEST as u16;
        frame(&mut self.bytes, kind, flags, sequence, libc::AF_UNSPEC as u8, SUBSYSTEM, |_| {});
        self.descriptions.push(description.to_owned());
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        description: String,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last = self.bytes.len();
        let sequence = self.descriptions.len() as u32;
        let flags = libc::NLM_F_REQUEST as u16 | flags;
        frame(&mut self.bytes, SUBSYSTEM << 8 | kind, flags, sequence, FAMILY_IPV4, 0, fill);
        self.descriptions.push(description);
    }
}

impl Element {
    pub fn key(&self) -> &[u8] {
        let (Self::Key(key)
        | Self::Value(key, _)
        | Self::Range(key, _)
        | Self::Expiring(key, _, _)
        | Self::Verdict(key, _)) = self;
        key
    }

    fn encode(&self, attributes: &mut Attributes<'_>) {
        let key = self.key();
        attributes.nest(1, |nest| nest.bytes(DATA_VALUE, key));
        match self {
            Self::Key(_) => {}
            Self::Value(_, value) => attributes.nest(2, |nest| nest.bytes(DATA_VALUE, value)),
            Self::Range(_, end) => attributes.nest(10, |nest| nest.bytes(DATA_VALUE, end)),
            Self::Expiring(_, value, timeout) => {
                attributes.nest(2, |nest| nest.bytes(DATA_VALUE, value));
                attributes.u64(4, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            }
            Self::Verdict(_, verdict) => attributes.nest(2, |nest| verdict.encode(nest)),
        }
    }
}

/// One netlink message: header, nfgenmsg and attributes.
pub(crate) fn frame(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    fill(&mut Attributes(bytes));
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// The `nft` program packs the types of a key's fields six bits each.
fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |packed, kind| packed << 6 | kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_elements_becomes_several_messages() {
        let elements: Vec<_> = (0..5000u32).map(|n| Element::Key(n.to_ne_bytes().to_vec())).collect();
        let mut batch = Batch::new("t");
        batch.add_elements("s", &elements);
        let (bytes, descriptions) = batch.finish();
        assert!(descriptions.len() > 3, "{descriptions:?}");
        let mut rest = bytes.as_slice();
        let mut count = 0;
        while let Some(length) = rest.first_chunk::<4>() {
            rest = &rest[u32::from_ne_bytes(*length) as usize..];
            count += 1;
        }
        assert_eq!(count, descriptions.len());
    }
}
