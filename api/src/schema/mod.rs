//! The schema of every published type: field names, types, list types and keys, patch keys, presence, protobuf numbers.
//!
//! One table serves strict decoding ([`decode`]), strategic merge, server-side apply, OpenAPI and protobuf. The
//! built-in types come from the compact text `kubernetes.txt`, read once when first needed ([`Types::builtin`]); a kind
//! defined at run time brings a table of its own. A [`TypeRef`] is one type together with its table.
//!
//! - [`decode::decode`]: JSON text → a pruned value of a type, plus what strict validation has to say.
//! - [`protobuf`]: the same values as Go's protobuf messages.
//! - [`decode::body`]: the same for the body of a request: checks `apiVersion` and `kind`, wraps errors as upstream does.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use crate::resource::Text;

pub mod decode;
pub(crate) mod descriptions;
pub mod given;
pub mod go_text;
mod json;
#[cfg(test)]
mod laws;
pub mod protobuf;
pub mod sample;
mod table;
mod time;

pub use json::{MAX_DEPTH, YAML_STACK};
pub use time::duration;

/// The number of a type in its table.
pub type Id = u32;

/// Types that refer to each other.
#[derive(Debug, Default)]
pub struct Types {
    all: Vec<Type>,
    names: HashMap<Text, Id>,
    packages: HashMap<(Text, Text), Text>,
}

/// One type.
#[derive(Debug)]
pub struct Type {
    /// The full name, such as `api/core/v1.PodSpec`; empty for lists, maps and scalars.
    pub name: Text,
    /// How upstream's messages name it: `v1.PodSpec`, `[]v1.Container`, `map[string]string`.
    pub go: Text,
    pub shape: Shape,
}

/// What values of a type look like.
#[derive(Debug)]
pub enum Shape {
    Struct(Struct),
    List(Id),
    Map(Id),
    /// Text; the values that constants name, and whether no other is meant.
    String {
        values: Vec<Text>,
        closed: bool,
    },
    /// A whole number of so many bits, signed.
    Integer(u8),
    Float,
    Boolean,
    /// Bytes, as base64.
    Bytes,
    /// RFC 3339, to the second.
    Time,
    /// RFC 3339, to the microsecond.
    MicroTime,
    /// Go's notation: `1m30s`.
    Duration,
    Quantity,
    IntOrString,
    /// Any object, kept as it is.
    Raw,
    /// Any JSON value.
    Any,
    /// Another type under a name of its own.
    Alias(Id),
}

/// The fields of a struct.
#[derive(Debug, Default)]
pub struct Struct {
    /// In the order of upstream's source; embedded structs are flattened.
    pub fields: Vec<Field>,
    /// Has `apiVersion` and `kind`.
    pub type_meta: bool,
    /// Applied and owned as a whole.
    pub atomic: bool,
    /// Numbers of `fields`, by name.
    sorted: Vec<u16>,
    /// How protobuf has them; made when first needed.
    plan: OnceLock<protobuf::Plan>,
}

/// How the items of a list belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Not declared; treated as atomic.
    #[default]
    None,
    Atomic,
    Set,
    /// Items are told apart by these fields.
    Map(Vec<Text>),
}

/// What strategic merge does with a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

/// The less usual facts of a field.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    pub list: ListType,
    /// The whole map or struct is one value to server-side apply (true), or each entry is (false).
    pub atomic: Option<bool>,
    pub patch: PatchStrategy,
    pub merge_key: Option<Text>,
    /// As JSON.
    pub default: Option<Text>,
    /// The protobuf fields that lead to the embedded message that holds this field.
    pub embedded: Vec<u32>,
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Text,
    pub ty: Id,
    /// The protobuf number; 0 for none.
    pub number: u32,
    /// Absent is something else than zero.
    pub pointer: bool,
    /// Zero is not written.
    pub omit_empty: bool,
    /// May be left out by users.
    pub optional: bool,
    extra: Option<Box<Extra>>,
}

static PLAIN: Extra = Extra {
    list: ListType::None,
    atomic: None,
    patch: PatchStrategy { merge: false, replace: false, retain_keys: false },
    merge_key: None,
    default: None,
    embedded: Vec::new(),
};

impl Field {
    pub fn extra(&self) -> &Extra {
        self.extra.as_deref().unwrap_or(&PLAIN)
    }

    /// OpenAPI lists it under `required`: neither optional nor left out when empty.
    pub fn required(&self) -> bool {
        !self.optional && !self.omit_empty
    }
}

