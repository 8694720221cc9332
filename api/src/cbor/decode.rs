//! CBOR to values, in two passes as upstream's library makes them: first that it is CBOR at all, then what it says. So
//! the second pass knows that every length is true, and the first error is the same.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::float::of_half;
use super::{Error, major};
use crate::field::quote;
use crate::schema::{MAX_DEPTH, check_time};

/// How much may be in one data item: a single byte can be a value, which takes far more memory.
const MAX_VALUES: usize = 1_000_000;

const TEXT_TIME: u64 = 0;
const EPOCH_TIME: u64 = 1;

/// Reads one data item, which must be all there is.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.is_empty() {
        return malformed("EOF");
    }
    let mut scan = Reader { bytes, at: 0, values: 0 };
    scan.item(0)?;
    if scan.at < bytes.len() {
        let (rest, at) = (bytes.len() - scan.at, scan.at);
        return malformed(format!("cbor: {rest} bytes of extraneous data starting at index {at}"));
    }
    Reader { bytes, at: 0, values: 0 }.value(None)
}

/// What stands in the bytes, behind tags, in the words of messages.
pub(super) fn type_name(bytes: &[u8]) -> &'static str {
    let mut reader = Reader { bytes, at: 0, values: 0 };
    while reader.next_is(major::TAG) {
        if reader.head().is_err() {
            break;
        }
    }
    name(reader.bytes.get(reader.at).map_or(major::SIMPLE, |first| first >> 5))
}

fn name(kind: u8) -> &'static str {
    match kind {
        major::UNSIGNED => "positive integer",
        major::NEGATIVE => "negative integer",
        major::BYTES => "byte string",
        major::TEXT => "UTF-8 text string",
        major::ARRAY => "array",
        major::MAP => "map",
        major::TAG => "tag",
        _ => "primitives",
    }
}

fn malformed<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Malformed(why.into()))
}

fn unacceptable<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unacceptable(why.into()))
}

/// Something of a well-formed item that no reader of JSON could be told.
fn not_accepted(kind: u8, what: &str) -> String {
    format!("cbor: data item of cbor type {} is not accepted by protocol: {what}", name(kind))
}

/// How bytes are to become text (tags 21 to 23).
#[derive(Clone, Copy)]
enum Later {
    Base64Url,
    Base64,
    Hex,
}

/// The beginning of a data item.
#[derive(Clone, Copy)]
struct Head {
    kind: u8,
    /// The lower five bits.
    info: u8,
    value: u64,
}

