//! One walk over one kind: where it is, what it made and what it found wrong.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::common::{Answer, Api};
use crate::sample::{Sample, numbered};
use crate::served::Served;

/// Where the objects of the walk are.
pub(crate) const NAMESPACE: &str = "walk";
/// The label of all objects of the walk, in a query.
pub(crate) const OURS: &str = "labelSelector=walk%3Dyes";

pub(crate) struct Walk<'a> {
    pub(crate) api: &'a Api,
    pub(crate) served: &'a Served,
    pub(crate) sample: &'a Sample,
    pub(crate) faults: Vec<String>,
    step: &'static str,
    number: u32,
}

/// An object that the walk made.
#[derive(Clone)]
pub(crate) struct Made {
    /// The number by which its sample was made.
    pub(crate) number: u32,
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: String,
    /// As the server answered.
    pub(crate) answer: Value,
    /// As it is when the server itself has nothing more to write.
    pub(crate) object: Value,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(api: &'a Api, served: &'a Served, sample: &'a Sample) -> Self {
        Self { api, served, sample, faults: Vec::new(), step: "sample", number: 0 }
    }

    /// Begins a step, and takes away what the last one made.
    pub(crate) async fn step(&mut self, step: &'static str) {
        self.step = step;
        if self.served.can("list") && self.served.can("delete") {
            self.clear().await;
        }
    }

    pub(crate) fn fault(&mut self, what: impl Display) {
        let Served { version, plural, .. } = self.served;
        self.faults.push(format!("{version} {plural}: {}: {what}", self.step));
    }

    /// The answer must have this code; `None` if it has not.
    pub(crate) fn code(&mut self, what: &str, code: u16, answer: Answer) -> Option<Answer> {
        if answer.code == code {
            return Some(answer);
        }
        self.fault(format_args!("{what}: {} instead of {code}: {}", answer.code, short(&answer.text)));
        None
    }

    /// The answer must be this refusal, word for word.
    pub(crate) fn refused(&mut self, what: &str, code: u16, reason: &str, message: &str, answer: &Answer) {
        if (answer.code, answer.reason(), answer.message()) != (code, reason, message) {
            self.fault(format_args!(
                "{what}: instead of {code} {reason} {message:?}: {} {}",
                answer.code,
                short(&answer.text)
            ));
        }
    }

    /// Both must be equal.
    pub(crate) fn same(&mut self, what: &str, got: &Value, want: &Value) {
        if let Some(difference) = difference(got, want) {
            self.fault(format_args!("{what}: {difference}"));
        }
    }

    pub(crate) fn is(&mut self, what: &str, is: bool, got: impl Display) {
        if !is {
            self.fault(format_args!("{what}: {}", short(&got.to_string())));
        }
    }

    /// The path of the kind's objects where the walk makes them.
    pub(crate) fn all(&self) -> String {
        self.served.path(NAMESPACE)
    }

    pub(crate) fn one(&self, name: &str) -> String {
        format!("{}/{name}", self.all())
    }

    /// The `details` words of messages: `pods "x"`.
    pub(crate) fn quoted(&self, name: &str) -> String {
        format!("{} \"{name}\"", self.served.named())
    }

    /// The metadata of an object as it is where nothing else is shown.
    pub(crate) fn alone(&self, object: &Value) -> Value {
        let mut metadata = object["metadata"].clone();
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(&self.sample.hides);
            if annotations.is_empty()
                && let Some(fields) = metadata.as_object_mut()
            {
                fields.remove("annotations");
            }
        }
        metadata
    }

    /// A sound object that is not there yet, marked as the walk's.
    pub(crate) fn next(&mut self) -> Value {
        self.number += 1;
        let mut object = self.sample.object(self.number);
        if self.served.can("get") {
            object["metadata"]["labels"]["walk"] = json!("yes");
        }
        object
    }

    /// The number of the last object.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// A part of the sample as it is for the object of this number.
    pub(crate) fn patch_of(&self, part: Option<&Value>, number: u32) -> Option<Value> {
        part.map(|part| numbered(part, number))
    }

    /// Makes an object.
    pub(crate) async fn make(&mut self) -> Option<Made> {
        let object = self.next();
        self.make_of(object).await
    }

    /// Makes this object.
    pub(crate) async fn make_of(&mut self, object: Value) -> Option<Made> {
        let number = self.number;
        let answer = self.api.post(&self.all(), &object).await;
        let answer = self.code("create", 201, answer)?.value;
        let name = answer["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let object = self.settled(&name, answer.clone()).await;
        Some(Made { number, path: self.one(&name), name, answer, object })
    }

    /// A new object, when the server itself has written what it writes of it.
    pub(crate) async fn settled(&self, name: &str, object: Value) -> Value {
        if !self.sample.settles {
            return object;
        }
        let query = format!("watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=10");
        let mut watch = self.api.watch(&format!("{}?{query}", self.all())).await;
        while let Some(mut event) = watch.next().await {
            if event["object"]["status"]["conditions"].is_array() {
                return event["object"].take();
            }
        }
        object
    }

    /// The object as it is now.
    pub(crate) async fn now(&mut self, made: &Made) -> Value {
        let answer = self.api.get(&made.path).await;
        self.code("get", 200, answer).map_or(Value::Null, |answer| answer.value)
    }

    /// The stored object must be this one.
    pub(crate) async fn still(&mut self, what: &str, made: &Made, want: &Value) {
        let now = self.now(made).await;
        self.same(what, &now, want);
    }

    /// Takes away all objects of the walk.
    async fn clear(&mut self) {
        let list = self.api.get(&format!("{}?{OURS}", self.all())).await;
        for name in list.names() {
            let path = self.one(&name);
            let answer = self
                .api
                .delete(&path, Some(&json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0})))
                .await;
            if !(200..300).contains(&answer.code) {
                self.fault(format_args!("delete of {name}: {} {}", answer.code, short(&answer.text)));
                continue;
            }
            self.release(&path).await;
            let answer = self.api.get(&path).await;
            self.code("an object that nothing holds any more", 404, answer);
        }
    }

    /// Removes what keeps a deleted object.
    pub(crate) async fn release(&mut self, path: &str) {
        let left = self.api.get(path).await;
        if left.code == 404 {
            return;
        }
        if left.value["metadata"]["finalizers"].is_array() {
            let patch = json!({"metadata": {"finalizers": null}});
            let answer = self.api.patch("merge-patch", path, &patch).await;
            self.code("a patch that removes the finalizers", 200, answer);
        }
        if self.served.part("finalize").is_some() {
            let mut left = self.api.get(path).await.value;
            left["spec"]["finalizers"] = json!([]);
            let answer = self.api.put(&format!("{path}/finalize"), &left).await;
            self.code("finalize", 200, answer);
        }
    }
}

/// The first place where two values differ.
pub(crate) fn difference(got: &Value, want: &Value) -> Option<String> {
    match (got, want) {
        _ if got == want => None,
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let null = Value::Null;
            let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
            difference(a, b).map(|why| format!(".{key}{why}"))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| difference(a, b).map(|why| format!("[{i}]{why}")))
        }
        _ => Some(format!(" is {}, not {}", short(&got.to_string()), short(&want.to_string()))),
    }
}

/// What fits a line.
pub(crate) fn short(text: &str) -> String {
    let line = text.replace('\n', " ");
    match line.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The object with a merge patch, as a client would make it.
pub(crate) fn merged(object: &Value, patch: &Value) -> Value {
    api::patch::merge(object.clone(), patch.as_object().cloned().unwrap_or_default())
}
