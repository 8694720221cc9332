//! PURE: the node's object and its status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::machine::Resources;
use crate::pod::api_time;

/// So many images are reported, the biggest first, and so many names of each (upstream's limits).
const IMAGES: usize = 50;
const NAMES: usize = 5;

/// What is reported of a node.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) resources: Resources,
    pub(super) system: NodeSystemInfo,
    pub(super) images: Vec<ContainerImage>,
    pub(super) handlers: Vec<NodeRuntimeHandler>,
    /// Why no pods can run here, if so.
    pub(super) unready: Option<String>,
}

/// The labels that every node has.
pub(super) fn labels(name: &str, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut labels = own.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The node as it registers.
pub(super) fn node(
    name: &str,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    status: NodeStatus,
) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.metadata.labels = Some(labels);
    let attach = "volumes.kubernetes.io/controller-managed-attach-detach".to_owned();
    node.metadata.annotations = Some(BTreeMap::from([(attach, "true".to_owned())]));
    node.spec.get_or_insert_default().taints = Some(taints).filter(|taints| !taints.is_empty());
    node.status = Some(status);
    node
}

/// The status, with what others have set of the one before.
pub(super) fn status(report: &Report, before: &NodeStatus, now: Timestamp) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", report.ip.to_string()),
            address("Hostname", report.name.clone()),
        ]),
        capacity: Some(quantities(&report.resources.capacity)),
        allocatable: Some(quantities(&report.resources.allocatable)),
        conditions: Some(conditions(report, before, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(report.port) }),
        }),
        images: Some(report.images.clone()).filter(|images| !images.is_empty()),
        node_info: Some(report.system.clone()),
        runtime_handlers: Some(report.handlers.clone()).filter(|handlers| !handlers.is_empty()),
        ..before.clone()
    }
}

fn quantities(amounts: &BTreeMap<String, i64>) -> BTreeMap<String, Quantity> {
    let quantity = |(name, amount): (&String, &i64)| {
        let text = match name.as_str() {
            "cpu" if amount % 1000 == 0 => (amount / 1000).to_string(),
            "cpu" => format!("{amount}m"),
            "pods" => amount.to_string(),
            // In the form in which upstream shows them.
            _ if *amount > 0 && amount % 1024 == 0 => format!("{}Ki", amount / 1024),
            _ => amount.to_string(),
        };
        // As the API server writes them, so that the next comparison finds no difference.
        let text = api::quantity::Quantity::parse(&text).map_or(text, |quantity| quantity.to_string());
        (name.clone(), Quantity(text))
    };
    amounts.iter().map(quantity).collect()
}

fn conditions(report: &Report, before: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let ready = match &report.unready {
        None => ("True", "KubeletReady", "kubelet is posting ready status"),
        Some(why) => ("False", "KubeletNotReady", why.as_str()),
    };
    let own = [
        (
            "MemoryPressure",
            ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        ("DiskPressure", ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")),
        ("PIDPressure", ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available")),
        ("Ready", ready),
    ];
    let old = before.conditions.as_deref().unwrap_or_default();
    let mut conditions = Vec::new();
    for (kind, (status, reason, message)) in own {
        let known = old.iter().find(|condition| condition.type_ == kind);
        let since =
            known.filter(|known| known.status == status).and_then(|it| it.last_transition_time.clone());
        conditions.push(NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(api_time(now)),
            last_transition_time: Some(since.unwrap_or_else(|| api_time(now))),
        });
    }
    let others = old.iter().filter(|other| !own.iter().any(|(kind, _)| *kind == other.type_));
    conditions.extend(others.cloned());
    conditions
}

/// The reasons of the events that tell of the way from one status to the next.
pub(super) fn transitions(before: &NodeStatus, after: &NodeStatus) -> Vec<&'static str> {
    let find = |status: &NodeStatus, kind: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        found.map(|condition| condition.status.clone())
    };
    let reasons = [
        ("MemoryPressure", "False", "NodeHasSufficientMemory"),
        ("DiskPressure", "False", "NodeHasNoDiskPressure"),
        ("PIDPressure", "False", "NodeHasSufficientPID"),
        ("Ready", "True", "NodeReady"),
        ("Ready", "False", "NodeNotReady"),
    ];
    let is_news = |kind: &str, status: &str| {
        let before = find(before, kind);
        // How a node is when it registers is told of its pressures only, as upstream does.
        find(after, kind).as_deref() == Some(status)
            && before.as_deref().map_or(kind != "Ready", |before| before != status)
    };
    reasons.into_iter().filter(|(kind, status, _)| is_news(kind, status)).map(|(.., reason)| reason).collect()
}

