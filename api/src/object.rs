//! Objects and the rules of their kinds.
//!
//! A kind's rules are written once, on its typed struct, as [`Kind`]. Generic code sees them through the object-safe
//! [`Rules`]; [`Typed`] is the bridge. A kind that is defined at run time implements [`Rules`] itself.
//!
//! The order in which the API server asks: decode → `set_defaults` → (admission) → `prepare_*` → `validate*` → store.

use std::{any::Any, fmt::Debug, marker::PhantomData};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    field::{Errors, Path},
    kinds, meta,
    name::{self, NameRule},
    resource::{Column, NAME_AND_CREATION},
    schema::given::Given,
    status::Status,
};

/// Any object of any kind: a typed struct of `k8s-openapi`, or one of a kind defined at run time.
pub trait Object: Any + Send + Sync + Debug {
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync>;
    fn clone_box(&self) -> Box<dyn Object>;
    /// The JSON text, with `apiVersion` and `kind`.
    fn to_bytes(&self) -> Vec<u8>;
    /// The JSON value, with `apiVersion` and `kind`.
    fn to_value(&self) -> Value;
}

impl dyn Object {
    /// The typed object, if it is of type `T`.
    pub fn downcast_ref<T: Object>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }

    /// The typed object, if it is of type `T`.
    pub fn downcast_mut<T: Object>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }
}

impl Clone for Box<dyn Object> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

impl<T: Kind> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send + Sync> {
        self
    }
    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
    fn to_bytes(&self) -> Vec<u8> {
        if T::HAS_FLOATS || T::LEFT_OUT.iter().any(|(_, is_empty)| is_empty(self)) {
            return serde_json::to_vec(&self.to_value()).unwrap_or_default();
        }
        // Typed structs hold strings, numbers, lists and maps with string keys: writing them to memory cannot fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        for (name, is_absent) in T::NULLS {
            if is_absent(self) {
                if name.contains('.') {
                    return serde_json::to_vec(&self.to_value()).unwrap_or_default();
                }
                // At the end, so that `apiVersion` and `kind` stay first.
                bytes.pop();
                bytes.extend_from_slice(format!(",\"{name}\":null}}").as_bytes());
            }
        }
        bytes
    }
    fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for (name, is_absent) in T::NULLS {
            if is_absent(self) {
                at_each(&mut value, name, &|fields, field| {
                    if fields.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty) {
                        fields.insert(field.to_owned(), Value::Null);
                    }
                });
            }
        }
        if T::HAS_FLOATS {
            write_whole_numbers(&mut value);
        }
        for (name, _) in T::LEFT_OUT.iter().filter(|(_, is_empty)| is_empty(self)) {
            at_each(&mut value, name, &|fields, field| {
                if fields.get(field).is_some_and(|text| text == "") {
                    fields.remove(field);
                }
            });
        }
        value
    }
}

/// Numbers that are whole without `.0`, as Go writes them.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) if number.is_f64() => {
            // Beyond this, neighbours of a float are further apart than one.
            const EXACT: f64 = 9_007_199_254_740_992.0;
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() <= EXACT {
                *number = (float as i64).into();
            }
        }
        _ => {}
    }
}

/// Does something with a field wherever it is, or could be: `spec.drivers[].name` is a field of each driver.
fn at_each(value: &mut Value, path: &str, act: &dyn Fn(&mut Map<String, Value>, &str)) {
    match path.split_once('.') {
        None => {
            if let Some(fields) = value.as_object_mut() {
                act(fields, path);
            }
        }
        Some((first, rest)) => match first.strip_suffix("[]") {
            Some(list) => {
                let items = value.get_mut(list).and_then(Value::as_array_mut);
                items.into_iter().flatten().for_each(|item| at_each(item, rest, act));
            }
            None => {
                if let Some(inner) = value.get_mut(first) {
                    at_each(inner, rest, act);
                }
            }
        },
    }
}

/// What the scale subresource shows of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// How many are wanted (`spec.replicas`).
    pub wanted: i32,
    /// How many there are (`status.replicas`).
    pub current: i32,
    /// The label selector of its pods, as text.
    pub selector: String,
}

