//! Ownership over sequences of writes, with the expectations of upstream's own tests, and the laws of apply.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// An object, and who owns what of it.
struct Live {
    ty: TypeRef,
    gvk: GroupVersionKind,
    object: Value,
    managed: Managed,
    reset: Set,
    second: i64,
}

impl Live {
    fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            ty: TypeRef::builtin(group, version, kind).expect("known"),
            gvk: GroupVersionKind::fixed(group, version, kind),
            object: json!({}),
            managed: Managed::default(),
            reset: Set::of(&[&["status"]]),
            second: 0,
        }
    }

    fn deployment() -> Self {
        Self::new("apps", "v1", "Deployment")
    }

    fn full(&self, mut object: Value) -> Value {
        object["apiVersion"] = self.gvk.api_version().into();
        object["kind"] = self.gvk.kind.as_ref().into();
        object
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Status> {
        self.second += 1;
        let version = self.gvk.api_version();
        let versions = OneVersion { ty: &self.ty, version: &version };
        let write = Write {
            manager,
            version: &version,
            subresource: "",
            reset: &self.reset,
            now: Time(Timestamp::from_second(self.second).expect("a time")),
        };
        let target = Target { gvk: &self.gvk, ty: &self.ty, versions: &versions };
        let config = self.full(config);
        let (object, managed) = apply(target, &write, &self.object, &config, self.managed.clone(), force)?;
        (self.object, self.managed) = (tidy(object), managed);
        Ok(())
    }

    fn update(&mut self, manager: &str, object: Value) {
        self.second += 1;
        let version = self.gvk.api_version();
        let write = Write {
            manager,
            version: &version,
            subresource: "",
            reset: &self.reset,
            now: Time(Timestamp::from_second(self.second).expect("a time")),
        };
        let object = self.full(object);
        let changes = Changes::between(&self.ty, &self.object, &object);
        self.managed = update(&write, std::mem::take(&mut self.managed), changes, |_| None);
        self.object = object;
    }

    /// `MANAGER OPERATION: PATHS` for each entry.
    fn owners(&self) -> Vec<String> {
        let mut owners: Vec<String> = self
            .managed
            .entries
            .iter()
            .map(|entry| {
                let (name, operation) = (&entry.manager.name, entry.manager.operation.name());
                format!("{name} {operation}: {}", entry.set.paths().join(" "))
            })
            .collect();
        owners.sort();
        owners
    }

    fn spec(&self) -> &Value {
        &self.object["spec"]
    }
}

/// As an object is after it was decoded into its type: without what is empty.
fn tidy(value: Value) -> Value {
    let kept = |value: &Value| !super::view::is_empty(Some(value));
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, tidy(value)))
            .filter(|(_, value)| kept(value))
            .collect(),
        Value::Array(items) => items.into_iter().map(tidy).collect(),
        other => other,
    }
}

#[test]
fn creating_by_apply_and_by_update_owns_what_was_said() {
    let mut live = Live::deployment();
    live.apply("a", json!({"metadata": {"name": "x", "labels": {"l": "1"}}, "spec": {"replicas": 1}}), false)
        .expect("no conflict");
    assert_eq!(live.owners(), ["a Apply: .metadata.labels.l .spec.replicas"]);
    let mut live = Live::deployment();
    live.update(
        "u",
        json!({
            "metadata": {"name": "x", "labels": {"l": "1"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"l": "1"}},
                "template": {"metadata": {"labels": {"l": "1"}}, "spec": {
                    "containers": [{"name": "c", "image": "i", "resources": {}}], "securityContext": {}}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}},
            "status": {"replicas": 5}
        }),
    );
    assert_eq!(
        serde_json::to_value(live.managed.clone().into_entries()).expect("JSON")[0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
                    "f:spec": {
                        "f:containers": {r#"k:{"name":"c"}"#: {
                            ".": {}, "f:name": {}, "f:image": {}, "f:resources": {}
                        }},
                        "f:securityContext": {}
                    }
                }
            }
        })
    );
}

