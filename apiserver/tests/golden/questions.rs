//! The questions: for each object of the recording, what a client could ask of it, in the recording's own order.
//!
//! Creates that are sound, that lack a field, that have a value of another type or out of range in it; the object
//! itself, updates of one field, all kinds of patches, lists with good and bad parameters, other forms, deletion.

use std::collections::BTreeSet;

use base64::Engine as _;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use serde_json::{Value, json};

use crate::common::{Answer, Api};
use crate::in_order::InOrder;
use crate::masks;

/// One question by its name, and what was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) code: u16,
    pub(crate) response: Value,
}

impl Answered {
    /// The answers of a recording, one in each line.
    pub(crate) fn recorded(text: &str) -> Vec<Self> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .map(Self::of_line)
            .collect()
    }

    fn of_line(mut line: Value) -> Self {
        Self {
            id: line["id"].as_str().expect("an id").to_owned(),
            code: line["code"].as_u64().and_then(|code| u16::try_from(code).ok()).expect("a code"),
            response: line["response"].take(),
        }
    }
}

/// The objects of the recording, each with its JSON text as the recorder wrote it, with a request for a certificate where one is wanted.
pub(crate) fn objects(manifests: &str) -> Vec<(Value, String)> {
    let request = certificate_request();
    let documents = manifests.split("\n---\n").map(|text| text.replace("@CSR@", &request));
    // `N` is the name of a variable there, as the recorder's parser read it.
    let options = || serde_saphyr::options! { strict_booleans: true };
    let read = |text: String| {
        let object = serde_saphyr::from_str_with_options(&text, options()).expect("YAML");
        let in_order: InOrder = serde_saphyr::from_str_with_options(&text, options()).expect("YAML");
        (object, in_order.0)
    };
    documents.map(read).collect()
}

/// As long as that of the recording, so that what is wrong behind its end is at the same place.
fn certificate_request() -> String {
    base64::engine::general_purpose::STANDARD.encode(include_str!("request.pem"))
}

const CLUSTER: &[&str] = &[
    "Namespace",
    "Node",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "StorageClass",
    "CSIDriver",
    "CSINode",
    "VolumeAttachment",
    "PriorityClass",
    "RuntimeClass",
    "CertificateSigningRequest",
    "IngressClass",
    "ValidatingWebhookConfiguration",
    "CustomResourceDefinition",
];

fn collection(object: &Value) -> String {
    let text = |key: &str| object[key].as_str().expect("a text");
    let (version, kind) = (text("apiVersion"), text("kind"));
    let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let namespace = if CLUSTER.contains(&kind) { "" } else { "/namespaces/default" };
    let kind = kind.to_lowercase();
    let plural = match kind.as_str() {
        "endpoints" => kind,
        "networkpolicy" => "networkpolicies".to_owned(),
        _ if kind.ends_with("ss") => format!("{kind}es"),
        _ => format!("{kind}s"),
    };
    format!("{root}{namespace}/{plural}")
}

/// What a question has beside method and path.
#[derive(Default)]
struct Form {
    body: Option<String>,
    content_type: Option<&'static str>,
    accept: Option<&'static str>,
}

impl Form {
    fn json(body: &Value) -> Self {
        Self { body: Some(body.to_string()), ..Self::default() }
    }
    fn typed(content_type: &'static str, body: &Value) -> Self {
        Self { content_type: Some(content_type), ..Self::json(body) }
    }
    fn accepting(accept: &'static str) -> Self {
        Self { accept: Some(accept), ..Self::default() }
    }
}

/// Asks everything about all objects.
pub(crate) async fn ask_all(api: &Api, objects: &[(Value, String)]) -> Vec<Answered> {
    let mut asked = Asked { api, answers: Vec::new() };
    for (object, text) in objects {
        Subject::new(object, text).ask(&mut asked).await;
    }
    let ids: BTreeSet<&str> = asked.answers.iter().map(|answer| answer.id.as_str()).collect();
    assert_eq!(ids.len(), asked.answers.len(), "a question is asked twice");
    asked.answers
}