/// A field by its JSON name (`status.conditions` for one further in, `spec.drivers[].topologyKeys` for one of each item
/// of a list), and whether an object has nothing in it.
pub type Null<T> = (&'static str, fn(&T) -> bool);

/// The rules of one kind. Every method has a default that does nothing; a kind's file says what differs.
///
/// `metadata` is not a kind's business: [`Typed`] checks it before it asks `validate` or `validate_update`.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// What names objects may have; None for kinds that are answered and never stored, whose metadata is not checked.
    const NAME: Option<NameRule> = Some(name::subdomain_name);
    /// The columns of a Table; `cells` gives one value for each.
    const COLUMNS: &'static [Column] = NAME_AND_CREATION;
    /// The names that field selectors may use beyond `metadata.name` and `metadata.namespace`.
    const FIELDS: &'static [&'static str] = &[];
    /// A PUT of an object that doesn't exist creates it.
    const CREATE_ON_UPDATE: bool = false;
    /// An update without resourceVersion is taken as it is.
    const UNCONDITIONAL_UPDATE: bool = true;
    /// A deletion answers with the object that is gone, instead of a Status.
    const RETURNS_DELETED: bool = false;
    /// Upstream deletes it in a way of its own, which reports failed preconditions in the words of the store.
    const OWN_DELETION: bool = false;
    /// Annotations that upstream makes when it converts an object to this version. So answers that hold metadata alone,
    /// which are made before that, do not have them.
    const CONVERTED_ANNOTATIONS: &'static [&'static str] = &[];
    /// The fields that are written as `null` where nothing is in them, as Go writes them, and whether that is so.
    const NULLS: &'static [Null<Self>] = &[];
    /// The typed struct has numbers that are not whole.
    const HAS_FLOATS: bool = false;
    /// The texts that the typed struct always writes and Go leaves out where they are empty, and whether one is.
    const LEFT_OUT: &'static [Null<Self>] = &[];
    /// Of a kind whose dependents stay when a client deletes it without saying what is to become of them: the advice
    /// that comes with such a deletion, as a `Warning` header, or nothing.
    const DEPENDENTS_STAY: Option<&'static str> = None;
    /// Of a kind that has a successor: the advice that comes with every answer, as a `Warning` header.
    const DEPRECATED: Option<&'static str> = None;

    /// The fields of which an empty content is not the same as none.
    const GIVEN: &'static [Given] = &[];
    /// Of a kind whose Tables are not sorted by name: what they are sorted by.
    const TABLE_RANK: Option<fn(&Self) -> i64> = None;

    /// The fields that writes of the status leave as they are, each by the names that lead to it: nobody owns them
    /// through the status.
    const STATUS_RESETS: &'static [&'static [&'static str]] = &[&["spec"]];

    /// Fills in what the user left out (upstream's `SetDefaults_*`). Called on every decode of a request.
    /// (Not called `default`, so that `Pod::default()` keeps its meaning.)
    fn set_defaults(&mut self) {}

    /// Before the first store: resets the status, sets `metadata.generation` to 1 where the kind counts it …
    fn prepare_create(&mut self) {}

    /// Before an update through the main endpoint: keeps the status, counts the generation on changes of the spec …
    fn prepare_update(&mut self, old: &Self) {
        let _ = old;
    }

    /// Before an update through `status`: keeps everything but the status.
    fn prepare_status(&mut self, old: &Self) {
        let _ = old;
    }

    /// Before an update through another subresource that changes the object itself (`resize`, `finalize`, …).
    fn prepare_subresource(&mut self, subresource: &str, old: &Self) {
        let _ = (subresource, old);
    }

    /// Notes the moments that the server knows: when a phase began, when a taint came. Called after `prepare_*`; `old` is
    /// None on create.
    fn stamp(&mut self, old: Option<&Self>, now: Timestamp) {
        let _ = (old, now);
    }

    /// Checks everything but `metadata`.
    fn validate(&self) -> Errors {
        Errors::new()
    }

    /// Checks an update through the main endpoint; `metadata` was checked before. Checks `self` as a whole, too.
    fn validate_update(&self, old: &Self) -> Errors {
        let _ = old;
        self.validate()
    }

    /// Checks an update through `status`.
    fn validate_status(&self, old: &Self) -> Errors {
        let _ = old;
        Errors::new()
    }

    /// Checks an update through another subresource that changes the object itself.
    fn validate_subresource(&self, subresource: &str, old: &Self) -> Errors {
        let _ = (subresource, old);
        Errors::new()
    }

    /// Advice for the user that comes back as `Warning` headers; `old` is None on create.
    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let _ = old;
        Vec::new()
    }

    /// The values of [`Kind::FIELDS`].
    fn fields(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The cells of a Table row, one per column.
    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let _ = now;
        let meta = k8s_openapi::Metadata::metadata(self);
        vec![name_cell(meta), creation_cell(meta)]
    }

    /// For kinds that end gracefully: the seconds to wait for an object that a client asks to delete with `requested`
    /// seconds. None: the object is removed at once (as soon as its finalizers are gone).
    fn grace_period(&self, requested: Option<i64>) -> Option<i64> {
        let _ = requested;
        None
    }

    /// Whether something besides `metadata.finalizers` keeps a deleted object (a namespace's `spec.finalizers`).
    fn held(&self) -> bool {
        false
    }

    /// What changes when a client asks to delete the object and it does not go at once (a namespace's phase).
    fn prepare_delete(&mut self) {}

    /// What `scale` shows; None for kinds without it.
    fn replicas(&self) -> Option<Replicas> {
        None
    }

    /// What `scale` changes.
    fn set_replicas(&mut self, wanted: i32) {
        let _ = wanted;
    }
}