impl Head {
    fn is_indefinite(self) -> bool {
        self.info == 31
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => malformed("unexpected EOF"),
        }
    }

    fn next_is(&self, kind: u8) -> bool {
        self.bytes.get(self.at).is_some_and(|first| first >> 5 == kind)
    }

    /// Reads the mark at the end of what has no length, if it is next.
    fn is_over(&mut self) -> Result<bool, Error> {
        match self.bytes.get(self.at) {
            Some(0xff) => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => malformed("unexpected EOF"),
        }
    }

    fn head(&mut self) -> Result<Head, Error> {
        let first = self.take(1)?[0];
        let (kind, info) = (first >> 5, first & 31);
        let invalid = || format!("cbor: invalid additional information {info} for type {}", name(kind));
        let value = match info {
            0..24 => u64::from(info),
            24..28 => {
                let taken = self.take(1 << (info - 24))?;
                taken.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            31 => match kind {
                major::UNSIGNED | major::NEGATIVE | major::TAG => return malformed(invalid()),
                major::SIMPLE => return malformed("cbor: unexpected \"break\" code"),
                _ => u64::from(info),
            },
            _ => return malformed(invalid()),
        };
        let head = Head { kind, info, value };
        if kind == major::SIMPLE {
            if info == 24 && value < 32 {
                return malformed(format!("cbor: invalid simple value {value} for type {}", name(kind)));
            }
            match float(head) {
                Some(float) if float.is_nan() => return malformed(not_accepted(kind, "floating-point NaN")),
                Some(float) if float.is_infinite() => {
                    return malformed(not_accepted(kind, "floating-point infinity"));
                }
                _ => {}
            }
        }
        Ok(head)
    }

    /// Passes over one data item, if it is one.
    fn item(&mut self, mut depth: usize) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return malformed(format!("cbor: exceeded max number of elements {MAX_VALUES} for CBOR array"));
        }
        let mut head = self.head()?;
        while head.kind == major::TAG {
            if matches!(head.value, 2 | 3) {
                return malformed(not_accepted(major::TAG, "bignum"));
            }
            head = self.head()?;
            if head.kind == major::TAG {
                deeper(&mut depth)?;
            }
        }
        match head.kind {
            major::BYTES | major::TEXT if head.is_indefinite() => self.chunks(head.kind),
            major::BYTES | major::TEXT => self.take(head.value).map(drop),
            major::ARRAY | major::MAP => {
                deeper(&mut depth)?;
                let each = if head.kind == major::MAP { 2 } else { 1 };
                if !head.is_indefinite() {
                    for _ in 0..head.value.saturating_mul(each) {
                        self.item(depth)?;
                    }
                    return Ok(());
                }
                let mut count = 0;
                while !self.is_over()? {
                    self.item(depth)?;
                    count += 1;
                }
                if count % each != 0 {
                    return malformed("cbor: unexpected \"break\" code");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Passes over the parts of a string that came in parts.
    fn chunks(&mut self, kind: u8) -> Result<(), Error> {
        while !self.is_over()? {
            let first = self.bytes.get(self.at).copied().unwrap_or_default();
            if first >> 5 != kind {
                let (found, whole) = (name(first >> 5), name(kind));
                return malformed(format!("cbor: wrong element type {found} for indefinite-length {whole}"));
            }
            let chunk = self.head()?;
            if chunk.is_indefinite() {
                let whole = name(kind);
                return malformed(format!("cbor: indefinite-length {whole} chunk is not definite-length"));
            }
            self.take(chunk.value)?;
        }
        Ok(())
    }

    /// Reads one data item.
    fn value(&mut self, mut later: Option<Later>) -> Result<Value, Error> {
        let mut head = self.head()?;
        let mut time = None;
        while head.kind == major::TAG {
            self.check_tag(head.value)?;
            match head.value {
                TEXT_TIME | EPOCH_TIME => time = Some(head.value),
                21 => later = Some(Later::Base64Url),
                22 => later = Some(Later::Base64),
                23 => later = Some(Later::Hex),
                // That CBOR follows, or what only other protocols understand: the content counts.
                _ => {}
            }
            head = self.head()?;
        }
        if time == Some(EPOCH_TIME) {
            return since_epoch(head);
        }
        Ok(match head.kind {
            major::UNSIGNED => match i64::try_from(head.value) {
                Ok(whole) => whole.into(),
                Err(_) => return overflow(head.kind, &head.value.to_string()),
            },
            major::NEGATIVE => match i64::try_from(head.value) {
                Ok(whole) => (-1 - whole).into(),
                Err(_) => return overflow(head.kind, &(-1 - i128::from(head.value)).to_string()),
            },
            major::BYTES => {
                let bytes = self.string(head)?;
                Value::String(match later {
                    None => String::from_utf8_lossy(&bytes).into_owned(),
                    Some(Later::Base64Url) => URL_SAFE_NO_PAD.encode(bytes),
                    Some(Later::Base64) => STANDARD.encode(bytes),
                    Some(Later::Hex) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                })
            }
            major::TEXT => {
                let Ok(text) = String::from_utf8(self.string(head)?) else {
                    return unacceptable("cbor: invalid UTF-8 string");
                };
                if time.is_some()
                    && let Err(why) = check_time(&text)
                {
                    return unacceptable(format!("cbor: cannot set {text} for time.Time: {why}"));
                }
                Value::String(text)
            }
            major::ARRAY => {
                let mut items = Vec::new();
                let mut left = head.value;
                while self.goes_on(head, &mut left)? {
                    items.push(self.value(later)?);
                }
                Value::Array(items)
            }
            major::MAP => Value::Object(self.map(head, later)?),
            _ => match (float(head), head.info) {
                (Some(float), _) => Number::from_f64(float).map_or(Value::Null, Value::Number),
                (None, 20) => Value::Bool(false),
                (None, 21) => Value::Bool(true),
                (None, 22) => Value::Null,
                _ => {
                    let what = format!("simple value {} is not recognized", head.value);
                    return unacceptable(not_accepted(head.kind, &what));
                }
            },
        })
    }

    fn map(&mut self, head: Head, later: Option<Later>) -> Result<Map<String, Value>, Error> {
        let mut map = Map::new();
        let (mut left, mut index) = (head.value, 0);
        while self.goes_on(head, &mut left)? {
            let what = type_name(&self.bytes[self.at..]);
            let Value::String(key) = self.value(later)? else {
                return unacceptable(format!("cbor: cannot unmarshal {what} into Go value of type string"));
            };
            if map.contains_key(&key) {
                let key = quote(&key);
                return unacceptable(format!(
                    "cbor: found duplicate map key {key} at map element index {index}"
                ));
            }
            let value = self.value(later)?;
            map.insert(key, value);
            index += 1;
        }
        Ok(map)
    }

    /// Whether an array or a map has a further item.
    fn goes_on(&mut self, head: Head, left: &mut u64) -> Result<bool, Error> {
        if head.is_indefinite() {
            return Ok(!self.is_over()?);
        }
        let more = *left > 0;
        *left = left.saturating_sub(1);
        Ok(more)
    }

    /// The bytes of a string, in one part or in several.
    fn string(&mut self, head: Head) -> Result<Vec<u8>, Error> {
        if !head.is_indefinite() {
            return Ok(self.take(head.value)?.to_vec());
        }
        let mut whole = Vec::new();
        while !self.is_over()? {
            let chunk = self.head()?;
            whole.extend_from_slice(self.take(chunk.value)?);
        }
        Ok(whole)
    }

    /// Whether a tag stands before something that it can stand before.
    fn check_tag(&self, tag: u64) -> Result<(), Error> {
        let first = self.bytes.get(self.at).copied().unwrap_or_default();
        let kind = first >> 5;
        let expected = match tag {
            TEXT_TIME if kind != major::TEXT => "text string",
            EPOCH_TIME
                if !matches!(kind, major::UNSIGNED | major::NEGATIVE) && !matches!(first, 0xf9..=0xfb) =>
            {
                "integer or floating-point number"
            }
            _ => return Ok(()),
        };
        unacceptable(format!("cbor: tag number {tag} must be followed by {expected}, got {}", name(kind)))
    }
}

fn deeper(depth: &mut usize) -> Result<(), Error> {
    *depth += 1;
    if *depth > MAX_DEPTH {
        return malformed(format!("cbor: exceeded max nested level {MAX_DEPTH}"));
    }
    Ok(())
}

fn overflow<T>(kind: u8, number: &str) -> Result<T, Error> {
    let what = name(kind);
    unacceptable(format!(
        "cbor: cannot unmarshal {what} into Go value of type int64 ({number} overflows Go's int64)"
    ))
}

/// The number of a floating-point item of whatever size.
fn float(head: Head) -> Option<f64> {
    if head.kind != major::SIMPLE {
        return None;
    }
    match head.info {
        25 => Some(of_half(head.value as u16)),
        26 => Some(f64::from(f32::from_bits(head.value as u32))),
        27 => Some(f64::from_bits(head.value)),
        _ => None,
    }
}

/// Seconds since 1970, as text.
fn since_epoch(head: Head) -> Result<Value, Error> {
    let seconds = match head.kind {
        major::UNSIGNED => head.value as f64,
        major::NEGATIVE => -1.0 - head.value as f64,
        _ => float(head).unwrap_or_default(),
    };
    // Whole seconds of any year that text can show are exact.
    let nanoseconds = (seconds.fract() * 1e9) as i32;
    let time = Timestamp::new(seconds.trunc() as i64, nanoseconds).ok();
    match time.map(|time| time.to_string()).filter(|text| !text.starts_with('-')) {
        Some(text) => Ok(Value::String(text)),
        None => unacceptable(
            "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision: \
             Time.MarshalText: year outside of range [0,9999]",
        ),
    }
}