#[test]
fn another_value_is_a_conflict_until_it_is_forced() {
    let mut live = Live::deployment();
    live.apply("a", json!({"spec": {"replicas": 1, "paused": true}}), false).expect("no conflict");
    live.update("u", json!({"spec": {"replicas": 2, "paused": true}}));
    assert_eq!(live.owners(), ["a Apply: .spec.paused", "u Update: .spec.replicas"]);
    let refused =
        live.apply("a", json!({"spec": {"replicas": 3, "paused": true}}), false).expect_err("a conflict");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"u\" using apps/v1: .spec.replicas")
    );
    let refused =
        live.apply("b", json!({"spec": {"replicas": 3, "paused": false}}), false).expect_err("conflicts");
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\nconflicts with \"u\" using \
         apps/v1:\n- .spec.replicas"
    );
    live.apply("b", json!({"spec": {"replicas": 3, "paused": false}}), true).expect("forced");
    assert_eq!(live.owners(), ["b Apply: .spec.paused .spec.replicas"]);
    assert_eq!(live.spec(), &json!({"replicas": 3, "paused": false}));
}

#[test]
fn equal_values_are_shared_and_go_with_their_last_owner() {
    let mut live = Live::deployment();
    live.apply("a", json!({"spec": {"replicas": 1, "paused": true}}), false).expect("no conflict");
    live.apply("b", json!({"spec": {"replicas": 1}}), false).expect("no conflict");
    assert_eq!(live.owners(), ["a Apply: .spec.paused .spec.replicas", "b Apply: .spec.replicas"]);
    live.apply("a", json!({}), false).expect("no conflict");
    assert_eq!(live.spec(), &json!({"replicas": 1}));
    assert_eq!(live.owners(), ["b Apply: .spec.replicas"]);
    live.apply("b", json!({}), false).expect("no conflict");
    assert_eq!(live.spec().get("replicas"), None);
    assert_eq!(live.owners(), [""; 0]);
}

#[test]
fn what_an_update_owns_stays_when_an_apply_lets_go() {
    let mut live = Live::deployment();
    live.update("u", json!({"spec": {"replicas": 1}}));
    live.apply("a", json!({"spec": {"replicas": 1}}), false).expect("no conflict");
    live.apply("a", json!({"spec": {"paused": true}}), false).expect("no conflict");
    assert_eq!(live.spec(), &json!({"replicas": 1, "paused": true}));
    assert_eq!(live.owners(), ["a Apply: .spec.paused", "u Update: .spec.replicas"]);
}

#[test]
fn items_of_lists_come_and_go_by_their_keys() {
    let pod = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let mut live = Live::deployment();
    live.apply("a", pod(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}])), false)
        .expect("no conflict");
    live.apply("b", pod(json!([{"name": "z", "image": "1", "ports": [{"containerPort": 80}]}])), false)
        .expect("no conflict");
    live.apply("a", pod(json!([{"name": "y", "image": "2"}])), false).expect("no conflict");
    assert_eq!(
        live.spec()["template"]["spec"]["containers"],
        json!([
            {"name": "y", "image": "2"},
            {"name": "z", "image": "1", "ports": [{"containerPort": 80}]}
        ])
    );
    // Part of an item that another one owns as a whole.
    live.apply("a", pod(json!([{"name": "y", "image": "2"}, {"name": "z", "stdin": true}])), false)
        .expect("no conflict");
    live.apply("b", pod(json!([])), false).expect("no conflict");
    assert_eq!(
        live.spec()["template"]["spec"]["containers"],
        json!([{"name": "y", "image": "2"}, {"name": "z", "stdin": true}])
    );
}

