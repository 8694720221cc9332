//! Reads the compact text of the built-in types.
//!
//! One line each, columns between tabs:
//! - `@package  group  version` opens a package.
//! - `.Name [a]` opens a struct, `a` for one that server-side apply takes as a whole.
//! - `=Name  type  [!]value|value` another name for a type; `!` says that there are no other values.
//! - `(tab)field  type  facts…` a field: the protobuf number followed by the letters `p` (pointer), `o` (omitempty),
//!   `q` (optional), `i` (an embedded struct, which has no name), then `L` list type, `k` list keys, `M` and `S` map and
//!   struct type, `P` patch strategy, `K` patch merge key, `D` default.
//! - `(tab)TypeMeta` says that the struct has `apiVersion` and `kind`.
//!
//! A type is a name of the same package, `package.Name`, a scalar, `$special`, `[]item` or `{}value`.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::{Extra, Field, Id, ListType, Shape, Struct, Type, Types};
use crate::resource::Text;

static TEXT: &str = include_str!("kubernetes.txt");
static BUILTIN: LazyLock<Arc<Types>> = LazyLock::new(|| Arc::new(Reader::default().read(TEXT)));

pub(super) fn builtin() -> Arc<Types> {
    BUILTIN.clone()
}

/// A struct before its embedded structs are flattened.
#[derive(Default)]
struct Open {
    id: Id,
    fields: Vec<Field>,
    /// Embedded structs: their type and protobuf number, and the place among the fields.
    embedded: Vec<(Id, u32, usize)>,
    type_meta: bool,
    atomic: bool,
}

#[derive(Default)]
struct Reader {
    types: Types,
    package: &'static str,
    structs: Vec<Open>,
}

impl Reader {
    fn read(mut self, text: &'static str) -> Types {
        for line in text.lines() {
            self.line(line);
        }
        let by_id: HashMap<Id, usize> = self.structs.iter().enumerate().map(|(i, s)| (s.id, i)).collect();
        for open in &self.structs {
            let mut fields = Vec::new();
            flatten(open, &self.structs, &by_id, &self.types, &[], &mut fields);
            self.types.all[open.id as usize].shape =
                Shape::Struct(Struct::new(fields, open.type_meta, open.atomic));
        }
        self.types
    }

    fn line(&mut self, line: &'static str) {
        let mut columns = line.split('\t');
        let first = columns.next().unwrap_or_default();
        let (sigil, name) = first.split_at(first.len().min(1));
        match sigil {
            "@" => {
                self.package = name;
                let key =
                    (columns.next().unwrap_or_default().into(), columns.next().unwrap_or_default().into());
                // The core's v1 comes before that of meta, which every group shares.
                self.types.packages.entry(key).or_insert(name.into());
            }
            "." => {
                let id = self.id(name);
                let atomic = columns.next() == Some("a");
                self.structs.push(Open { id, atomic, ..Open::default() });
            }
            "=" => {
                let id = self.id(name);
                let of = columns.next().unwrap_or_default();
                let values = columns.next().unwrap_or_default();
                self.types.all[id as usize].shape = if of == "string" {
                    let (closed, values) = match values.strip_prefix('!') {
                        Some(values) => (true, values),
                        None => (false, values),
                    };
                    // Nothing between the bars is the empty text; nothing at all is no value.
                    let values = (!values.is_empty()).then(|| values.split('|').map(Text::Borrowed));
                    Shape::String { values: values.into_iter().flatten().collect(), closed }
                } else {
                    Shape::Alias(self.id(of))
                };
            }
            "" if !line.is_empty() => self.field(&line[1..]),
            _ => {}
        }
    }

    fn field(&mut self, line: &'static str) {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap_or_default();
        if name == "TypeMeta" {
            if let Some(open) = self.structs.last_mut() {
                open.type_meta = true;
            }
            return;
        }
        let ty = self.id(columns.next().unwrap_or_default());
        let facts = columns.next().unwrap_or_default();
        let digits = facts.find(|c: char| !c.is_ascii_digit()).unwrap_or(facts.len());
        let number = facts[..digits].parse().unwrap_or(0);
        let has = |flag: char| facts[digits..].contains(flag);
        if has('i') {
            if let Some(open) = self.structs.last_mut() {
                open.embedded.push((ty, number, open.fields.len()));
            }
            return;
        }
        let mut extra: Option<Box<Extra>> = None;
        for column in columns {
            let (key, value) = column.split_at(column.len().min(1));
            let extra = extra.get_or_insert_default();
            match key {
                "L" => {
                    extra.list = match value {
                        "atomic" => ListType::Atomic,
                        "set" => ListType::Set,
                        _ => ListType::Map(Vec::new()),
                    };
                }
                "k" => extra.list = ListType::Map(value.split(',').map(Text::Borrowed).collect()),
                "M" | "S" => extra.atomic = Some(value == "atomic"),
                "P" => {
                    extra.patch.merge = value.contains("merge");
                    extra.patch.replace = value.contains("replace");
                    extra.patch.retain_keys = value.contains("retainKeys");
                }
                "K" => extra.merge_key = Some(value.into()),
                "D" => extra.default = Some(value.into()),
                _ => {}
            }
        }
        let field = Field {
            name: name.into(),
            ty,
            number,
            pointer: has('p'),
            omit_empty: has('o'),
            optional: has('q'),
            extra,
        };
        if let Some(open) = self.structs.last_mut() {
            open.fields.push(field);
        }
    }

