//! The node's own object: registered once, its status written when it changes and every five minutes, and a
//! Lease renewed every ten seconds that says that the node lives.

pub(crate) mod machine;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::schema::TypeRef;
use client::Reference;
use client::error::is_not_found;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::context::Context;
use machine::Resources;
use status::Report;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
/// How often the lease is renewed, and with it the runtime's state looked at.
const RENEW: Duration = Duration::from_secs(10);
/// The status is written this often although nothing has changed.
const REPORT: Duration = Duration::from_secs(300);
/// The shortest time between two writes of the status.
const SETTLE: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(7);

/// What the node says of itself beyond what the machine shows.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    /// The port of the kubelet API.
    pub(crate) port: u16,
    /// Name and version of the runtime, as `containerd://1.7.0`.
    pub(crate) runtime_version: String,
    pub(crate) resources: Resources,
}

/// Keeps the node's object. `registered` gets the node's object once the API has it.
pub(crate) async fn keep(
    context: Arc<Context>,
    identity: Identity,
    registered: watch::Sender<Option<Arc<Node>>>,
) {
    let keeper = Keeper { context, identity };
    keeper.tell("Starting", "Starting kubelet.".to_owned());
    let node = keeper.register().await;
    registered.send_replace(Some(Arc::new(node.clone())));
    futures::future::join(keeper.renew(&node), keeper.report(node.clone())).await;
}

struct Keeper {
    context: Arc<Context>,
    identity: Identity,
}

