//! What apply sees in a type: which values are taken as a whole, how the items of a list are told apart, and what Go has
//! in a field that JSON does not show.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::step;
use crate::{
    field::quote,
    resource::Text,
    schema::{Extra, Field, Id, ListType, Shape, Struct, TypeRef, Types},
};

/// The type of a value, together with what the field that holds it says about it.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    types: &'a Types,
    what: What<'a>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Type(Id, Option<&'a Extra>),
    /// `apiVersion` and `kind`, which no table lists.
    Text,
    /// Anything; it shows in the value.
    Any,
}

/// How a value is treated.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// One value, owned as a whole.
    Leaf(Leaf),
    Struct(&'a Struct),
    Map(At<'a>),
    /// A list whose items are owned one by one.
    List(Items<'a>),
}

/// What a leaf may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Text,
    Number,
    Boolean,
    /// Text or a number.
    Scalar,
    /// A struct, map or list that is taken as a whole.
    Whole,
    /// Nobody looks into it.
    Opaque,
}

/// The items of a list that are owned one by one.
#[derive(Clone, Copy)]
pub(super) struct Items<'a> {
    pub(super) item: At<'a>,
    /// The fields that tell items apart; none for a set of scalars.
    keys: Keys<'a>,
}

#[derive(Clone, Copy)]
enum Keys<'a> {
    None,
    One(&'a Text),
    Several(&'a [Text]),
}

impl<'a> At<'a> {
    /// The type of a whole object.
    pub(super) fn root(ty: &'a TypeRef) -> Self {
        Self { types: ty.types(), what: What::Type(ty.id(), None) }
    }

    fn with(self, what: What<'a>) -> Self {
        Self { types: self.types, what }
    }

    fn any(self) -> Self {
        self.with(What::Any)
    }

    /// How this value is treated. The value decides where the type does not.
    pub(super) fn form(self, value: Option<&Value>) -> Form<'a> {
        let (id, extra) = match self.what {
            What::Text => return Form::Leaf(Leaf::Text),
            What::Any => return self.deduced(value),
            What::Type(id, extra) => (id, extra),
        };
        let atomic = extra.and_then(|extra| extra.atomic);
        match &self.types.get(id).shape {
            Shape::Struct(fields) if atomic.unwrap_or(fields.atomic) => Form::Leaf(Leaf::Whole),
            Shape::Struct(fields) => Form::Struct(fields),
            Shape::Map(_) if atomic == Some(true) => Form::Leaf(Leaf::Whole),
            Shape::Map(item) => Form::Map(self.with(What::Type(*item, None))),
            Shape::List(item) => {
                let item = self.with(What::Type(*item, None));
                let keys = match extra.map(|extra| (&extra.list, extra)) {
                    Some((ListType::Set, _)) => Keys::None,
                    Some((ListType::Map(keys), _)) => Keys::Several(keys),
                    // Older types say only what strategic merge does.
                    Some((ListType::None, extra)) if extra.patch.merge => match &extra.merge_key {
                        Some(key) => Keys::One(key),
                        None => Keys::None,
                    },
                    _ => return Form::Leaf(Leaf::Whole),
                };
                Form::List(Items { item, keys })
            }
            Shape::Raw => Form::Leaf(Leaf::Opaque),
            Shape::Any | Shape::Alias(_) => self.deduced(value),
            Shape::Integer(_) | Shape::Float => Form::Leaf(Leaf::Number),
            Shape::Boolean => Form::Leaf(Leaf::Boolean),
            Shape::Quantity | Shape::IntOrString => Form::Leaf(Leaf::Scalar),
            Shape::String { .. } | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration => {
                Form::Leaf(Leaf::Text)
            }
        }
    }

    fn deduced(self, value: Option<&Value>) -> Form<'a> {
        match value {
            Some(Value::Object(_)) => Form::Map(self.any()),
            _ => Form::Leaf(Leaf::Opaque),
        }
    }

    /// The type of what a leaf that is taken as a whole consists of: what is wrong in it is still wrong.
    pub(super) fn inside(self, value: &Value) -> Option<Form<'a>> {
        let What::Type(id, _) = self.what else { return None };
        match (&self.types.get(id).shape, value) {
            (Shape::Struct(fields), _) => Some(Form::Struct(fields)),
            (Shape::Map(item), _) => Some(Form::Map(self.with(What::Type(*item, None)))),
            _ => None,
        }
    }

    /// The type of the items of a list that is taken as a whole.
    pub(super) fn items_inside(self) -> Option<Self> {
        let What::Type(id, _) = self.what else { return None };
        match self.types.get(id).shape {
            Shape::List(item) => Some(self.with(What::Type(item, None))),
            _ => None,
        }
    }

    /// The type of a field of a struct; None if it has no such field.
    pub(super) fn field(self, of: &'a Struct, name: &str) -> Option<Self> {
        match of.field(name) {
            Some(field) => Some(self.of_field(field)),
            None if of.type_meta && matches!(name, "apiVersion" | "kind") => Some(self.with(What::Text)),
            None => None,
        }
    }

    pub(super) fn of_field(self, field: &'a Field) -> Self {
        self.with(What::Type(field.ty, Some(field.extra())))
    }

    /// What Go has in a field of which JSON shows nothing: a struct that is no pointer is always there, and so is
    /// whatever is not left out when empty. None: nothing.
    pub(super) fn zero(self, field: &Field) -> Option<&'static Value> {
        static ZEROS: LazyLock<[Value; 7]> = LazyLock::new(|| {
            [Value::Null, json!({}), json!(""), json!(0), json!(false), json!("0"), json!("0s")]
        });
        let zeros = &*ZEROS;
        if field.pointer {
            return (!field.omit_empty).then_some(&zeros[0]);
        }
        let shape = &self.types.get(field.ty).shape;
        let index = match shape {
            Shape::Struct(_) => 1,
            // The one time that is left out when it is zero.
            Shape::Time if field.name == "creationTimestamp" => return None,
            Shape::Time | Shape::MicroTime | Shape::Raw => 0,
            Shape::Quantity => 5,
            Shape::IntOrString => 3,
            Shape::Duration => 6,
            _ if field.omit_empty => return None,
            Shape::String { .. } => 2,
            Shape::Integer(_) | Shape::Float => 3,
            Shape::Boolean => 4,
            Shape::List(_) | Shape::Map(_) | Shape::Bytes | Shape::Any | Shape::Alias(_) => 0,
        };
        Some(&zeros[index])
    }
}