    /// The number of a type as it is written; makes room for one that was not seen before.
    fn id(&mut self, written: &'static str) -> Id {
        let plain = written.starts_with(['$', '[', '{'])
            || matches!(written, "string" | "bool" | "int32" | "int64" | "float64");
        let shared = written.contains('.') || plain;
        let name: Text = match written.strip_prefix("[]").or(written.strip_prefix("{}")) {
            // The item may be a name of this package.
            Some(item) => {
                let item = self.id(item);
                format!("{}{item}", &written[..2]).into()
            }
            None if shared => written.into(),
            None => format!("{}.{written}", self.package).into(),
        };
        if let Some(id) = self.types.names.get(&name) {
            return *id;
        }
        let (shape, go): (Shape, Text) = match written {
            "string" => (Shape::String { values: Vec::new(), closed: false }, written.into()),
            "bool" => (Shape::Boolean, written.into()),
            "int32" => (Shape::Integer(32), written.into()),
            "int64" => (Shape::Integer(64), written.into()),
            "float64" => (Shape::Float, written.into()),
            "$bytes" => (Shape::Bytes, "[]uint8".into()),
            "$time" => (Shape::Time, "v1.Time".into()),
            "$microtime" => (Shape::MicroTime, "v1.MicroTime".into()),
            "$duration" => (Shape::Duration, "v1.Duration".into()),
            "$quantity" => (Shape::Quantity, "resource.Quantity".into()),
            "$intorstring" => (Shape::IntOrString, "intstr.IntOrString".into()),
            "$fields" => (Shape::Raw, "v1.FieldsV1".into()),
            "$raw" => (Shape::Raw, "runtime.RawExtension".into()),
            special if special.starts_with('$') => (Shape::Any, "interface {}".into()),
            list if list.starts_with("[]") => {
                let item = self.id(&list[2..]);
                (Shape::List(item), format!("[]{}", self.types.all[item as usize].go).into())
            }
            map if map.starts_with("{}") => {
                let item = self.id(&map[2..]);
                let go: Text = match self.types.all[item as usize].go.as_ref() {
                    // The one map that has a name of its own.
                    "resource.Quantity" => "v1.ResourceList".into(),
                    item => format!("map[string]{item}").into(),
                };
                (Shape::Map(item), go)
            }
            // Filled when its line comes.
            _ => {
                let dot = name.rfind('.').unwrap_or(0);
                let package = name[..dot].rsplit('/').next().unwrap_or_default();
                (Shape::Any, format!("{package}{}", &name[dot..]).into())
            }
        };
        let id = Id::try_from(self.types.all.len()).unwrap_or(Id::MAX);
        let full: Text = if plain { Text::Borrowed("") } else { name.clone() };
        self.types.all.push(Type { name: full, go, shape });
        self.types.names.insert(name, id);
        id
    }
}

fn flatten(
    open: &Open,
    structs: &[Open],
    by_id: &HashMap<Id, usize>,
    types: &Types,
    path: &[u32],
    out: &mut Vec<Field>,
) {
    let mut embedded = open.embedded.iter().peekable();
    for i in 0..=open.fields.len() {
        while let Some((id, number, _)) = embedded.next_if(|(_, _, at)| *at == i) {
            let mut id = *id;
            while let Shape::Alias(next) = types.all[id as usize].shape {
                id = next;
            }
            if let Some(inner) = by_id.get(&id) {
                let path: Vec<u32> = path.iter().copied().chain([*number]).collect();
                flatten(&structs[*inner], structs, by_id, types, &path, out);
            }
        }
        if let Some(field) = open.fields.get(i) {
            let mut field = field.clone();
            if !path.is_empty() {
                field.extra.get_or_insert_default().embedded = path.to_vec();
            }
            out.push(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TypeRef;

    fn pod() -> TypeRef {
        TypeRef::builtin("", "v1", "Pod").expect("pods have a type")
    }

    #[test]
    fn facts_of_fields_are_read() {
        let pod = pod();
        let (containers, ty) = pod.at(&["spec", "containers"]).expect("the field exists");
        assert_eq!(containers.number, 2);
        assert_eq!(containers.extra().list, ListType::Map(vec!["name".into()]));
        assert_eq!(containers.extra().merge_key.as_deref(), Some("name"));
        assert!(containers.extra().patch.merge && containers.required());
        assert_eq!(ty.ty().go, "[]v1.Container");
        let (volumes, _) = pod.at(&["spec", "volumes"]).expect("the field exists");
        assert!(volumes.extra().patch.merge && volumes.extra().patch.retain_keys);
        let (time, ty) = pod.at(&["metadata", "deletionTimestamp"]).expect("the field exists");
        assert!(time.pointer && matches!(ty.ty().shape, Shape::Time));
        let (_, limits) = pod.at(&["spec", "containers", "resources", "limits"]).expect("the field exists");
        assert!(matches!(limits.ty().shape, Shape::Map(_)));
    }

    #[test]
    fn embedded_structs_are_flattened() {
        let pod = pod();
        let (secret, ty) = pod.at(&["spec", "volumes", "secret"]).expect("the field exists");
        assert_eq!(secret.extra().embedded, [2]);
        assert_eq!(ty.ty().name, "api/core/v1.SecretVolumeSource");
        assert!(pod.at(&["spec", "containers", "livenessProbe", "httpGet", "port"]).is_some());
    }

    #[test]
    fn every_named_type_has_a_definition() {
        for (_, ty) in Types::builtin().iter() {
            let any_by_right = ty.go == "interface {}";
            assert!(!matches!(ty.shape, Shape::Any) || any_by_right, "{} is defined", ty.name);
        }
    }

    #[test]
    fn aliases_lead_to_their_types() {
        let types = Types::builtin();
        let list = types.find("api/core/v1.ResourceList").expect("known");
        assert!(matches!(types.get(list).shape, Shape::Map(_)));
        let protocol = types.find("api/core/v1.Protocol").expect("known");
        let Shape::String { values, closed } = &types.get(protocol).shape else { panic!("text") };
        assert!(*closed && values.len() == 3);
    }
}
