//! The samples: one sound object per kind, and what is to be known of the kind.

use serde_json::{Map, Value};

use crate::served::Served;

/// What `samples.yaml` says of one kind; its head explains the words.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    object: Value,
    before: Vec<Value>,
    pub(crate) change: Option<Value>,
    pub(crate) status: Option<Value>,
    pub(crate) fields: Map<String, Value>,
    pub(crate) generation: bool,
    pub(crate) labelled: bool,
    pub(crate) once: bool,
    pub(crate) conditional: bool,
    pub(crate) creates: bool,
    pub(crate) keeps: String,
    pub(crate) late: bool,
    pub(crate) settles: bool,
    pub(crate) fixed: bool,
    pub(crate) plain: bool,
    pub(crate) hides: String,
}

const WORDS: &[&str] = &[
    "object",
    "before",
    "change",
    "status",
    "fields",
    "generation",
    "labelled",
    "late",
    "settles",
    "once",
    "conditional",
    "creates",
    "keeps",
    "fixed",
    "plain",
    "hides",
];

impl Sample {
    /// All samples.
    pub(crate) fn all() -> Vec<Self> {
        let text = include_str!("samples.yaml");
        let (_, documents) = text.split_once("\n---\n").expect("a head");
        documents.split("\n---\n").map(Self::read).collect()
    }

    fn read(text: &str) -> Self {
        let read: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let words = read.as_object().expect("a map");
        assert!(words.keys().all(|word| WORDS.contains(&word.as_str())), "{text}");
        let part = |word: &str| words.get(word).cloned();
        let is = |word: &str| part(word) == Some(Value::Bool(true));
        Self {
            object: part("object").expect("an object"),
            before: part("before").map_or_else(Vec::new, |all| all.as_array().expect("a list").clone()),
            change: part("change"),
            status: part("status"),
            fields: part("fields").map_or_else(Map::new, |all| all.as_object().expect("a map").clone()),
            generation: is("generation"),
            labelled: is("labelled"),
            once: is("once"),
            conditional: is("conditional"),
            creates: is("creates"),
            keeps: part("keeps").map_or_else(String::new, |word| word.as_str().expect("a word").to_owned()),
            late: is("late"),
            settles: is("settles"),
            fixed: is("fixed"),
            plain: is("plain"),
            hides: part("hides").map_or_else(String::new, |word| word.as_str().expect("a word").to_owned()),
        }
    }

    pub(crate) fn is_of(&self, served: &Served) -> bool {
        self.object["apiVersion"] == served.version && self.object["kind"] == served.kind
    }

    /// The API group; empty for the core.
    pub(crate) fn group(&self) -> String {
        let version = self.object["apiVersion"].as_str().unwrap_or_default();
        version.split_once('/').map_or_else(String::new, |(group, _)| group.to_owned())
    }

    /// Version and kind, for messages.
    pub(crate) fn kind(&self) -> String {
        let text = |key: &str| self.object[key].as_str().unwrap_or_default();
        format!("{} {}", text("apiVersion"), text("kind"))
    }

    /// The object of this number.
    pub(crate) fn object(&self, number: u32) -> Value {
        numbered(&self.object, number)
    }

    /// What must be there before the object of this number.
    pub(crate) fn before(&self, number: u32) -> Vec<Value> {
        self.before.iter().map(|object| numbered(object, number)).collect()
    }
}

/// The value with a number in its place.
pub(crate) fn numbered(value: &Value, number: u32) -> Value {
    let text = value.to_string().replace("$N", &number.to_string());
    serde_json::from_str(&text).expect("still JSON")
}