impl Struct {
    fn new(mut fields: Vec<Field>, type_meta: bool, atomic: bool) -> Self {
        // A name of an outer struct hides that of an embedded one; outer fields were added first or last, so the
        // shallowest wins.
        let mut seen: HashMap<Text, (usize, usize)> = HashMap::new();
        for (i, field) in fields.iter().enumerate() {
            let depth = field.extra().embedded.len();
            let best = seen.entry(field.name.clone()).or_insert((depth, i));
            if depth < best.0 {
                *best = (depth, i);
            }
        }
        let mut i = 0;
        fields.retain(|field| {
            let keep = seen.get(&field.name).is_some_and(|(_, at)| *at == i);
            i += 1;
            keep
        });
        let mut sorted: Vec<u16> = (0..u16::try_from(fields.len()).unwrap_or(u16::MAX)).collect();
        sorted.sort_by(|a, b| fields[usize::from(*a)].name.cmp(&fields[usize::from(*b)].name));
        Self { fields, type_meta, atomic, sorted, plan: OnceLock::new() }
    }

    /// The number of a field in `fields`.
    pub fn position(&self, name: &str) -> Option<usize> {
        let found =
            self.sorted.binary_search_by(|i| self.fields[usize::from(*i)].name.as_ref().cmp(name)).ok()?;
        Some(usize::from(self.sorted[found]))
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        Some(&self.fields[self.position(name)?])
    }
}

impl Types {
    /// The published types of Kubernetes.
    pub fn builtin() -> Arc<Self> {
        table::builtin()
    }

    /// A type, with aliases followed. Every id comes from this table, so there is one.
    pub fn get(&self, id: Id) -> &Type {
        let mut ty = &self.all[id as usize];
        while let Shape::Alias(next) = ty.shape {
            ty = &self.all[next as usize];
        }
        ty
    }

    /// A type as it was named, alias or not.
    pub fn named(&self, id: Id) -> &Type {
        &self.all[id as usize]
    }

    pub fn find(&self, name: &str) -> Option<Id> {
        self.names.get(name).copied()
    }

    /// The type of a kind; the kinds of `meta/v1` are found in every group.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Id> {
        let key = (Cow::Owned(group.to_owned()), Cow::Owned(version.to_owned()));
        let of_group = self.packages.get(&key).and_then(|package| self.find(&format!("{package}.{kind}")));
        of_group.or_else(|| self.find(&format!("apimachinery/pkg/apis/meta/v1.{kind}")))
    }

    /// All types, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Type)> {
        (0..).zip(&self.all)
    }
}

/// Whether a text is a time; if not, what Go says of it.
pub(crate) fn check_time(text: &str) -> Result<(), String> {
    time::parse(text).map(drop)
}

/// One type together with the table it belongs to.
#[derive(Clone)]
pub struct TypeRef {
    types: Arc<Types>,
    id: Id,
}

impl TypeRef {
    pub fn new(types: Arc<Types>, id: Id) -> Self {
        Self { types, id }
    }

    /// The type of a built-in kind.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        let types = Types::builtin();
        let id = types.kind(group, version, kind)?;
        Some(Self { types, id })
    }

    /// A type of which nothing is known: any JSON.
    pub fn unknown() -> Self {
        let any = Type { name: "".into(), go: "interface {}".into(), shape: Shape::Any };
        Self { types: Arc::new(Types { all: vec![any], ..Types::default() }), id: 0 }
    }

    pub fn types(&self) -> &Arc<Types> {
        &self.types
    }

    pub fn id(&self) -> Id {
        self.id
    }

    pub fn ty(&self) -> &Type {
        self.types.get(self.id)
    }

    /// The field of a struct, by path: `["spec", "containers"]` follows structs and the items of lists and maps.
    pub fn at(&self, path: &[&str]) -> Option<(&Field, Self)> {
        let (mut id, mut found) = (self.id, None);
        for name in path {
            while let Shape::List(item) | Shape::Map(item) = self.types.get(id).shape {
                id = item;
            }
            let Shape::Struct(fields) = &self.types.get(id).shape else { return None };
            let field = fields.field(name)?;
            id = field.ty;
            found = Some(field);
        }
        Some((found?, Self { types: self.types.clone(), id }))
    }
}

impl fmt::Debug for TypeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypeRef({})", self.ty().name)
    }
}