/// The runtime's images as the node shows them.
pub(super) fn images(images: Vec<cri::Image>) -> Vec<ContainerImage> {
    let mut images = images;
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.into_iter().map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags).take(NAMES).collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    shown.take(IMAGES).collect()
}

/// What the runtime's handlers can do.
pub(super) fn handlers(status: &cri::StatusResponse) -> Vec<NodeRuntimeHandler> {
    let handler = |handler: &cri::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    };
    status.runtime_handlers.iter().map(handler).collect()
}

/// Why the runtime can't run pods; `None` if it can.
pub(super) fn unready(status: &cri::StatusResponse) -> Option<String> {
    let conditions = status.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut why = Vec::new();
    for (kind, what) in [("RuntimeReady", "container runtime"), ("NetworkReady", "container runtime network")]
    {
        match conditions.iter().find(|condition| condition.r#type == kind) {
            Some(condition) if condition.status => {}
            Some(condition) => why.push(format!(
                "{what} not ready: {kind}=false reason:{} message:{}",
                condition.reason, condition.message
            )),
            None => why.push(format!("{what} not ready: condition {kind} is missing")),
        }
    }
    match why.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unready: Option<&str>) -> Report {
        Report {
            name: "n1".into(),
            ip: IpAddr::from([192, 0, 2, 1]),
            port: 10250,
            resources: Resources {
                capacity: BTreeMap::from([
                    ("cpu".into(), 1500),
                    ("memory".into(), 4096),
                    ("pods".into(), 110),
                ]),
                allocatable: BTreeMap::new(),
            },
            system: NodeSystemInfo::default(),
            images: Vec::new(),
            handlers: Vec::new(),
            unready: unready.map(str::to_owned),
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let first = status(&report(Some("no network")), &NodeStatus::default(), at(0));
        let again = status(&report(Some("still none")), &first, at(10));
        let ready = status(&report(None), &again, at(20));
        let time = |status: &NodeStatus| {
            let conditions = status.conditions.clone().unwrap();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().clone();
            (ready.status, ready.last_transition_time.unwrap().0)
        };
        assert_eq!(time(&first), ("False".into(), at(0)));
        assert_eq!(time(&again), ("False".into(), at(0)));
        assert_eq!(time(&ready), ("True".into(), at(20)));
        let capacity = ready.capacity.unwrap();
        assert_eq!((capacity["cpu"].0.as_str(), capacity["memory"].0.as_str()), ("1500m", "4Ki"));
    }

    #[test]
    fn events_tell_what_a_node_has_become() {
        let now = Timestamp::UNIX_EPOCH;
        let none = NodeStatus::default();
        let unready = status(&report(Some("no network")), &none, now);
        let ready = status(&report(None), &unready, now);
        let pressures = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        assert_eq!(transitions(&none, &unready), pressures);
        assert_eq!(transitions(&unready, &ready), ["NodeReady"]);
        assert_eq!(transitions(&ready, &ready), [""; 0]);
        assert_eq!(transitions(&ready, &unready), ["NodeNotReady"]);
    }

    #[test]
    fn an_unready_network_is_told_in_upstreams_words() {
        let condition = |kind: &str, status: bool| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "no pod range".into(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", false)];
        let status =
            cri::StatusResponse { status: Some(cri::RuntimeStatus { conditions }), ..Default::default() };
        assert_eq!(
            unready(&status).unwrap(),
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no pod range"
        );
    }
}