/// The cell of the name column.
pub fn name_cell(meta: &ObjectMeta) -> Value {
    meta.name.as_deref().unwrap_or_default().into()
}

/// The cell of the `Created At` column.
pub fn creation_cell(meta: &ObjectMeta) -> Value {
    match &meta.creation_timestamp {
        Some(time) => serde_json::to_value(time).unwrap_or_default(),
        None => Value::Null,
    }
}

/// The rules of a kind for code that knows no kinds.
///
/// The objects passed in are those that `decode` of the same rules made. An object of another type is a mistake of the
/// caller, not of the user; it gets no defaults and an internal field error, never a panic.
pub trait Rules: Send + Sync + Debug {
    /// Reads an object that passed the schema's check. The error says what is wrong in serde's words.
    fn decode(&self, value: Value) -> Result<Box<dyn Object>, Status>;
    /// Reads an object from the store.
    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, Status>;
    fn set_defaults(&self, object: &mut dyn Object);
    fn prepare_create(&self, object: &mut dyn Object);
    fn prepare_update(&self, object: &mut dyn Object, old: &dyn Object);
    fn prepare_status(&self, object: &mut dyn Object, old: &dyn Object);
    fn prepare_subresource(&self, subresource: &str, object: &mut dyn Object, old: &dyn Object);
    fn stamp(&self, object: &mut dyn Object, old: Option<&dyn Object>, now: Timestamp);
    /// Checks a new object, `metadata` included.
    fn validate(&self, object: &dyn Object) -> Errors;
    /// Checks an update, `metadata` included.
    fn validate_update(&self, object: &dyn Object, old: &dyn Object) -> Errors;
    /// Checks an update through `status`, `metadata` included.
    fn validate_status(&self, object: &dyn Object, old: &dyn Object) -> Errors;
    /// Checks an update through another subresource, `metadata` included.
    fn validate_subresource(&self, subresource: &str, object: &dyn Object, old: &dyn Object) -> Errors;
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// The names that field selectors may use beyond `metadata.name` and `metadata.namespace`.
    fn field_names(&self) -> &[&'static str];
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    fn columns(&self) -> &[Column];
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
    fn replicas(&self, object: &dyn Object) -> Option<Replicas>;
    fn set_replicas(&self, object: &mut dyn Object, wanted: i32);
    /// The fields of which an empty content is not the same as none.
    fn given(&self) -> &'static [Given];
    /// Whether Tables of the kind are sorted by `table_rank`, not by name alone.
    fn is_ranked(&self) -> bool;
    fn table_rank(&self, object: &dyn Object) -> i64;
    fn create_on_update(&self) -> bool;
    fn unconditional_update(&self) -> bool;
    fn returns_deleted(&self) -> bool;
    /// Whether failed preconditions of a deletion are reported in the words of upstream's store.
    fn own_deletion(&self) -> bool;
    /// The annotations that answers with metadata alone do not have.
    fn converted_annotations(&self) -> &'static [&'static str];
    /// Of a kind whose dependents stay when a client deletes it without saying what is to become of them: the advice
    /// that comes with such a deletion, or nothing.
    fn dependents_stay(&self) -> Option<&'static str>;
    /// The fields that writes of the status leave as they are.
    fn status_resets(&self) -> &'static [&'static [&'static str]];
    /// The advice that comes with every answer about a kind that has a successor.
    fn deprecated(&self) -> Option<&'static str>;
    /// Whether something besides `metadata.finalizers` keeps a deleted object.
    fn held(&self, object: &dyn Object) -> bool;
    /// What changes when a deletion begins that does not remove the object at once.
    fn prepare_delete(&self, object: &mut dyn Object);
    /// What names objects may have; None where metadata is not checked.
    fn name_rule(&self) -> Option<NameRule>;
}

/// The rules of the typed kind `T`.
pub struct Typed<T> {
    namespaced: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Kind> Typed<T> {
    /// The rules of `T`, whose objects live in namespaces or not.
    pub const fn new(namespaced: bool) -> Self {
        Self { namespaced, of: PhantomData }
    }

    fn bad<E: std::fmt::Display>(error: E) -> Status {
        let (version, kind) = (T::VERSION, T::KIND);
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    }
}

impl<T: Kind> Debug for Typed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Typed<{}>", T::KIND)
    }
}