#[test]
fn sets_maps_and_wholes_follow_their_owners() {
    let mut live = Live::new("", "v1", "Pod");
    let config = |finalizers: &[&str], labels: Value, selector: Value| json!({"metadata": {"finalizers": finalizers, "labels": labels}, "spec": {"nodeSelector": selector}});
    live.apply("a", config(&["x/a", "x/b"], json!({"l": "1", "m": "1"}), json!({"n": "1"})), false)
        .expect("no conflict");
    let refused = live.apply("b", config(&["x/b"], json!({"l": "1"}), json!({"o": "1"})), false);
    assert_eq!(
        refused.expect_err("a conflict").message,
        "Apply failed with 1 conflict: conflict with \"a\": .spec.nodeSelector"
    );
    live.apply("b", config(&["x/b"], json!({"l": "1"}), json!({"o": "1"})), true).expect("forced");
    live.apply("a", config(&["x/c"], json!({"l": "1"}), json!({"o": "1"})), false).expect("no conflict");
    assert_eq!(live.object["metadata"], json!({"finalizers": ["x/b", "x/c"], "labels": {"l": "1"}}));
    assert_eq!(live.spec(), &json!({"nodeSelector": {"o": "1"}}));
}

#[test]
fn an_update_that_removes_takes_from_everybody() {
    let mut live = Live::deployment();
    live.apply("a", json!({"metadata": {"labels": {"x": "1", "y": "1"}}}), false).expect("no conflict");
    live.update("u", json!({"metadata": {"labels": {"y": "2"}}}));
    assert_eq!(live.owners(), ["u Update: .metadata.labels.y"]);
    // Nothing changed, nothing is taken.
    live.update("v", json!({"metadata": {"labels": {"y": "2"}}}));
    assert_eq!(live.owners(), ["u Update: .metadata.labels.y"]);
}

#[test]
fn objects_older_than_their_ownership_belong_to_what_was_before() {
    let mut live = Live::deployment();
    live.object = live.full(json!({"metadata": {"name": "x"}, "spec": {"replicas": 1, "paused": true}}));
    let refused = live.apply("a", json!({"spec": {"replicas": 2}}), false).expect_err("a conflict");
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    live.apply("a", json!({"spec": {"replicas": 2}}), true).expect("forced");
    assert_eq!(live.owners(), ["a Apply: .spec.replicas", "before-first-apply Update: .spec.paused"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client() {
    let mut live = Live::deployment();
    let config =
        json!({"metadata": {"name": "x", "annotations": {}}, "spec": {"replicas": 1, "paused": true}});
    let text = live.full(config.clone()).to_string();
    let mut object = config;
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": text});
    live.update("kubectl-client-side-apply", object.clone());
    // Somebody changed one of the fields since.
    object["spec"]["paused"] = false.into();
    live.update("u", object);
    assert!(live.apply("other", json!({"spec": {"replicas": 2}}), false).is_err());
    let refused = live.apply("kubectl", json!({"spec": {"replicas": 2, "paused": true}}), false);
    assert_eq!(
        refused.expect_err("a conflict").message,
        "Apply failed with 1 conflict: conflict with \"u\" using apps/v1: .spec.paused"
    );
    live.apply("kubectl", json!({"metadata": {"name": "x"}, "spec": {"replicas": 2}}), false)
        .expect("its own");
    let annotation =
        &live.object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(
        annotation,
        "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"replicas\":2}}\n"
    );
}

#[test]
fn status_is_not_owned_through_the_object() {
    let mut live = Live::deployment();
    live.apply("a", json!({"spec": {"replicas": 1}, "status": {"replicas": 3}}), false).expect("no conflict");
    assert_eq!(live.owners(), ["a Apply: .spec.replicas"]);
    live.update("u", json!({"spec": {"replicas": 1}, "status": {"replicas": 4}}));
    assert_eq!(live.owners(), ["a Apply: .spec.replicas"]);
}

#[test]
fn times_change_only_with_what_is_owned() {
    let mut live = Live::deployment();
    live.apply("a", json!({"spec": {"replicas": 1}}), false).expect("no conflict");
    let time = |live: &Live| live.managed.entries[0].time.clone().map(|time| time.0.as_second());
    assert_eq!(time(&live), Some(1));
    live.apply("a", json!({"spec": {"replicas": 1}}), false).expect("no conflict");
    assert_eq!(time(&live), Some(1));
    live.apply("a", json!({"spec": {"replicas": 2}}), false).expect("no conflict");
    assert_eq!(time(&live), Some(3));
}

#[test]
fn bad_configurations_are_told() {
    let mut live = Live::deployment();
    let told = |live: &mut Live, config: Value| {
        let status = live.apply("a", config, false).expect_err("bad");
        (status.code, status.message)
    };
    assert_eq!(
        told(&mut live, json!({"metadata": {"managedFields": []}})),
        (400, "metadata.managedFields must be nil".to_owned())
    );
    assert_eq!(
        told(&mut live, json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"foo": 1}})),
        (
            500,
            "failed to create typed patch object (n/x; apps/v1, Kind=Deployment): .spec.foo: field not declared in \
             schema"
                .to_owned()
        )
    );
    live.gvk = GroupVersionKind::fixed("", "v1", "Pod");
    let (version, one) = ("v1".to_owned(), OneVersion { ty: &live.ty, version: "v1" });
    let write = Write {
        manager: "a",
        version: &version,
        subresource: "",
        reset: &live.reset,
        now: Time(Timestamp::UNIX_EPOCH),
    };
    let target = Target { gvk: &live.gvk, ty: &live.ty, versions: &one };
    for (config, expect) in [
        (json!({"apiVersion": "apps/v1", "kind": "Pod"}), "invalid object type: apps/v1, Kind=Pod"),
        (json!({"apiVersion": "v1", "kind": "Node"}), "invalid object type: /v1, Kind=Node"),
        (json!({}), "invalid object type: /, Kind="),
    ] {
        let status = apply(target, &write, &json!({}), &config, Managed::default(), false).expect_err("bad");
        assert_eq!((status.code, status.message.as_str()), (400, expect));
    }
}

