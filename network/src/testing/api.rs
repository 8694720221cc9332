//! An API server's list and watch, for any kind, over a log that the test appends to.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One change of a collection: its path, the event's type, and the object.
type Event = (String, &'static str, Value);

/// Cheap to clone; all clones tell the same.
#[derive(Clone)]
pub(crate) struct FakeApi {
    log: watch::Sender<Vec<Event>>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { log: watch::Sender::new(Vec::new()) }
    }

    /// Creates or changes a node.
    pub(crate) fn node(&self, name: &str, node_ip: &str, pod_cidr: Option<&str>) {
        let exists = self.objects("/api/v1/nodes").iter().any(|node| node["metadata"]["name"] == name);
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "uid": name},
            "spec": pod_cidr.map_or(json!({}), |cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]})),
            "status": {"addresses": [{"type": "InternalIP", "address": node_ip}]},
        });
        self.append("/api/v1/nodes", if exists { "MODIFIED" } else { "ADDED" }, node);
    }

    /// Deletes a node.
    pub(crate) fn delete_node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}});
        self.append("/api/v1/nodes", "DELETED", node);
    }

    /// Creates a service of this address, with these endpoints, for UDP.
    pub(crate) fn service(&self, name: &str, address: &str, port: u16, target: u16, endpoints: &[Ipv4Addr]) {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP",
                "ipFamilies": ["IPv4"], "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "ports": [{"name": "echo", "protocol": "UDP", "port": port, "targetPort": target}],
            },
        });
        let ready = json!({"ready": true, "serving": true, "terminating": false});
        let endpoint = |address: &Ipv4Addr| json!({"addresses": [address], "conditions": ready});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "default", "uid": name,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "echo", "protocol": "UDP", "port": target}],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        });
        self.append("/api/v1/services", "ADDED", service);
        self.append("/apis/discovery.k8s.io/v1/endpointslices", "ADDED", slice);
    }

    /// Adds an event of this type to the log.
    pub(crate) fn append(&self, path: &str, event: &'static str, mut object: Value) {
        self.log.send_modify(|log| {
            object["metadata"]["resourceVersion"] = json!((log.len() + 2).to_string());
            log.push((path.to_owned(), event, object));
        });
    }

    fn objects(&self, path: &str) -> Vec<Value> {
        let mut objects: Vec<Value> = Vec::new();
        for (_, event, object) in self.log.borrow().iter().filter(|(of, ..)| of == path) {
            objects.retain(|known| known["metadata"]["name"] != object["metadata"]["name"]);
            if *event != "DELETED" {
                objects.push(object.clone());
            }
        }
        objects
    }

    /// A client of this API.
    pub(crate) fn client(&self) -> client::Client {
        let api = self.clone();
        client::in_process(tower::service_fn(move |request: Request<client::kube::client::Body>| {
            let answer = api.answer(request.uri());
            async move { Ok::<_, Infallible>(Response::new(answer)) }
        }))
    }

    fn answer(&self, uri: &http::Uri) -> Body {
        let path = uri.path().to_owned();
        let parameters: Vec<_> = uri.query().unwrap_or_default().split('&').collect();
        if !parameters.iter().any(|parameter| parameter.starts_with("watch=")) {
            let revision = (self.log.borrow().len() + 1).to_string();
            let list = json!({
                "apiVersion": "v1", "kind": "List",
                "metadata": {"resourceVersion": revision}, "items": self.objects(&path),
            });
            return Full::new(Bytes::from(list.to_string())).boxed_unsync();
        }
        let revision = parameters.iter().find_map(|parameter| parameter.strip_prefix("resourceVersion="));
        let seen =
            revision.and_then(|revision| revision.parse::<usize>().ok()).unwrap_or(1).saturating_sub(1);
        let events = stream::unfold((self.log.subscribe(), seen), move |(mut log, seen)| async move {
            let new = log.wait_for(|log| log.len() > seen).await.ok().map(|log| log[seen].clone())?;
            Some((new, (log, seen + 1)))
        });
        let frames = events.filter_map(move |(of, event, object)| {
            let line = (of == path).then(|| json!({"type": event, "object": object}).to_string() + "\n");
            std::future::ready(line.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line)))))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}