struct Asked<'a> {
    api: &'a Api,
    answers: Vec<Answered>,
}

impl Asked<'_> {
    async fn send(&self, method: &str, path: &str, form: Form) -> Answer {
        let headers = [
            (ACCEPT.as_str(), form.accept.unwrap_or("application/json")),
            (CONTENT_TYPE.as_str(), form.content_type.unwrap_or("application/json")),
            (USER_AGENT.as_str(), "Python-urllib/3.11"),
        ];
        self.api.send(method, path, &headers, form.body.unwrap_or_default()).await
    }

    async fn ask(&mut self, id: String, method: &str, path: &str, form: Form) -> (u16, Value) {
        let answer = self.send(method, path, form).await;
        let mut response = answer.value;
        if response.is_null() {
            response = answer.text.chars().take(400).collect::<String>().into();
        }
        if response["kind"] == "Status"
            && let Some(fields) = response.as_object_mut()
        {
            const KEPT: &[&str] = &["status", "reason", "code", "message", "details"];
            fields.retain(|name, _| KEPT.contains(&name.as_str()));
        }
        self.answers.push(Answered { id, code: answer.code, response: masks::recorded(&response) });
        (answer.code, response)
    }
}

/// An object that is asked about.
struct Subject<'a> {
    object: &'a Value,
    text: &'a str,
    id: String,
    collection: String,
    path: String,
}

impl<'a> Subject<'a> {
    fn new(object: &'a Value, json: &'a str) -> Self {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let text = |key: &str| object[key].as_str().expect("a text");
        let collection = collection(object);
        Self {
            object,
            text: json,
            id: format!("{}.{}.{name}", text("kind"), text("apiVersion")),
            path: format!("{collection}/{name}"),
            collection,
        }
    }

    fn id(&self, question: &str) -> String {
        format!("{}/{question}", self.id)
    }

    async fn ask(&self, to: &mut Asked<'_>) {
        to.send("DELETE", &format!("{}?gracePeriodSeconds=0", self.path), Form::default()).await;
        self.creates(to).await;
        let (code, made) = to.ask(self.id("create"), "POST", &self.collection, Form::json(self.object)).await;
        if code != 200 && code != 201 {
            return;
        }
        schedule(to, &made, &self.path).await;
        to.ask(self.id("create-again"), "POST", &self.collection, Form::json(self.object)).await;
        to.ask(self.id("get"), "GET", &self.path, Form::default()).await;
        to.ask(self.id("get-missing"), "GET", &format!("{}-no", self.path), Form::default()).await;
        self.updates(to, made).await;
        self.patches(to).await;
        self.lists(to).await;
        self.deletes(to).await;
    }

    /// Creates that change nothing: the object, without each of its fields, with another value in each.
    async fn creates(&self, to: &mut Asked<'_>) {
        let dry = format!("{}?dryRun=All", self.collection);
        to.ask(self.id("create-dry"), "POST", &dry, Form::json(self.object)).await;
        for place in places(self.object) {
            if place.is_type() {
                continue;
            }
            let mut without = self.object.clone();
            place.remove(&mut without);
            let id = self.id(&format!("create-without/{place}"));
            to.ask(id, "POST", &dry, Form::json(&without)).await;
            for (short, value) in others(place.of(self.object)) {
                let mut with = self.object.clone();
                place.set(&mut with, value);
                let id = self.id(&format!("create-with/{place}/{short}"));
                to.ask(id, "POST", &dry, Form::json(&with)).await;
            }
        }
        let mut unknown = self.object.clone();
        unknown["bogus"] = json!(1);
        if unknown.get("spec").is_some() {
            unknown["spec"]["bogusToo"] = json!(true);
        }
        to.ask(self.id("create-unknown"), "POST", &dry, Form::json(&unknown)).await;
        let mut nothing = self.object.clone();
        nothing["kind"] = json!("Nothing");
        to.ask(self.id("create-wrong-kind"), "POST", &dry, Form::json(&nothing)).await;
        let cut = self.text[..self.text.len() - 3].to_owned();
        let cut = Form { body: Some(cut), ..Form::default() };
        to.ask(self.id("create-bad-json"), "POST", &self.collection, cut).await;
        let plain = Form::typed("text/plain", self.object);
        to.ask(self.id("create-bad-type"), "POST", &self.collection, plain).await;
    }

