//! What a controller wants done: data, so that it can be made and tested without an API.

use std::time::Duration;

use client::{EventKind, Key, Reference};
use kube::Resource;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::request::Request;
use serde::Serialize;
use serde_json::{Value, json};

/// The next writes for one object.
#[derive(Debug, Default)]
pub struct Plan {
    /// Stages are carried out one after the other, the writes of a stage at the same time. When a write
    /// fails, the stages after it are left for the next attempt.
    pub stages: Vec<Vec<Write>>,
    /// Look again after this time even if nothing changes.
    pub again: Option<Duration>,
    pub events: Vec<Announcement>,
}

/// An event to record once the plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub about: Reference,
    pub kind: EventKind,
    pub reason: &'static str,
    pub message: String,
}

/// One request to the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Plural of the written resource: its cache is waited for.
    pub resource: String,
    pub key: Key,
    pub what: What,
    path: String,
    /// What to record when it succeeds or fails: the object, and the events' reasons and texts.
    pub announce: Option<WriteEvents>,
}

/// Kinds of requests.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Create(Value),
    /// Replaces the object; fails with a conflict if it has changed since it was read.
    Replace(Value),
    ReplaceStatus(Value),
    /// A merge patch; carry `metadata.resourceVersion` or `uid` in it to make it conditional.
    Merge(Value),
    MergeStatus(Value),
    /// A strategic merge patch of the status, for lists with merge keys such as conditions.
    StrategicStatus(Value),
    /// Deletes the object with this UID; one that is gone counts as done.
    Delete {
        uid: String,
        propagation: Option<PropagationPolicy>,
        grace: Option<u32>,
    },
    /// Deletes the object if it is still at this version; fails with a conflict otherwise.
    DeleteUnchanged {
        uid: String,
        version: String,
        propagation: PropagationPolicy,
    },
    /// Deletes all objects of the collection.
    DeleteCollection,
    /// Replaces what a subresource other than the status shows.
    ReplaceSubresource(&'static str, Value),
    /// Evicts nothing, deletes nothing: a request to another subresource.
    CreateSubresource(&'static str, Value),
}

/// Events about a write's outcome. `{name}` in `done` stands for the name that the object got;
/// the failure's text is appended to `failed`. An outcome with an empty reason is not recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteEvents {
    pub about: Reference,
    pub done: (&'static str, String),
    pub failed: (&'static str, String),
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(Vec::is_empty)
    }

    /// All writes in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.stages.iter().flatten()
    }

    /// Adds a write after all others.
    pub fn then(&mut self, write: Write) {
        self.stages.push(vec![write]);
    }

    /// Adds writes that may be carried out at the same time, after all others.
    pub fn then_all(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.stages.push(writes);
        }
    }

    /// Looks again after `delay`, or earlier if that was wanted before.
    pub fn look_again(&mut self, delay: Duration) {
        self.again = Some(self.again.map_or(delay, |earlier| earlier.min(delay)));
    }

    /// Records a `Normal` event.
    pub fn normal(&mut self, about: &Reference, reason: &'static str, message: impl Into<String>) {
        self.events.push(Announcement {
            about: about.clone(),
            kind: EventKind::Normal,
            reason,
            message: message.into(),
        });
    }

    /// Records a `Warning` event.
    pub fn warning(&mut self, about: &Reference, reason: &'static str, message: impl Into<String>) {
        self.events.push(Announcement {
            about: about.clone(),
            kind: EventKind::Warning,
            reason,
            message: message.into(),
        });
    }
}

impl Write {
    fn new<K: Resource<DynamicType = ()>>(object: &K, what: What) -> Self {
        let key = Key::of(object);
        let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let path = K::url_path(&(), namespace);
        Self { resource: K::plural(&()).into_owned(), key, what, path, announce: None }
    }