#[test]
fn the_owner_of_the_replicas_is_the_owner_of_the_scales() {
    let mut live = Live::deployment();
    live.apply("a", json!({"spec": {"replicas": 1, "paused": true}}), false).expect("no conflict");
    let scale = to_scale(&live.managed, "apps/v1");
    assert_eq!(scale.entries.len(), 1);
    let ty = TypeRef::builtin("autoscaling", "v1", "Scale").expect("known");
    let (old, new) = (json!({"spec": {"replicas": 1}}), json!({"spec": {"replicas": 2}}));
    let none = Set::default();
    let now = Time(Timestamp::from_second(9).expect("a time"));
    let write = Write { manager: "s", version: "apps/v1", subresource: "scale", reset: &none, now };
    let scaled = update(&write, scale.clone(), Changes::between(&ty, &old, &new), |_| None);
    live.managed = from_scale(live.managed.clone(), scaled, "apps/v1");
    assert_eq!(live.owners(), ["a Apply: .spec.paused", "s Update: .spec.replicas"]);
    assert_eq!(live.managed.entries[1].manager.subresource, "scale");
    // Without a change nothing moves.
    let scale = to_scale(&live.managed, "apps/v1");
    live.managed = from_scale(live.managed.clone(), scale, "apps/v1");
    assert_eq!(live.owners(), ["a Apply: .spec.paused", "s Update: .spec.replicas"]);
}

#[test]
fn texts_are_compared_as_objects_are() {
    let ty = TypeRef::builtin("", "v1", "Pod").expect("known");
    let old = json!({"metadata": {"name": "x", "resourceVersion": "1", "labels": {"a": "1"}, "managedFields": [{}]},
        "spec": {"nodeName": "n"}, "status": {"phase": "Pending"}});
    let new = json!({"metadata": {"name": "x", "labels": {"a": "2"}, "generation": 2},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let changes =
        Changes::between_texts(&ty, old.to_string().as_bytes(), new.to_string().as_bytes()).expect("JSON");
    assert_eq!(changes.modified.paths(), [".metadata.labels.a", ".status.phase"]);
    assert_eq!(
        changes.added.clone().into_value(),
        json!({"f:status": {"f:conditions": {".": {}, r#"k:{"type":"Ready"}"#: {
            ".": {}, "f:type": {}, "f:status": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}
        }}}})
    );
    assert!(changes.removed.is_empty());
}

