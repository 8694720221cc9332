//! Expressions: the instructions of a rule.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::Attributes;

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const LIST_ELEM: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
const REG_VERDICT: u32 = 0;
const REG32_00: u32 = 8;

/// One of the sixteen 32-bit registers; longer values run on into the following ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// Where evaluation goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
}

/// Facts about the packet that aren't in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// One byte, padded with zeros to a register.
    L4Proto,
    /// Sixteen bytes, padded with zeros.
    InputInterface,
    OutputInterface,
}

/// Facts about the packet's connection, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    State,
    Status,
    Mark,
}

/// Whose routing type `fib` answers: RTN_UNICAST, RTN_LOCAL…
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Source,
    Destination,
}

/// How the sender is told no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    TcpReset,
    PortUnreachable,
}

/// An instruction. A comparison or a lookup that fails ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    SourceAddress(Reg),
    DestinationAddress(Reg),
    DestinationPort(Reg),
    Meta {
        key: Meta,
        to: Reg,
    },
    Ct {
        key: Ct,
        to: Reg,
    },
    SetCtMark(Reg),
    Value {
        to: Reg,
        value: Vec<u8>,
    },
    Equal {
        from: Reg,
        value: Vec<u8>,
    },
    NotEqual {
        from: Reg,
        value: Vec<u8>,
    },
    /// `to = from & mask ^ xor`
    Bitwise {
        from: Reg,
        to: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Is the key that starts at `from` in the set.
    Contains {
        set: String,
        from: Reg,
    },
    NotContains {
        set: String,
        from: Reg,
    },
    /// What the map has for the key that starts at `from`.
    Find {
        map: String,
        from: Reg,
        to: Reg,
    },
    /// Goes where the verdict map says.
    Dispatch {
        map: String,
        from: Reg,
    },
    Verdict(Verdict),
    /// A random number in `offset..offset + modulus`, in host byte order.
    Random {
        to: Reg,
        modulus: u32,
        offset: u32,
    },
    Fib {
        of: AddressType,
        to: Reg,
    },
    /// Adds an element to a dynamic map, or refreshes the timeout of one that exists: its data stays.
    Update {
        map: String,
        key: Reg,
        data: Reg,
        timeout: Duration,
    },
    Dnat {
        address: Reg,
        port: Reg,
    },
    Masquerade,
    Reject(Reject),
}

impl Reg {
    fn number(self) -> u32 {
        REG32_00 + u32::from(self.0)
    }
}

impl Expr {
    /// Compares an address with a network.
    pub fn network(from: Reg, scratch: Reg, cidr: crate::Cidr, inside: bool) -> [Self; 2] {
        let mask = Self::Bitwise {
            from,
            to: scratch,
            mask: cidr.mask().octets().to_vec(),
            xor: Ipv4Addr::UNSPECIFIED.octets().to_vec(),
        };
        let value = cidr.network().octets().to_vec();
        let from = scratch;
        [mask, if inside { Self::Equal { from, value } } else { Self::NotEqual { from, value } }]
    }