    /// Updates of one field each that change nothing, and one of an old version.
    async fn updates(&self, to: &mut Asked<'_>, made: Value) {
        let dry = format!("{}?dryRun=All", self.path);
        for place in places(self.object) {
            let Some(value) = changed(place.of(self.object)).filter(|_| !place.is_type()) else { continue };
            let mut new = made.clone();
            if !place.set(&mut new, value) {
                continue;
            }
            if let Some(metadata) = new["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            to.ask(self.id(&format!("update/{place}")), "PUT", &dry, Form::json(&new)).await;
        }
        let mut stale = made;
        stale["metadata"]["resourceVersion"] = json!("1");
        to.ask(self.id("update-stale"), "PUT", &self.path, Form::json(&stale)).await;
    }

    async fn patches(&self, to: &mut Asked<'_>) {
        const MERGE: &str = "application/merge-patch+json";
        const JSON: &str = "application/json-patch+json";
        const STRATEGIC: &str = "application/strategic-merge-patch+json";
        let dry = format!("{}?dryRun=All", self.path);
        let annotations = json!([{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]);
        for (question, kind, patch) in [
            ("merge-label", MERGE, json!({"metadata": {"labels": {"x": "y", "app": null}}})),
            ("merge-bad", MERGE, json!({"metadata": {"labels": {"x": 1}}})),
            ("merge-name", MERGE, json!({"metadata": {"name": "other"}})),
            ("json-ok", JSON, annotations),
            ("json-test", JSON, json!([{"op": "test", "path": "/metadata/name", "value": "zzz"}])),
            ("json-missing", JSON, json!([{"op": "remove", "path": "/metadata/nothing"}])),
            ("json-badop", JSON, json!([{"op": "frob", "path": "/metadata"}])),
            (
                "smp-label",
                STRATEGIC,
                json!({"metadata": {"labels": {"x": "y"}, "finalizers": ["example.org/f"]}}),
            ),
        ] {
            to.ask(self.id(question), "PATCH", &dry, Form::typed(kind, &patch)).await;
        }
        let foreign = Form::typed("application/zzz", &json!({}));
        to.ask(self.id("patch-badtype"), "PATCH", &self.path, foreign).await;
    }

    async fn lists(&self, to: &mut Asked<'_>) {
        for (question, query) in [
            ("list-label", "labelSelector=a%3Db%2Cc%20in%20(x%2Cy)"),
            ("list-badlabel", "labelSelector=a%3D%3D%3Db"),
            ("list-badfield", "fieldSelector=spec.bogus%3D1"),
            ("list-badlimit", "limit=abc"),
            ("list-badrv", "resourceVersion=abc"),
            ("list-badcontinue", "limit=1&continue=abc"),
            ("list-futurerv", "resourceVersion=99999999&timeoutSeconds=1"),
        ] {
            let path = format!("{}?{query}", self.collection);
            to.ask(self.id(question), "GET", &path, Form::default()).await;
        }
        for (question, form) in [
            ("table", "application/json;as=Table;v=v1;g=meta.k8s.io"),
            ("partial", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"),
        ] {
            to.ask(self.id(question), "GET", &self.path, Form::accepting(form)).await;
        }
    }

    async fn deletes(&self, to: &mut Asked<'_>) {
        let (dry, gone) = (format!("{}?dryRun=All", self.path), format!("{}-gone", self.path));
        for (question, path, form) in [
            ("delete-baduid", &self.path, Form::json(&json!({"preconditions": {"uid": "nope"}}))),
            ("delete-badprop", &self.path, Form::json(&json!({"propagationPolicy": "Sideways"}))),
            ("delete-dry", &dry, Form::default()),
            ("delete", &self.path, Form::json(&json!({"gracePeriodSeconds": 0}))),
            ("delete-again", &gone, Form::default()),
        ] {
            to.ask(self.id(question), "DELETE", path, form).await;
        }
        to.ask(self.id("method"), "POST", &self.path, Form::json(&json!({}))).await;
    }
}

/// While the recording was made a scheduler was running, which wrote once to each pod.
async fn schedule(to: &Asked<'_>, made: &Value, path: &str) {
    if made["kind"] != "Pod" {
        return;
    }
    let mut pod = made.clone();
    pod["status"]["conditions"] = json!([{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "no nodes available to schedule pods",
        "lastProbeTime": null,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    to.api.put(&format!("{path}/status"), &pod).await.ok();
}

/// A way into a value: the names and numbers to go by.
struct Place(Vec<Step>);

#[derive(Clone)]
enum Step {
    Field(String),
    Item(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "." })?;
            match step {
                Step::Field(name) => f.write_str(name)?,
                Step::Item(number) => write!(f, "{number}")?,
            }
        }
        Ok(())
    }
}

impl Place {
    fn is_type(&self) -> bool {
        matches!(&self.0[..], [Step::Field(name)] if name == "apiVersion" || name == "kind")
    }

    fn walk<'a>(steps: &[Step], value: &'a mut Value) -> Option<&'a mut Value> {
        steps.iter().try_fold(value, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Item(number) => value.get_mut(number),
        })
    }