impl Keeper {
    /// Makes the node, or brings the labels and addresses of the one that is there up to date.
    async fn register(&self) -> Node {
        let mut retry = FIRST_RETRY;
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(node = %self.context.node_name, %error, "can't register the node")
                }
            }
            self.context.clock.wait(self.context.random.jitter(retry, 0.2)).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn try_register(&self) -> Result<Node, kube::Error> {
        let name = &self.context.node_name;
        let labels = status::labels(name, &self.identity.labels);
        let now = self.context.clock.now();
        let report = self.look().await;
        if let Some(known) = self.api().get_opt(name).await? {
            let has_all = |labels: &BTreeMap<String, String>| {
                let own = known.metadata.labels.as_ref();
                labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
            };
            let mut node = known.clone();
            if !has_all(&labels) {
                let patch = json!({ "metadata": { "labels": labels } });
                node = self.api().patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            }
            let before = node.status.clone().unwrap_or_default();
            let status = status::status(&report, &before, now);
            let node = match patch(&before, &status) {
                Some(patch) => self.write(patch).await?,
                None => node,
            };
            self.tell_of(&before, &status);
            return Ok(node);
        }
        let status = status::status(&report, &NodeStatus::default(), now);
        let node = status::node(name, labels, self.identity.taints.clone(), status.clone());
        let node = self.api().create(&PostParams::default(), &node).await?;
        self.tell_of(&NodeStatus::default(), &status);
        Ok(node)
    }

    /// Tells of what has become of the node.
    fn tell_of(&self, before: &NodeStatus, after: &NodeStatus) {
        for reason in status::transitions(before, after) {
            self.tell(reason, format!("Node {} status is now: {reason}", self.context.node_name));
        }
    }

    fn tell(&self, reason: &str, message: String) {
        let name = self.context.node_name.clone();
        // Clients look for a node's events by its name in place of the uid, as the kubelet writes them.
        let about = Reference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            namespace: String::new(),
            uid: name.clone(),
            name,
            field_path: String::new(),
        };
        self.context.events.normal(&about, reason, message);
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.context.client.clone())
    }

    async fn write(&self, patch: Map<String, Value>) -> Result<Node, kube::Error> {
        let patch = Patch::Strategic(Value::Object(patch));
        self.api().patch_status(&self.context.node_name, &PatchParams::default(), &patch).await
    }

    /// The state of the node now.
    async fn look(&self) -> Report {
        let runtime = &self.context.runtime;
        let (state, images) = futures::join!(runtime.status(), runtime.list_images());
        let (unready, handlers) = match &state {
            Ok(state) => (status::unready(state), status::handlers(state)),
            Err(error) => (Some(format!("container runtime is down: {}", error.message())), Vec::new()),
        };
        Report {
            name: self.context.node_name.clone(),
            ip: self.context.node_ip,
            port: self.identity.port,
            resources: self.identity.resources.clone(),
            system: machine::system(&self.identity.runtime_version),
            images: images.map(status::images).unwrap_or_default(),
            handlers,
            unready,
        }
    }

    /// Writes the status when it changes, and now and then without a change.
    async fn report(&self, node: Node) {
        let clock = &self.context.clock;
        let mut known = node.status.unwrap_or_default();
        let mut written = clock.now();
        let mut retry = FIRST_RETRY;
        let mut changes = self.context.source.nodes.subscribe();
        loop {
            let report = self.look().await;
            let now = clock.now();
            // Others write conditions, too: who thought this node dead is to be told that it isn't.
            if let Some(status) = self.context.source.node().and_then(|node| node.status.clone()) {
                known = status;
            }
            let status = status::status(&report, &known, now);
            let is_due =
                now.duration_since(written) >= jiff::SignedDuration::try_from(REPORT).unwrap_or_default();
            let (mut failed, mut wrote) = (false, false);
            let change = patch(&without_heartbeat(&known), &without_heartbeat(&status));
            if is_due || change.is_some() {
                tracing::debug!(node = %self.context.node_name, ?change, "status");
                // What others have written meanwhile must not be undone.
                let before = self.context.source.node().and_then(|node| node.status.clone());
                let before = before.unwrap_or(known.clone());
                let status = status::status(&report, &before, now);
                match patch(&before, &status) {
                    None => known = status,
                    Some(patch) => match self.write(patch).await {
                        Ok(node) => {
                            self.tell_of(&before, &status);
                            known = node.status.unwrap_or_default();
                            written = now;
                            wrote = true;
                        }
                        Err(error) => {
                            failed = true;
                            tracing::warn!(node = %self.context.node_name, %error, "can't write the node's status");
                        }
                    },
                }
            }
            // A node that is not ready yet is looked at more often: pods wait for it.
            let wait = if failed || report.unready.is_some() {
                retry = (retry * 2).min(LAST_RETRY);
                retry
            } else {
                retry = FIRST_RETRY;
                RENEW
            };
            if wrote {
                // The cache shows the write soon; until then it would be made again.
                clock.wait(SETTLE).await;
            }
            tokio::select! {
                () = clock.wait(wait) => {}
                () = self.context.images.changed() => {}
                Some(_) = changes.next() => {}
            }
        }
    }

    /// Renews the lease.
    async fn renew(&self, node: &Node) {
        let clock = &self.context.clock;
        let mut retry = FIRST_RETRY;
        loop {
            let wait = match self.renew_once(node).await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    RENEW
                }
                Err(error) => {
                    tracing::warn!(node = %self.context.node_name, %error, "can't renew the node's lease");
                    retry = (retry * 2).min(LAST_RETRY);
                    retry
                }
            };
            clock.wait(self.context.random.jitter(wait, 0.04)).await;
        }
    }

    async fn renew_once(&self, node: &Node) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.context.client.clone(), LEASE_NAMESPACE);
        let name = &self.context.node_name;
        let now = MicroTime(self.context.clock.now());
        let patch = json!({ "spec": { "renewTime": now, "holderIdentity": name } });
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.clone());
        lease.metadata.namespace = Some(LEASE_NAMESPACE.to_owned());
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        }]);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        });
        api.create(&PostParams::default(), &lease).await.map(|_| ())
    }
}

fn without_heartbeat(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    status.conditions.iter_mut().flatten().for_each(|condition| condition.last_heartbeat_time = None);
    status
}

/// The patch that turns one status into the other; `None` if they are the same.
fn patch(before: &NodeStatus, after: &NodeStatus) -> Option<Map<String, Value>> {
    let object = |status: &NodeStatus| match json!({ "status": status }) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let ty = TypeRef::builtin("", "v1", "Node").unwrap_or_else(TypeRef::unknown);
    let after = object(after);
    let patch = api::patch::strategic::diff(&ty, &object(before), &after).unwrap_or(after);
    Some(patch).filter(|patch| !patch.is_empty())
}
