//! JSON text as the recorder wrote it: fields in the order of their source, a space behind commas and colons. What a
//! server says of a broken text shows a part of it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A value as such a text.
pub(crate) struct InOrder(pub(crate) String);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(Value::from(value).to_string())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        let mut texts = Vec::new();
        while let Some(InOrder(text)) = items.next_element()? {
            texts.push(text);
        }
        Ok(format!("[{}]", texts.join(", ")))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<String, A::Error> {
        let mut texts = Vec::new();
        while let Some((name, InOrder(text))) = fields.next_entry::<String, _>()? {
            texts.push(format!("{}: {text}", Value::from(name)));
        }
        Ok(format!("{{{}}}", texts.join(", ")))
    }
}
