//! What is around an object: `k8s\0`, then `runtime.Unknown {typeMeta = 1, raw = 2, contentEncoding = 3,
//! contentType = 4}`.

use std::convert::Infallible;

use super::Error;
use super::wire::{Reader, put_bytes, put_message};

/// What every object in this form begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// An object whose message was not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    /// The message of the kind.
    pub raw: &'a [u8],
}

/// Opens an envelope.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let body = match bytes.strip_prefix(MAGIC) {
        _ if bytes.is_empty() => return Err(Error::NoData),
        None => return Err(Error::NoMagic),
        Some([]) => return Err(Error::NoBody),
        Some(body) => body,
    };
    let mut envelope = Envelope::default();
    let mut fields = Reader::new(body);
    while let Some((number, payload)) = fields.field("Unknown")? {
        match number {
            1 => {
                let mut fields = Reader::new(payload.bytes("typeMeta")?);
                while let Some((number, payload)) = fields.field("TypeMeta")? {
                    match number {
                        1 => envelope.api_version = payload.text("APIVersion")?,
                        2 => envelope.kind = payload.text("kind")?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = payload.bytes("raw")?,
            // Upstream doesn't look at encoding and type here either.
            3 => drop(payload.bytes("contentEncoding")?),
            4 => drop(payload.bytes("contentType")?),
            _ => {}
        }
    }
    Ok(envelope)
}

/// Puts an envelope around the message of a kind.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + api_version.len() + kind.len() + raw.len() + 24);
    out.extend_from_slice(MAGIC);
    let Ok(()) = put_message(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok::<(), Infallible>(())
    });
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

/// Appends one event of a watch: its length in four bytes, and `WatchEvent {type = 1, object = 2}`, where the object is
/// a `RawExtension {raw = 1}` of a whole envelope.
pub fn put_frame(out: &mut Vec<u8>, word: &str, object: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_bytes(out, 1, word.as_bytes());
    let Ok(()) = put_message(out, 2, |out| {
        put_bytes(out, 1, object);
        Ok::<(), Infallible>(())
    });
    // No object is as long as four gigabytes.
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
