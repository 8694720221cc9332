//! The rules of resource.k8s.io/v1 ResourceSlice.

mod capacity;
mod devices;

use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{CounterSet, ResourceSlice, ResourceSliceSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{
    cells::age,
    check::{dns_label, dns_subdomain, generation, immutable, list, same, text},
    device::{driver, each_once, pool},
    pod::affinity::node_selector,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

const MOST_DEVICES: usize = 128;
/// With taints or counters, devices are more work for the scheduler.
const MOST_COSTLY_DEVICES: usize = 64;
const MOST_COUNTER_SETS: usize = 8;
const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

impl Kind for ResourceSlice {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Node").about(
            "NodeName identifies the node which provides the resources in this pool. A field selector can be used to \
             list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access \
             from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new \
             nodes of the same type as some old node might also make new resources available.\n\nExactly one of \
             NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
        ),
        Column::text("Driver").about(
            "Driver identifies the DRA driver providing the capacity information. A field selector can be used to \
             list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end \
             with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This \
             field is immutable.",
        ),
        Column::text("Pool").about(
            "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not \
             required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains \
             separated by slashes. This field is immutable.",
        ),
        Column::age(),
    ];
    const FIELDS: &'static [&'static str] = &["spec.driver", "spec.nodeName"];

    fn set_defaults(&mut self) {
        devices::set_defaults(&mut self.spec);
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn stamp(&mut self, _old: Option<&Self>, now: Timestamp) {
        let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let devices = self.spec.devices.iter_mut().flatten();
        for taint in devices.flat_map(|device| device.taints.iter_mut().flatten()) {
            taint.time_added.get_or_insert(Time(second));
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &self.spec, None, &Path::new("spec"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &self.spec, Some(&old.spec), &Path::new("spec"));
        errors
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("spec.driver", self.spec.driver.clone()),
            ("spec.nodeName", text(&self.spec.node_name).to_owned()),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&self.metadata),
            text(&self.spec.node_name).into(),
            self.spec.driver.as_str().into(),
            self.spec.pool.name.as_str().into(),
            age(&self.metadata, now),
        ]
    }
}

fn validate_spec(
    errors: &mut Errors,
    spec: &ResourceSliceSpec,
    old: Option<&ResourceSliceSpec>,
    path: &Path,
) {
    driver(errors, &spec.driver, &path.child("driver"));
    let at = path.child("pool");
    pool(errors, &spec.pool.name, &at.child("name"));
    if spec.pool.resource_slice_count <= 0 {
        let count = spec.pool.resource_slice_count;
        let detail = "must be greater than zero";
        errors.push(FieldError::invalid(&at.child("resourceSliceCount"), count, detail));
    }
    if spec.pool.generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(&at.child("generation"), spec.pool.generation, detail));
    }
    if let Some(old) = old {
        immutable(errors, &at.child("name"), &spec.pool.name, &old.pool.name);
        immutable(errors, &path.child("driver"), &spec.driver, &old.driver);
        immutable(errors, &path.child("nodeName"), &spec.node_name, &old.node_name);
    }
    place(errors, spec, path);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(path, "", detail));
    }
    let given = list(&spec.devices);
    let costly =
        |d: &k8s_openapi::api::resource::v1::Device| d.taints.is_some() || d.consumes_counters.is_some();
    let most = if given.iter().any(costly) { MOST_COSTLY_DEVICES } else { MOST_DEVICES };
    let per_device = spec.per_device_node_selection == Some(true);
    let name = |device: &k8s_openapi::api::resource::v1::Device| BadValue::from(&device.name);
    each_once(errors, given, most, &path.child("devices"), name, |errors, device, at| {
        let before = old.and_then(|old| list(&old.devices).iter().find(|d| d.name == device.name));
        devices::validate(errors, device, before, per_device, at);
    });
    let name = |set: &CounterSet| BadValue::from(&set.name);
    let (sets, at) = (list(&spec.shared_counters), path.child("sharedCounters"));
    each_once(errors, sets, MOST_COUNTER_SETS, &at, name, |errors, set, at| {
        counter_set(errors, &set.name, &at.child("name"));
        devices::counters(errors, set.counters.keys(), &at.child("counters"));
    });
}

/// The name of a set of counters.
fn counter_set(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        dns_label(errors, path, name);
    }
}