    /// Goes on only if one of these bits of a host order integer is set.
    pub fn any_bit(from: Reg, scratch: Reg, bits: u32) -> [Self; 2] {
        let mask = Self::Bitwise { from, to: scratch, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] };
        [mask, Self::NotEqual { from: scratch, value: vec![0; 4] }]
    }

    /// Goes on only if none of these bits of a host order integer is set.
    pub fn no_bit(from: Reg, scratch: Reg, bits: u32) -> [Self; 2] {
        let mask = Self::Bitwise { from, to: scratch, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] };
        [mask, Self::Equal { from: scratch, value: vec![0; 4] }]
    }

    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        list.nest(LIST_ELEM, |elem| {
            let name = self.kernel_name();
            elem.text(EXPR_NAME, name);
            elem.nest(EXPR_DATA, |data| self.encode_data(data));
        });
    }

    fn kernel_name(&self) -> &'static str {
        match self {
            Self::SourceAddress(_) | Self::DestinationAddress(_) | Self::DestinationPort(_) => "payload",
            Self::Meta { .. } => "meta",
            Self::Ct { .. } | Self::SetCtMark(_) => "ct",
            Self::Value { .. } | Self::Verdict(_) => "immediate",
            Self::Equal { .. } | Self::NotEqual { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Contains { .. } | Self::NotContains { .. } | Self::Find { .. } | Self::Dispatch { .. } => {
                "lookup"
            }
            Self::Random { .. } => "numgen",
            Self::Fib { .. } => "fib",
            Self::Update { .. } => "dynset",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
        }
    }

    fn encode_data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::SourceAddress(to) => payload(data, *to, 1, 12, 4),
            Self::DestinationAddress(to) => payload(data, *to, 1, 16, 4),
            Self::DestinationPort(to) => payload(data, *to, 2, 2, 2),
            Self::Meta { key, to } => {
                data.u32(1, to.number());
                data.u32(
                    2,
                    match key {
                        Meta::L4Proto => 16,
                        Meta::InputInterface => 6,
                        Meta::OutputInterface => 7,
                    },
                );
            }
            Self::Ct { key, to } => {
                data.u32(1, to.number());
                data.u32(
                    2,
                    match key {
                        Ct::State => 0,
                        Ct::Status => 2,
                        Ct::Mark => 3,
                    },
                );
            }
            Self::SetCtMark(from) => {
                data.u32(2, 3);
                data.u32(4, from.number());
            }
            Self::Value { to, value } => {
                data.u32(1, to.number());
                data.nest(2, |nest| nest.bytes(DATA_VALUE, value));
            }
            Self::Verdict(verdict) => {
                data.u32(1, REG_VERDICT);
                data.nest(2, |nest| verdict.encode(nest));
            }
            Self::Equal { from, value } => compare(data, *from, 0, value),
            Self::NotEqual { from, value } => compare(data, *from, 1, value),
            Self::Bitwise { from, to, mask, xor } => {
                data.u32(1, from.number());
                data.u32(2, to.number());
                data.u32(3, mask.len() as u32);
                data.nest(4, |nest| nest.bytes(DATA_VALUE, mask));
                data.nest(5, |nest| nest.bytes(DATA_VALUE, xor));
            }
            Self::Contains { set, from } => {
                data.text(1, set);
                data.u32(2, from.number());
            }
            Self::NotContains { set, from } => {
                data.text(1, set);
                data.u32(2, from.number());
                data.u32(5, 1);
            }
            Self::Find { map, from, to } => {
                data.text(1, map);
                data.u32(2, from.number());
                data.u32(3, to.number());
            }
            Self::Dispatch { map, from } => {
                data.text(1, map);
                data.u32(2, from.number());
                data.u32(3, REG_VERDICT);
            }
            Self::Random { to, modulus, offset } => {
                data.u32(1, to.number());
                data.u32(2, *modulus);
                data.u32(3, 1);
                data.u32(4, *offset);
            }
            Self::Fib { of, to } => {
                data.u32(1, to.number());
                data.u32(2, 3);
                data.u32(
                    3,
                    match of {
                        AddressType::Source => 1,
                        AddressType::Destination => 2,
                    },
                );
            }
            Self::Update { map, key, data: value, timeout } => {
                data.text(1, map);
                data.u32(3, 1);
                data.u32(4, key.number());
                data.u32(5, value.number());
                data.u64(6, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            }
            Self::Dnat { address, port } => {
                data.u32(1, 1);
                data.u32(2, libc::NFPROTO_IPV4 as u32);
                data.u32(3, address.number());
                data.u32(5, port.number());
            }
            // NF_NAT_RANGE_PROTO_RANDOM_FULLY: without it, concurrent connections race for the same port.
            Self::Masquerade => data.u32(1, 1 << 4),
            Self::Reject(Reject::TcpReset) => data.u32(1, 1),
            Self::Reject(Reject::PortUnreachable) => {
                data.u32(1, 0);
                data.u8(2, 3);
            }
        }
    }
}

impl Verdict {
    pub(super) fn encode(&self, data: &mut Attributes<'_>) {
        data.nest(DATA_VERDICT, |verdict| {
            let (code, chain): (i32, _) = match self {
                Self::Drop => (0, None),
                Self::Accept => (1, None),
                Self::Jump(chain) => (-3, Some(chain)),
                Self::Goto(chain) => (-4, Some(chain)),
                Self::Return => (-5, None),
            };
            verdict.u32(1, code.cast_unsigned());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

fn payload(data: &mut Attributes<'_>, to: Reg, base: u32, offset: u32, length: u32) {
    data.u32(1, to.number());
    data.u32(2, base);
    data.u32(3, offset);
    data.u32(4, length);
}

fn compare(data: &mut Attributes<'_>, from: Reg, op: u32, value: &[u8]) {
    data.u32(1, from.number());
    data.u32(2, op);
    data.nest(3, |nest| nest.bytes(DATA_VALUE, value));
}