    /// Creates an object.
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::new(object, What::Create(whole(object)))
    }

    /// Replaces an object that was read and changed.
    pub fn replace<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::new(object, What::Replace(whole(object)))
    }

    /// Replaces the status of an object that was read and changed.
    pub fn replace_status<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::new(object, What::ReplaceStatus(whole(object)))
    }

    /// Replaces what a subresource other than the status shows, of an object that was read and changed.
    pub fn replace_subresource<K: Resource<DynamicType = ()> + Serialize>(
        object: &K,
        subresource: &'static str,
    ) -> Self {
        Self::new(object, What::ReplaceSubresource(subresource, whole(object)))
    }

    /// Merges `patch` into an object.
    pub fn merge<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::new(object, What::Merge(patch))
    }

    /// Merges `patch` into an object's status.
    pub fn merge_status<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::new(object, What::MergeStatus(patch))
    }

    /// Merges `patch` into an object's status, lists by their merge keys.
    pub fn strategic_status<K: Resource<DynamicType = ()>>(object: &K, patch: Value) -> Self {
        Self::new(object, What::StrategicStatus(patch))
    }

    /// Deletes exactly this object, not another of its name.
    pub fn delete<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let uid = object.meta().uid.clone().unwrap_or_default();
        Self::new(object, What::Delete { uid, propagation: None, grace: None })
    }

    /// Deletes exactly this object without waiting for its node.
    pub fn delete_now<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let uid = object.meta().uid.clone().unwrap_or_default();
        Self::new(object, What::Delete { uid, propagation: None, grace: Some(0) })
    }

    /// A write to a resource that is known only at run time; `path` is its collection's.
    pub fn at(path: String, resource: &str, key: Key, what: What) -> Self {
        Self { resource: resource.to_owned(), key, what, path, announce: None }
    }

    /// Records how this write went.
    #[must_use]
    pub fn announced(mut self, events: WriteEvents) -> Self {
        self.announce = Some(events);
        self
    }

    /// The HTTP request.
    pub(super) fn request(&self) -> Result<http::Request<Vec<u8>>, kube::Error> {
        let request = Request::new(&self.path);
        let name = &self.key.name;
        let post = PostParams::default();
        let patch = PatchParams::default();
        let built = match &self.what {
            What::Create(body) => request.create(&post, bytes(body)?),
            What::Replace(body) => request.replace(name, &post, bytes(body)?),
            What::ReplaceStatus(body) => request.replace_subresource("status", name, &post, bytes(body)?),
            What::Merge(body) => request.patch(name, &patch, &Patch::Merge(body)),
            What::MergeStatus(body) => request.patch_subresource("status", name, &patch, &Patch::Merge(body)),
            What::StrategicStatus(body) => {
                request.patch_subresource("status", name, &patch, &Patch::Strategic(body))
            }
            What::Delete { uid, propagation, grace } => {
                let preconditions = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
                let params = DeleteParams {
                    propagation_policy: propagation.clone(),
                    grace_period_seconds: *grace,
                    preconditions: (!uid.is_empty()).then_some(preconditions),
                    ..DeleteParams::default()
                };
                request.delete(name, &params)
            }
            What::DeleteUnchanged { uid, version, propagation } => {
                let params = DeleteParams {
                    propagation_policy: Some(propagation.clone()),
                    preconditions: Some(Preconditions {
                        uid: Some(uid.clone()),
                        resource_version: Some(version.clone()),
                    }),
                    ..DeleteParams::default()
                };
                request.delete(name, &params)
            }
            What::DeleteCollection => {
                let background = Some(PropagationPolicy::Background);
                let params = DeleteParams { propagation_policy: background, ..DeleteParams::default() };
                request.delete_collection(&params, &ListParams::default())
            }
            What::ReplaceSubresource(subresource, body) => {
                request.replace_subresource(subresource, name, &post, bytes(body)?)
            }
            What::CreateSubresource(subresource, body) => {
                request.create_subresource(subresource, name, &post, bytes(body)?)
            }
        };
        built.map_err(kube::Error::BuildRequest)
    }
}

/// The object as JSON, with its kind.
fn whole<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_else(|_| json!({}));
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), K::api_version(&()).into());
        map.insert("kind".into(), K::kind(&()).into());
    }
    value
}

fn bytes(value: &Value) -> Result<Vec<u8>, kube::Error> {
    serde_json::to_vec(value).map_err(kube::Error::SerdeError)
}