/// Where the devices are is said in one way.
fn place(errors: &mut Errors, spec: &ResourceSliceSpec, path: &Path) {
    let mut given = Vec::new();
    if let Some(node) = &spec.node_name {
        let at = path.child("nodeName");
        if node.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(FieldError::invalid(&at, "", detail));
        } else {
            given.push("`nodeName`");
            dns_subdomain(errors, &at, node);
        }
    }
    if let Some(selector) = &spec.node_selector {
        given.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        node_selector(errors, selector, &at);
        if selector.node_selector_terms.len() != 1 {
            let terms = BadValue::of(&selector.node_selector_terms);
            let detail = "must have exactly one node selector term";
            errors.push(FieldError::invalid(&at.child("nodeSelectorTerms"), terms, detail));
        }
    }
    for (field, quoted, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            Some(true) => given.push(quoted),
            Some(false) => {
                let detail = "must be either unset or set to true";
                errors.push(FieldError::invalid(&path.child(field), false, detail));
            }
            None => {}
        }
    }
    match given.len() {
        0 => errors.push(FieldError::required(path, ONE_PLACE)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            let detail = format!("{ONE_PLACE}, but multiple fields are set");
            errors.push(FieldError::invalid(path, shown, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(devices: Value) -> ResourceSlice {
        let spec = json!({
            "driver": "d.example.org", "nodeName": "n1", "devices": devices,
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}
        });
        let mut slice: ResourceSlice =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
        slice.set_defaults();
        slice
    }

    fn texts(errors: &Errors) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn devices_are_checked_in_upstreams_words() {
        for (device, wanted) in [
            (
                json!({
                    "name": "gpu-0", "attributes": {"model": {"string": "a"}, "x.example.org/v": {"version": "1.2.3-rc.1"}},
                    "capacity": {"memory": {"value": "10Gi"}}
                }),
                "",
            ),
            (
                json!({"name": "gpu-0", "attributes": {"model": {}}}),
                "spec.devices[0].attributes[model]: Invalid value: \"\": exactly one value must be specified",
            ),
            (
                json!({"name": "gpu-0", "attributes": {"v": {"version": "1.2"}}}),
                "spec.devices[0].attributes[v].version: Invalid value: \"1.2\": must be a string compatible with semver.org \
                 spec 2.0.0",
            ),
            (
                json!({"name": "gpu-0", "nodeName": "n"}),
                "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
                 `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            ),
            (
                json!({"name": "gpu-0", "taints": [{"key": "k", "effect": "x"}]}),
                "spec.devices[0].taints[0].effect: Unsupported value: \"x\": supported values: \"NoExecute\", \"NoSchedule\", \
                 \"None\"",
            ),
            (
                json!({"name": "gpu-0", "capacity": {"m": {"value": "1", "requestPolicy": {}}}}),
                "spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
            ),
            (
                json!({
                    "name": "gpu-0", "allowMultipleAllocations": true,
                    "capacity": {"m": {"value": "8", "requestPolicy": {"default": "3", "validRange": {"min": "2", "step": "2"}}}}
                }),
                "spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: \"3\": value is not a multiple of a \
                 given step (2) from (2)",
            ),
        ] {
            assert_eq!(texts(&slice(json!([device])).validate()), wanted);
        }
        let twice = slice(json!([{"name": "a"}, {"name": "a"}]));
        assert_eq!(texts(&twice.validate()), "spec.devices[1]: Duplicate value: \"a\"");
    }

    #[test]
    fn a_slice_is_in_one_place() {
        let mut slice = slice(json!([]));
        slice.spec.all_nodes = Some(true);
        assert_eq!(
            texts(&slice.validate()),
            format!(
                "spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE_PLACE}, but multiple fields are set"
            )
        );
        let mut old = slice.clone();
        old.spec.all_nodes = None;
        let mut new = old.clone();
        new.spec.node_name = Some("n2".to_owned());
        assert_eq!(
            texts(&new.validate_update(&old)),
            "spec.nodeName: Invalid value: \"n2\": field is immutable"
        );
    }

    #[test]
    fn a_taint_has_the_time_when_it_came() {
        let mut slice = slice(json!([{"name": "a", "taints": [{"key": "k", "effect": "None"}]}]));
        slice.stamp(None, Timestamp::from_millisecond(1500).unwrap());
        let value = serde_json::to_value(&slice).unwrap();
        assert_eq!(value["spec"]["devices"][0]["taints"][0]["timeAdded"], "1970-01-01T00:00:01Z");
    }
}
