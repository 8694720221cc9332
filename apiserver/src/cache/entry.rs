//! One cached object: its serialized bytes, and the few parts of it that reads decide by.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use store::Revision;

/// A stored value that is no object. Its kind can't be listed until it is mended, and everything else goes on.
#[derive(Debug, thiserror::Error)]
#[error("the stored value of {key} is not an object: {source}")]
pub struct Corrupt {
    pub key: String,
    #[source]
    pub source: serde_json::Error,
}

/// A text that is a part of the entry's bytes, or, where JSON had to escape it, one of its own.
enum Text {
    Part(u32, u32),
    Own(Box<str>),
}

/// One object as of one revision.
pub struct Entry {
    /// `NAMESPACE/NAME`, or `NAME` of a cluster-scoped object.
    key: Arc<str>,
    revision: Revision,
    /// The JSON that clients get, `metadata.resourceVersion` in place.
    bytes: Bytes,
    /// Where the object goes on after its apiVersion and kind, which items of a list don't repeat.
    after_kind: u32,
    /// Where the digits of the resourceVersion are.
    version: (u32, u32),
    uid: Text,
    labels: Box<[(Text, Text)]>,
    /// Values of the row's selectable fields, in the row's order.
    fields: Box<[Box<str>]>,
}

impl Entry {
    /// Reads a stored value (which carries no resourceVersion) and puts its revision in place. Revision 0 is that of
    /// an object which is not stored: none is shown.
    pub fn new(
        key: &str,
        value: &[u8],
        revision: Revision,
        fields: Box<[Box<str>]>,
    ) -> Result<Self, Corrupt> {
        let corrupt = |source| Corrupt { key: key.to_owned(), source };
        let envelope: Envelope = serde_json::from_slice(value).map_err(corrupt)?;
        let metadata = envelope.metadata.get();
        let meta: Meta = serde_json::from_str(metadata).map_err(corrupt)?;

        let digits = revision.to_string();
        let mut bytes = BytesMut::with_capacity(value.len() + digits.len() + 24);
        let start = offset(value, metadata.as_bytes());
        let (at, resume, version) = match meta.resource_version {
            // Not written by this server; its number is replaced.
            Some(old) => {
                let at = offset(value, old.get().as_bytes());
                bytes.put_slice(&value[..at]);
                bytes.put_u8(b'"');
                let version = bytes.len();
                bytes.put_slice(digits.as_bytes());
                bytes.put_u8(b'"');
                (at, at + old.get().len(), version)
            }
            None if revision == 0 => (value.len(), 0, 0),
            None => {
                let at = start + 1;
                bytes.put_slice(&value[..at]);
                bytes.put_slice(b"\"resourceVersion\":\"");
                let version = bytes.len();
                bytes.put_slice(digits.as_bytes());
                bytes.put_slice(if metadata[1..].trim_start().starts_with('}') { b"\"" } else { b"\"," });
                (at, at, version)
            }
        };
        let shift = bytes.len().wrapping_sub(resume);
        bytes.put_slice(&value[resume..]);
        let text = |text: Option<&Str>| match text {
            None => Text::Own("".into()),
            Some(Str(Cow::Owned(own))) => Text::Own(own.as_str().into()),
            Some(Str(Cow::Borrowed(part))) => {
                let position = offset(value, part.as_bytes());
                let moved = if position >= at { position.wrapping_add(shift) } else { position };
                Text::Part(narrow(moved), narrow(part.len()))
            }
        };
        let labels = meta.labels.0.iter().map(|(k, v)| (text(Some(k)), text(Some(v)))).collect();
        Ok(Self {
            key: key.into(),
            revision,
            after_kind: narrow(after_kind(&bytes)),
            version: (narrow(version), narrow(digits.len())),
            uid: text(meta.uid.as_ref()),
            labels,
            fields,
            bytes: bytes.freeze(),
        })
    }

    /// The same object under another revision: what a watch shows of an object that is gone.
    pub fn at(&self, revision: Revision) -> Self {
        let digits = revision.to_string();
        let (start, length) = (self.version.0 as usize, self.version.1 as usize);
        let mut bytes = BytesMut::with_capacity(self.bytes.len() + 4);
        bytes.put_slice(&self.bytes[..start]);
        bytes.put_slice(digits.as_bytes());
        bytes.put_slice(&self.bytes[start + length..]);
        let moved = |text: &Text| match text {
            Text::Own(own) => Text::Own(own.clone()),
            Text::Part(at, len) if (*at as usize) < start => Text::Part(*at, *len),
            Text::Part(at, len) => Text::Part(narrow(*at as usize + digits.len() - length), *len),
        };
        let after_kind = if (self.after_kind as usize) < start { self.after_kind } else { 1 };
        Self {
            key: self.key.clone(),
            revision,
            after_kind,
            version: (self.version.0, narrow(digits.len())),
            uid: moved(&self.uid),
            labels: self.labels.iter().map(|(k, v)| (moved(k), moved(v))).collect(),
            fields: self.fields.clone(),
            bytes: bytes.freeze(),
        }
    }

    /// `NAMESPACE/NAME`, or `NAME` of a cluster-scoped object.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same, shared.
    pub(super) fn shared_key(&self) -> &Arc<str> {
        &self.key
    }

    /// The namespace; empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The object's uid; empty if it has none.
    pub fn uid(&self) -> &str {
        self.text(&self.uid)
    }