    fn of<'a>(&self, value: &'a Value) -> &'a Value {
        self.0.iter().fold(value, |value, step| match step {
            Step::Field(name) => &value[name],
            Step::Item(number) => &value[number],
        })
    }

    /// Puts a value here; `false` if there is no such place.
    fn set(&self, value: &mut Value, new: Value) -> bool {
        let Some((last, before)) = self.0.split_last() else { return false };
        match (Self::walk(before, value), last) {
            (Some(Value::Object(map)), Step::Field(name)) => {
                map.insert(name.clone(), new);
            }
            (Some(Value::Array(items)), Step::Item(number)) if *number < items.len() => items[*number] = new,
            _ => return false,
        }
        true
    }

    fn remove(&self, value: &mut Value) {
        let Some((last, before)) = self.0.split_last() else { return };
        match (Self::walk(before, value), last) {
            (Some(Value::Object(map)), Step::Field(name)) => drop(map.remove(name)),
            (Some(Value::Array(items)), Step::Item(number)) => drop(items.remove(*number)),
            _ => {}
        }
    }
}

/// Every place in a value, what is inside before what is around it; not the value itself.
fn places(value: &Value) -> Vec<Place> {
    fn collect(value: &Value, at: &[Step], found: &mut Vec<Place>) {
        let inside = |step: Step| [at, &[step]].concat();
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    collect(value, &inside(Step::Field(name.clone())), found);
                }
            }
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    collect(value, &inside(Step::Item(number)), found);
                }
            }
            _ => {}
        }
        if !at.is_empty() {
            found.push(Place(at.to_vec()));
        }
    }
    let mut found = Vec::new();
    collect(value, &[], &mut found);
    found
}

/// Values that do not fit in the place of this one, each with the short name that the recording gives it.
fn others(value: &Value) -> Vec<(&'static str, Value)> {
    match value {
        Value::Bool(_) => vec![("570157", json!("yes")), ("eccbc8", json!(3))],
        Value::Number(_) => {
            vec![("20cd81", json!("text")), ("6bb61e", json!(-1)), ("dd9148", json!(1_u64 << 40))]
        }
        Value::String(_) => vec![
            ("8f14e4", json!(7)),
            ("b36ea3", json!("Not Valid!")),
            ("9d4568", json!("")),
            ("ac1962", json!("x".repeat(300))),
        ],
        Value::Array(_) => vec![("99914b", json!({})), ("d75171", json!([]))],
        Value::Object(_) | Value::Null => vec![("d75171", json!([])), ("20cd81", json!("text"))],
    }
}

/// Another value of the same type.
fn changed(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(is) => Some(json!(!is)),
        Value::Number(number) => number.as_i64().map(|number| json!(number + 1)),
        Value::String(text) => Some(json!(format!("{text}x"))),
        _ => None,
    }
}
