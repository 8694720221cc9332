//! CBOR (RFC 8949) as Kubernetes speaks it (KEP-4222): `application/cbor`, and `application/cbor-seq` for watches.
//!
//! An object on the wire is one data item within the tag for self-described CBOR ([`object`]); a watch is a sequence of
//! such items ([`put_event`]). What is written is deterministic: keys in the order of their bytes, every number in its
//! shortest form, text as byte strings, as Go keeps text. What is read ([`decode`]) may be written in any way that
//! JSON can express: byte strings are text, bytes within the tag of a later encoding become that encoding, times become
//! text. Refused is what JSON has no form for, and what two readers could understand in two ways: keys given twice, keys
//! that are no text, infinity and its like, numbers beyond 64 bits.

use serde_json::{Map, Value};

mod decode;
mod encode;
mod float;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::{List, encode, object, put_event};

/// Bytes that are not taken. The messages are those of the library that upstream uses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not CBOR, so that nothing is known of it.
    #[error("{0}")]
    Malformed(String),
    /// It is CBOR with something that is not accepted.
    #[error("{0}")]
    Unacceptable(String),
}

/// Reads an object; nothing is an object without fields. `go` names in messages what is read into.
pub fn decode_object(bytes: &[u8], go: &str) -> Result<Map<String, Value>, Error> {
    match decode(bytes)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => {
            let what = decode::type_name(bytes);
            Err(Error::Malformed(format!("cbor: cannot unmarshal {what} into Go value of type {go}")))
        }
    }
}

/// The first three bits of a data item: what it is.
mod major {
    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const NEGATIVE: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
    pub(super) const SIMPLE: u8 = 7;
}

/// Says that CBOR follows; it has no other meaning, and stands before everything that is written.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