    /// The revision of the write that made this state.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The JSON that clients get.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether this is what the entry was made of: the same JSON, but for the resourceVersion that was put in.
    pub fn is_made_of(&self, value: &[u8]) -> bool {
        const BEFORE: &[u8] = b"\"resourceVersion\":\"";
        let (start, end) = (self.version.0 as usize, (self.version.0 + self.version.1) as usize);
        let (Some(head), Some(rest)) = (self.bytes.get(..start), self.bytes.get(end..)) else { return false };
        let (Some(head), Some(rest)) = (head.strip_suffix(BEFORE), rest.strip_prefix(b"\"")) else {
            return false;
        };
        let rest = rest.strip_prefix(b",").unwrap_or(rest);
        value.len() == head.len() + rest.len() && value.starts_with(head) && value.ends_with(rest)
    }

    /// The JSON that follows `{` in a list's item, which repeats neither apiVersion nor kind.
    pub fn item(&self) -> &[u8] {
        &self.bytes[self.after_kind as usize..]
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// All labels.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(k, v)| (self.text(k), self.text(v)))
    }

    /// The value of the row's selectable field number `index`.
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |value| value)
    }

    /// The object as a typed value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Corrupt> {
        serde_json::from_slice(&self.bytes).map_err(|source| Corrupt { key: self.key.to_string(), source })
    }

    fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Own(own) => own,
            Text::Part(at, len) => {
                // The range was a `str` of the same bytes when it was made.
                std::str::from_utf8(&self.bytes[*at as usize..(*at + *len) as usize]).unwrap_or_default()
            }
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

/// An entry in the ordered set, where its key is its place.
#[derive(Clone, Debug)]
pub(crate) struct ByKey(pub(crate) Arc<Entry>);

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}
impl Eq for ByKey {}
impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

/// Where `part`, a slice of `whole`, starts in it.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// Objects are far smaller than 4 GiB: the store refuses values beyond a few MiB.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The place after `{"apiVersion":"…","kind":"…",`, or after `{` if the object does not begin so.
fn after_kind(bytes: &[u8]) -> usize {
    fn string(bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|b| *b == b'"').filter(|end| !bytes[..*end].contains(&b'\\'))
    }
    let find = || {
        let mut at = 0;
        for prefix in [&b"{\"apiVersion\":\""[..], b",\"kind\":\""] {
            bytes[at..].starts_with(prefix).then_some(())?;
            at += prefix.len();
            at += string(&bytes[at..])? + 1;
        }
        (bytes.get(at) == Some(&b',')).then_some(at + 1)
    };
    find().unwrap_or(1)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default)]
    uid: Option<Str<'a>>,
    #[serde(borrow, default)]
    labels: Labels<'a>,
    #[serde(borrow, default, rename = "resourceVersion")]
    resource_version: Option<&'a RawValue>,
}

struct Str<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Str<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[derive(Default)]
struct Labels<'a>(Vec<(Str<'a>, Str<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Labels<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }
            fn visit_unit<E>(self) -> Result<Labels<'de>, E> {
                Ok(Labels::default())
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Labels<'de>, M::Error> {
                let mut labels = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(pair) = map.next_entry()? {
                    labels.push(pair);
                }
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_any(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"a","b\"c":"d"},"name":"p","uid":"u"},"spec":{}}"#;

    fn entry(value: &str, revision: Revision) -> Entry {
        Entry::new("ns/p", value.as_bytes(), revision, Box::default()).unwrap()
    }

    #[test]
    fn the_revision_is_put_in_place_and_the_parts_are_found() {
        let entry = entry(POD, 17);
        let value: serde_json::Value = serde_json::from_slice(entry.bytes()).unwrap();
        assert_eq!(value["metadata"]["resourceVersion"], "17");
        assert_eq!((entry.namespace(), entry.name(), entry.uid()), ("ns", "p", "u"));
        assert_eq!(entry.labels().collect::<Vec<_>>(), [("app", "a"), ("b\"c", "d")]);
        assert!(entry.item().starts_with(b"\"metadata\":{"));
    }

    #[test]
    fn another_revision_moves_the_parts_along() {
        let entry = entry(POD, 9).at(1000);
        let value: serde_json::Value = serde_json::from_slice(entry.bytes()).unwrap();
        assert_eq!(value["metadata"]["resourceVersion"], "1000");
        assert_eq!((entry.uid(), entry.label("app")), ("u", Some("a")));
    }

    #[test]
    fn odd_but_valid_values_are_served_too() {
        for value in [
            r#"{"metadata":{},"kind":"X"}"#,
            r#"{ "kind" : "X", "metadata" : { "resourceVersion" : "3" , "name":"p"} }"#,
            r#"{"apiVersion":"v1","kind":"A\"b","metadata":{"labels":null}}"#,
        ] {
            let entry = entry(value, 5).at(123);
            let value: serde_json::Value = serde_json::from_slice(entry.bytes()).unwrap();
            assert_eq!(value["metadata"]["resourceVersion"], "123");
            let item: serde_json::Value =
                serde_json::from_str(&format!("{{{}", std::str::from_utf8(entry.item()).unwrap())).unwrap();
            assert_eq!(item["metadata"]["resourceVersion"], "123");
        }
        assert!(Entry::new("x", b"[1]", 1, Box::default()).is_err());
    }
}
