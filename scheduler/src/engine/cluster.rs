//! The cluster as the engine sees it: nodes with what runs on them, and namespaces.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::framework::ClusterEvent;
use super::types::{HostPort, Labels, NodeSpec, PodKey, PodSpec, Resources};

/// A node and the sums over its pods.
#[derive(Debug)]
pub struct NodeState {
    pub spec: NodeSpec,
    /// Bound and assumed pods.
    pub pods: BTreeMap<PodKey, Arc<PodSpec>>,
    /// Sum of the pods' requests.
    pub requested: Resources,
    /// Sum of the pods' requests with the defaults for containers without any.
    pub assumed: Resources,
    pub host_ports: HashMap<HostPort, usize>,
    /// How many of the pods have affinity or anti-affinity terms of their own.
    pub pods_with_affinity: usize,
}

/// All nodes, in a stable order.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeState>,
    by_name: HashMap<String, usize>,
    /// Where each known pod counts; also for pods on nodes that are not known (yet).
    assigned: HashMap<PodKey, (String, Arc<PodSpec>)>,
    namespaces: BTreeMap<String, Labels>,
    /// Pods with affinity terms of their own, over all nodes.
    pods_with_affinity: usize,
    /// Where the next search for feasible nodes starts, so that all nodes get their turn.
    next_start: usize,
}

impl NodeState {
    fn new(spec: NodeSpec) -> Self {
        Self {
            spec,
            pods: BTreeMap::new(),
            requested: Resources::default(),
            assumed: Resources::default(),
            host_ports: HashMap::new(),
            pods_with_affinity: 0,
        }
    }

    fn add(&mut self, pod: Arc<PodSpec>) {
        self.requested.add(&pod.requests);
        self.assumed.add(&pod.assumed);
        for port in &pod.host_ports {
            *self.host_ports.entry(port.clone()).or_default() += 1;
        }
        self.pods_with_affinity += usize::from(pod.has_pod_affinity());
        self.pods.insert(pod.key(), pod);
    }

    fn remove(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        self.requested.subtract(&pod.requests);
        self.assumed.subtract(&pod.assumed);
        for port in &pod.host_ports {
            if let Some(count) = self.host_ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.host_ports.remove(port);
                }
            }
        }
        self.pods_with_affinity -= usize::from(pod.has_pod_affinity());
    }

    /// The value of a topology label.
    pub fn topology(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key).map(String::as_str)
    }
}

impl Cluster {
    /// All nodes.
    pub fn nodes(&self) -> &[NodeState] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.by_name.get(name).map(|&position| &self.nodes[position])
    }

    /// Labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// True if some pod has affinity terms of its own.
    pub fn has_pods_with_affinity(&self) -> bool {
        self.pods_with_affinity > 0
    }

    /// The node that a pod counts on.
    pub fn assigned_to(&self, key: &PodKey) -> Option<&str> {
        self.assigned.get(key).map(|(node, _)| node.as_str())
    }

    /// Takes over a node's state; the events that this means for waiting pods.
    pub fn set_node(&mut self, spec: NodeSpec) -> Vec<ClusterEvent> {
        if let Some(&position) = self.by_name.get(&spec.name) {
            let old = std::mem::replace(&mut self.nodes[position].spec, spec);
            let new = &self.nodes[position].spec;
            let mut events = Vec::new();
            if old.allocatable != new.allocatable || old.max_pods != new.max_pods {
                events.push(ClusterEvent::NodeAllocatableChanged);
            }
            if old.labels != new.labels {
                events.push(ClusterEvent::NodeLabelsChanged);
            }
            if old.taints != new.taints || old.unschedulable != new.unschedulable {
                events.push(ClusterEvent::NodeTaintsChanged);
            }
            return events;
        }
        let mut node = NodeState::new(spec);
        for (name, pod) in self.assigned.values() {
            if *name == node.spec.name {
                node.add(pod.clone());
            }
        }
        self.pods_with_affinity += node.pods_with_affinity;
        self.by_name.insert(node.spec.name.clone(), self.nodes.len());
        self.nodes.push(node);
        vec![ClusterEvent::NodeAdded]
    }

    /// Forgets a node. Its pods still count as assigned, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(position) = self.by_name.remove(name) else { return };
        let node = self.nodes.swap_remove(position);
        self.pods_with_affinity -= node.pods_with_affinity;
        if let Some(moved) = self.nodes.get(position) {
            self.by_name.insert(moved.spec.name.clone(), position);
        }
    }

    /// Counts a pod on a node: one that is bound, or assumed to be soon.
    pub fn assign(&mut self, pod: Arc<PodSpec>, node: &str) -> Option<ClusterEvent> {
        let key = pod.key();
        let before = self.unassign_quietly(&key);
        if let Some(&position) = self.by_name.get(node) {
            self.pods_with_affinity += usize::from(pod.has_pod_affinity());
            self.nodes[position].add(pod.clone());
        }
        let event = match &before {
            None => Some(ClusterEvent::AssignedPodAdded),
            Some(old) if old.labels != pod.labels || old.requests != pod.requests => {
                Some(ClusterEvent::AssignedPodChanged)
            }
            Some(_) => None,
        };
        self.assigned.insert(key, (node.to_owned(), pod));
        event
    }

    /// Stops counting a pod: it is gone, has ended, or could not be bound.
    pub fn unassign(&mut self, key: &PodKey) -> Option<ClusterEvent> {
        self.unassign_quietly(key).map(|_| ClusterEvent::AssignedPodDeleted)
    }

    /// Takes over a namespace's labels, `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> Option<ClusterEvent> {
        let changed = self.namespaces.get(name) != labels.as_ref();
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        changed.then_some(ClusterEvent::NamespaceLabelsChanged)
    }

    /// The order in which nodes are searched this time: a rotation that lets all nodes have their turn.
    pub(super) fn search_order(&self) -> impl Iterator<Item = &NodeState> {
        let start = if self.nodes.is_empty() { 0 } else { self.next_start % self.nodes.len() };
        self.nodes[start..].iter().chain(&self.nodes[..start])
    }

    /// Continues the rotation after `searched` nodes.
    pub fn searched(&mut self, searched: usize) {
        self.next_start = self.next_start.wrapping_add(searched);
    }

    fn unassign_quietly(&mut self, key: &PodKey) -> Option<Arc<PodSpec>> {
        let (node, pod) = self.assigned.remove(key)?;
        if let Some(&position) = self.by_name.get(&node) {
            self.nodes[position].remove(key);
            self.pods_with_affinity -= usize::from(pod.has_pod_affinity());
        }
        Some(pod)
    }
}