fn mistaken<T: Kind>() -> Errors {
    vec![crate::field::FieldError::internal(
        &Path::root(),
        format_args!("the object is not a {} {}", T::API_VERSION, T::KIND),
    )]
}

impl<T: Kind> Rules for Typed<T> {
    fn decode(&self, value: Value) -> Result<Box<dyn Object>, Status> {
        serde_json::from_value::<T>(value).map(|o| Box::new(o) as Box<dyn Object>).map_err(Self::bad)
    }

    fn decode_bytes(&self, bytes: &[u8]) -> Result<Box<dyn Object>, Status> {
        // From text, as clients do: one way of reading a type is compiled once (ARCHITECTURE.md).
        let text = std::str::from_utf8(bytes).map_err(Self::bad)?;
        serde_json::from_str::<T>(text).map(|o| Box::new(o) as Box<dyn Object>).map_err(Self::bad)
    }

    fn set_defaults(&self, object: &mut dyn Object) {
        if let Some(object) = object.downcast_mut::<T>() {
            object.set_defaults();
        }
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        if let Some(object) = object.downcast_mut::<T>() {
            object.prepare_create();
        }
    }

    fn prepare_update(&self, object: &mut dyn Object, old: &dyn Object) {
        if let (Some(object), Some(old)) = (object.downcast_mut::<T>(), old.downcast_ref::<T>()) {
            object.prepare_update(old);
        }
    }

    fn prepare_status(&self, object: &mut dyn Object, old: &dyn Object) {
        if let (Some(object), Some(old)) = (object.downcast_mut::<T>(), old.downcast_ref::<T>()) {
            object.prepare_status(old);
        }
    }

    fn prepare_subresource(&self, subresource: &str, object: &mut dyn Object, old: &dyn Object) {
        if let (Some(object), Some(old)) = (object.downcast_mut::<T>(), old.downcast_ref::<T>()) {
            object.prepare_subresource(subresource, old);
        }
    }

    fn stamp(&self, object: &mut dyn Object, old: Option<&dyn Object>, now: Timestamp) {
        if let Some(object) = object.downcast_mut::<T>() {
            object.stamp(old.and_then(|old| old.downcast_ref::<T>()), now);
        }
    }

    fn validate(&self, object: &dyn Object) -> Errors {
        let Some(object) = object.downcast_ref::<T>() else { return mistaken::<T>() };
        let mut errors = match T::NAME {
            Some(rule) => {
                let mut errors =
                    meta::validate(Object::metadata(object), self.namespaced, rule, &Path::new("metadata"));
                kube_finalizers(Object::metadata(object), &mut errors);
                errors
            }
            None => Errors::new(),
        };
        errors.extend(Kind::validate(object));
        errors
    }

    fn validate_update(&self, object: &dyn Object, old: &dyn Object) -> Errors {
        let (Some(object), Some(old)) = (object.downcast_ref::<T>(), old.downcast_ref::<T>()) else {
            return mistaken::<T>();
        };
        let mut errors = metadata_update(object, old);
        errors.extend(object.validate_update(old));
        errors
    }

    fn validate_status(&self, object: &dyn Object, old: &dyn Object) -> Errors {
        let (Some(object), Some(old)) = (object.downcast_ref::<T>(), old.downcast_ref::<T>()) else {
            return mistaken::<T>();
        };
        let mut errors = metadata_update(object, old);
        errors.extend(object.validate_status(old));
        errors
    }