/// Some of a pod that managers may want.
fn configs() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[abc]", "[12]", 0..3);
    let port = (80..83_i32, proptest::option::of(prop_oneof![Just("TCP"), Just("UDP")])).prop_map(
        |(port, protocol)| match protocol {
            Some(protocol) => json!({"containerPort": port, "protocol": protocol}),
            None => json!({"containerPort": port}),
        },
    );
    let ports = proptest::collection::vec(port, 0..3);
    let container = (proptest::option::of("[12]"), ports, proptest::collection::vec("[xy]", 0..2));
    let containers = proptest::collection::btree_map("[abc]", container, 0..3);
    let finalizers = proptest::collection::btree_set("x/[abc]", 0..3);
    (labels, containers, finalizers, proptest::option::of("[ab]")).prop_map(
        |(labels, containers, finalizers, node)| {
            let mut items = Vec::new();
            for (name, (image, ports, args)) in containers {
                let mut item = json!({"name": name, "args": args});
                if let Some(image) = image {
                    item["image"] = image.into();
                }
                let mut unique: Vec<Value> = Vec::new();
                for port in ports {
                    let same = |other: &Value| {
                        let protocol = |port: &Value| port.get("protocol").cloned().unwrap_or("TCP".into());
                        other["containerPort"] == port["containerPort"] && protocol(other) == protocol(&port)
                    };
                    if !unique.iter().any(same) {
                        unique.push(port);
                    }
                }
                item["ports"] = unique.into();
                items.push(item);
            }
            let mut object = json!({
                "metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": items}
            });
            if let Some(node) = node {
                object["spec"]["nodeName"] = node.into();
            }
            // What is empty has no trace in an object, and so can't be owned for long.
            tidy(object)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn applying_twice_is_applying_once(base in configs(), first in configs(), second in configs()) {
        let mut live = Live::new("", "v1", "Pod");
        live.update("u", base);
        live.apply("a", first, true).expect("forced");
        live.apply("a", second.clone(), true).expect("forced");
        let (object, owners) = (live.object.clone(), live.owners());
        live.apply("a", second, false).expect("its own");
        prop_assert_eq!(&live.object, &object);
        prop_assert_eq!(live.owners(), owners);
    }

    #[test]
    fn what_is_applied_is_there_and_goes_when_it_is_not_applied_any_more(base in configs(), config in configs()) {
        let mut live = Live::new("", "v1", "Pod");
        live.apply("base", base.clone(), true).expect("forced");
        live.apply("a", config.clone(), true).expect("forced");
        let has = fields_of(&live.ty, &live.object);
        let wanted = fields_of(&live.ty, &config);
        prop_assert_eq!(has.shared(&wanted), wanted.clone());
        // Back to what the other one wants, and nothing of this one is left but shared containers of it.
        live.apply("a", json!({}), true).expect("forced");
        live.apply("base", json!({}), true).expect("forced");
        prop_assert_eq!(live.owners(), [""; 0]);
        let left = fields_of(&live.ty, &live.object);
        prop_assert!(left.paths().iter().all(|path| path == ".apiVersion" || path == ".kind"), "{:?}", left.paths());
    }

    #[test]
    fn nobody_owns_what_is_not_there(base in configs(), first in configs(), second in configs(), third in configs()) {
        let mut live = Live::new("", "v1", "Pod");
        live.apply("a", base, true).expect("forced");
        live.apply("b", first, true).expect("forced");
        live.update("u", second);
        live.apply("a", third, true).expect("forced");
        let full = Changes::between(&live.ty, &json!({}), &live.object).written();
        let mut all = fields_of(&live.ty, &live.object);
        all.add(&full);
        for entry in &live.managed.entries {
            prop_assert_eq!(&entry.set.shared(&all), &entry.set, "{}", entry.manager.name);
        }
    }
}
