//! The wire format: tags, varints and lengths, with the errors of Go's generated code.

use super::{Error, MAX_DEPTH};

/// The value of a field, before it is known what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
    Group,
}

impl<'a> Payload<'a> {
    fn wire_type(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Group => 3,
            Self::Fixed32 => 5,
        }
    }

    /// `name` is that of the field, for the message.
    pub(super) fn bytes(self, name: &str) -> Result<&'a [u8], Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(name)),
        }
    }

    pub(super) fn varint(self, name: &str) -> Result<u64, Error> {
        match self {
            Self::Varint(number) => Ok(number),
            other => Err(other.wrong(name)),
        }
    }

    pub(super) fn fixed64(self, name: &str) -> Result<u64, Error> {
        match self {
            Self::Fixed64(number) => Ok(number),
            other => Err(other.wrong(name)),
        }
    }

    /// Text. Go doesn't look whether it is UTF-8, and its JSON replaces what is not.
    pub(super) fn text(self, name: &str) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(self.bytes(name)?).into_owned())
    }

    /// Go names its field here, which begins with a capital.
    fn wrong(self, name: &str) -> Error {
        let mut letters = name.chars();
        let name = letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
        Error::WrongType(self.wire_type(), name)
    }
}

/// Reads the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next field of the message `of`; `None` at its end.
    pub(super) fn field(&mut self, of: &str) -> Result<Option<(u32, Payload<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let kind = tag & 7;
        // Go cuts the number to 32 bits, and its sign is the last of them.
        let number = (tag >> 3) as u32 as i32;
        if kind == 4 {
            return Err(Error::StrayEnd(of.to_owned()));
        }
        match u32::try_from(number) {
            Ok(positive @ 1..) => Ok(Some((positive, self.payload(kind)?))),
            _ => Err(Error::IllegalTag(of.to_owned(), number, kind)),
        }
    }

    /// The next number of a packed list.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, Error> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn payload(&mut self, kind: u64) -> Result<Payload<'a>, Error> {
        Ok(match kind {
            0 => Payload::Varint(self.varint()?),
            1 => {
                let mut number = [0; 8];
                number.copy_from_slice(self.take(8)?);
                Payload::Fixed64(u64::from_le_bytes(number))
            }
            2 => {
                let length = self.varint()?;
                if i64::try_from(length).is_err() {
                    return Err(Error::NegativeLength);
                }
                Payload::Bytes(self.take(usize::try_from(length).map_err(|_| Error::Truncated)?)?)
            }
            3 => {
                self.skip_group()?;
                Payload::Group
            }
            5 => {
                self.take(4)?;
                Payload::Fixed32
            }
            other => return Err(Error::IllegalType(other as u8)),
        })
    }

    /// Nothing of ours is a group: it is passed over, with the groups in it.
    fn skip_group(&mut self) -> Result<(), Error> {
        let mut depth = 1;
        while depth > 0 {
            match self.varint()? & 7 {
                3 if depth == MAX_DEPTH => return Err(Error::TooDeep),
                3 => depth += 1,
                4 => depth -= 1,
                kind => drop(self.payload(kind)?),
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Error::Truncated)?;
            self.rest = rest;
            // Bits beyond the 64th fall off, as in Go.
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::Overflow)
    }
}

/// Writes fields.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

pub(super) fn put_fixed64(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a message as a field. Its length is put before it once it is known.
pub(super) fn put_message<E>(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(field) << 3 | 2);
    let start = out.len();
    // Most messages are short: one byte is enough for their length.
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[start] = short;
        return Ok(());
    }
    let mut digits = Vec::with_capacity(10);
    put_varint(&mut digits, length as u64);
    out.splice(start..=start, digits);
    Ok(())
}