    fn validate_subresource(&self, subresource: &str, object: &dyn Object, old: &dyn Object) -> Errors {
        let (Some(object), Some(old)) = (object.downcast_ref::<T>(), old.downcast_ref::<T>()) else {
            return mistaken::<T>();
        };
        let mut errors = metadata_update(object, old);
        errors.extend(object.validate_subresource(subresource, old));
        errors
    }

    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        let old = old.and_then(|old| old.downcast_ref::<T>());
        object.downcast_ref::<T>().map(|o| o.warnings(old)).unwrap_or_default()
    }

    fn field_names(&self) -> &[&'static str] {
        T::FIELDS
    }

    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        object.downcast_ref::<T>().map(Kind::fields).unwrap_or_default()
    }

    fn columns(&self) -> &[Column] {
        T::COLUMNS
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        object.downcast_ref::<T>().map(|o| o.cells(now)).unwrap_or_default()
    }

    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        object.downcast_ref::<T>()?.grace_period(requested)
    }

    fn replicas(&self, object: &dyn Object) -> Option<Replicas> {
        object.downcast_ref::<T>()?.replicas()
    }

    fn set_replicas(&self, object: &mut dyn Object, wanted: i32) {
        if let Some(object) = object.downcast_mut::<T>() {
            object.set_replicas(wanted);
        }
    }

    fn given(&self) -> &'static [Given] {
        T::GIVEN
    }

    fn is_ranked(&self) -> bool {
        T::TABLE_RANK.is_some()
    }

    fn table_rank(&self, object: &dyn Object) -> i64 {
        T::TABLE_RANK.zip(object.downcast_ref::<T>()).map_or(0, |(rank, object)| rank(object))
    }

    fn create_on_update(&self) -> bool {
        T::CREATE_ON_UPDATE
    }

    fn unconditional_update(&self) -> bool {
        T::UNCONDITIONAL_UPDATE
    }

    fn returns_deleted(&self) -> bool {
        T::RETURNS_DELETED
    }

    fn own_deletion(&self) -> bool {
        T::OWN_DELETION
    }

    fn converted_annotations(&self) -> &'static [&'static str] {
        T::CONVERTED_ANNOTATIONS
    }

    fn dependents_stay(&self) -> Option<&'static str> {
        T::DEPENDENTS_STAY
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        T::STATUS_RESETS
    }

    fn deprecated(&self) -> Option<&'static str> {
        T::DEPRECATED
    }

    fn held(&self, object: &dyn Object) -> bool {
        object.downcast_ref::<T>().is_some_and(Kind::held)
    }

    fn prepare_delete(&self, object: &mut dyn Object) {
        if let Some(object) = object.downcast_mut::<T>() {
            object.prepare_delete();
        }
    }

    fn name_rule(&self) -> Option<NameRule> {
        T::NAME
    }
}

fn metadata_update<T: Object>(object: &T, old: &T) -> Errors {
    let mut errors = meta::validate_update(object.metadata(), old.metadata(), &Path::new("metadata"));
    kube_finalizers(object.metadata(), &mut errors);
    errors
}

/// Built-in kinds ask that a finalizer without a domain is one of Kubernetes itself.
fn kube_finalizers(meta: &ObjectMeta, errors: &mut Errors) {
    let path = Path::new("metadata").child("finalizers");
    for (i, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        kinds::kube_finalizer(errors, &path.index(i), finalizer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{LimitRange, ServiceAccount};
    use k8s_openapi::api::storage::v1::CSINode;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use serde_json::json;

    fn written<T: Object + DeserializeOwned>(given: &Value) -> Value {
        let object: T = serde_json::from_value(given.clone()).unwrap();
        let value = object.to_value();
        assert_eq!(serde_json::from_slice::<Value>(&object.to_bytes()).unwrap(), value);
        value
    }

    #[test]
    fn empty_fields_are_written_as_go_writes_them() {
        let limits = written::<LimitRange>(&json!({"metadata": {}, "spec": {"limits": []}}));
        assert_eq!(limits["spec"], json!({"limits": null}));
        let node = written::<CSINode>(&json!({"metadata": {}, "spec": {"drivers": []}}));
        assert_eq!(node["spec"], json!({"drivers": null}));
        let drivers = json!([
            {"name": "a", "nodeID": "a", "topologyKeys": []},
            {"name": "b", "nodeID": "b", "topologyKeys": ["k"]},
        ]);
        let node = written::<CSINode>(&json!({"metadata": {}, "spec": {"drivers": drivers}}));
        assert_eq!(node["spec"]["drivers"][0]["topologyKeys"], Value::Null);
        assert_eq!(node["spec"]["drivers"][1]["topologyKeys"], json!(["k"]));
        let account =
            written::<ServiceAccount>(&json!({"metadata": {}, "imagePullSecrets": [{}, {"name": "a"}]}));
        assert_eq!(account["imagePullSecrets"], json!([{}, {"name": "a"}]));
    }

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        let limits = json!({"type": "number", "minimum": 1.0, "maximum": 1.5, "multipleOf": 1e300});
        let definition = written::<CustomResourceDefinition>(&json!({
            "metadata": {}, "spec": {"group": "g", "scope": "Cluster", "names": {"kind": "K", "plural": "ks"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": limits}}]},
        }));
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["minimum"].to_string(), "1");
        assert_eq!(schema["maximum"].to_string(), "1.5");
        assert_eq!(schema["multipleOf"].as_f64(), Some(1e300));
    }
}