impl<'a> Items<'a> {
    fn keys(&self) -> &'a [Text] {
        match self.keys {
            Keys::None => &[],
            Keys::One(key) => std::slice::from_ref(key),
            Keys::Several(keys) => keys,
        }
    }

    /// The step to an item. The error says why it has none.
    pub(super) fn step(&self, item: &Value) -> Result<String, String> {
        let keys = self.keys();
        if keys.is_empty() {
            return step::value(item).ok_or_else(|| {
                let what = match item {
                    Value::Object(_) => "associative list without keys has an element that's a map type",
                    Value::Array(_) => "not supported: associative list with lists as elements",
                    _ => "associative list without keys has an element that's an explicit null",
                };
                what.to_owned()
            });
        }
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        // A key that is left out stands for its default; without one it is no part of what tells the item apart.
        let defaults: Vec<Option<Value>> = keys
            .iter()
            .map(|key| if fields.contains_key(key.as_ref()) { None } else { self.default(key) })
            .collect();
        let known = keys.iter().zip(&defaults).filter_map(|(key, default)| {
            let value = fields.get(key.as_ref()).or(default.as_ref())?;
            Some((key.as_ref(), value))
        });
        let step = step::key(known);
        if step == "k:{}" {
            let names: Vec<String> = keys.iter().map(|key| quote(key)).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(step)
    }

    /// The value of a key field that an item leaves out.
    fn default(&self, key: &str) -> Option<Value> {
        let What::Type(id, _) = self.item.what else { return None };
        let Shape::Struct(fields) = &self.item.types.get(id).shape else { return None };
        serde_json::from_str(fields.field(key)?.extra().default.as_deref()?).ok()
    }
}

/// Whether there is nothing in a value: absent, null, or without entries.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<'a>(ty: &'a TypeRef, path: &[&str]) -> Option<Items<'a>> {
        let mut at = At::root(ty);
        for name in path {
            at = match at.form(None) {
                Form::Struct(fields) => at.field(fields, name)?,
                Form::List(items) => match items.item.form(None) {
                    Form::Struct(fields) => items.item.field(fields, name)?,
                    _ => return None,
                },
                _ => return None,
            };
        }
        match at.form(None) {
            Form::List(items) => Some(items),
            _ => None,
        }
    }

    #[test]
    fn items_are_told_apart_by_keys_and_their_defaults() {
        let pod = TypeRef::builtin("", "v1", "Pod").expect("known");
        let ports = list(&pod, &["spec", "containers", "ports"]).expect("a list");
        assert_eq!(
            ports.step(&json!({"containerPort": 80})),
            Ok(r#"k:{"containerPort":80,"protocol":"TCP"}"#.to_owned())
        );
        let containers = list(&pod, &["spec", "containers"]).expect("a list");
        assert_eq!(
            containers.step(&json!({"image": "x"})),
            Err("associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have \
                 default values for any key fields)"
                .to_owned())
        );
        assert!(containers.step(&json!(1)).is_err() && containers.step(&Value::Null).is_err());
        let finalizers = list(&pod, &["metadata", "finalizers"]).expect("a set");
        assert_eq!(finalizers.step(&json!("a")), Ok("v:\"a\"".to_owned()));
        assert!(finalizers.step(&json!({})).is_err());
        // Taken as wholes.
        assert!(list(&pod, &["spec", "tolerations"]).is_none());
        assert!(list(&pod, &["spec", "containers", "args"]).is_none());
        // Only strategic merge is said of these.
        assert!(list(&pod, &["spec", "imagePullSecrets"]).is_some());
    }

    #[test]
    fn go_has_values_where_json_shows_none() {
        let pod = TypeRef::builtin("", "v1", "Pod").expect("known");
        for (path, expect) in [
            (&["spec"][..], Some(json!({}))),
            (&["spec", "containers"], Some(Value::Null)),
            (&["spec", "volumes"], None),
            (&["spec", "containers", "resources"], Some(json!({}))),
            (&["spec", "containers", "securityContext"], None),
            (&["spec", "containers", "ports", "containerPort"], Some(json!(0))),
            (&["status", "conditions", "lastProbeTime"], Some(Value::Null)),
            (&["metadata", "creationTimestamp"], None),
            (&["spec", "replicas"], None),
        ] {
            let Some((field, _)) = pod.at(path) else { continue };
            assert_eq!(At::root(&pod).zero(field).cloned(), expect, "{path:?}");
        }
    }
}
