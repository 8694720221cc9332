//! Netlink messages: a header, a fixed part, and nested attributes.

use std::net::Ipv4Addr;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A request under construction.
#[derive(Clone)]
pub(crate) struct Message {
    buffer: Vec<u8>,
}

/// The attributes of an answer, as (type, value).
pub(crate) struct Attributes<'a>(&'a [u8]);

impl Message {
    /// A message of a type with its fixed part. `flags` come in addition to those of the exchange.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&0_u32.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags as u16).to_ne_bytes());
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(fixed);
        Self { buffer }
    }

    pub(super) fn with_flags(mut self, flags: i32) -> Self {
        let flags = u16::from_ne_bytes([self.buffer[6], self.buffer[7]]) | flags as u16;
        self.buffer[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.buffer.len() as u32;
        self.buffer[..4].copy_from_slice(&length.to_ne_bytes());
        self.buffer[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.buffer
    }

    /// Appends a fixed part; inside of a nest.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.buffer.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.buffer.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    /// Appends a number in the machine's byte order.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends an octet.
    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// Appends a text with its final zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Appends an address.
    pub(crate) fn address(self, kind: u16, value: Ipv4Addr) -> Self {
        self.bytes(kind, &value.octets())
    }

    /// Appends an attribute that consists of attributes.
    pub(crate) fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self = inside(self);
        let length = (self.buffer.len() - start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

impl<'a> Attributes<'a> {
    /// The attributes behind the fixed part of a body.
    pub(crate) fn after(body: &'a [u8], fixed: usize) -> Self {
        Self(body.get(fixed..).unwrap_or_default())
    }

    /// The attributes inside of an attribute.
    pub(crate) fn within(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// The first attribute of this type.
    pub(crate) fn value(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]])).clamp(4, self.0.len());
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = &self.0[4..length];
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The first four octets as a number; 0 when there are fewer.
pub(crate) fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// A text without its final zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = Message::new(16, 0, &[7; 4])
            .text(3, "eth0")
            .nest(18, |inside| inside.u8(1, 9).u32(2, 77))
            .address(1, Ipv4Addr::new(10, 0, 0, 1))
            .finish(5);
        assert_eq!(u32_of(&message) as usize, message.len());
        assert_eq!(u32_of(&message[8..]), 5);
        let attributes: Vec<_> = Attributes::after(&message[16..], 4).collect();
        assert_eq!(attributes.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [3, 18, 1]);
        assert_eq!(text(attributes[0].1), "eth0");
        assert_eq!(Attributes::within(attributes[1].1).value(2).map(u32_of), Some(77));
        assert_eq!(attributes[2].1, [10, 0, 0, 1]);
    }

    #[test]
    fn broken_attributes_end_the_reading() {
        for bytes in [&[1_u8][..], &[0, 0, 1, 0], &[200, 0, 1, 0, 5], &[2, 0, 1, 0, 9, 9, 9, 9]] {
            assert!(Attributes::within(bytes).count() <= 2, "{bytes:?}");
        }
    }
}
