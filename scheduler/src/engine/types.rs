//! What the engine knows of pods and nodes: only the fields it decides on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::matching::{LabelSelector, NodeSelector, NodeSelectorTerm};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Identity of a pod: namespace and name.
pub type PodKey = (String, String);

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, by name. Ordered by name.
    pub others: Vec<(Arc<str>, i64)>,
}

/// A port of the node that a pod binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `0.0.0.0` means all addresses.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port: i32,
}

/// What a taint does to pods that don't tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// Empty with `exists`: tolerates everything.
    pub key: String,
    pub exists: bool,
    pub value: String,
    /// `None` tolerates every effect.
    pub effect: Option<Effect>,
}

/// Pods that another pod wants to be near to, or away from.
#[derive(Clone, Debug)]
pub struct PodTerm {
    pub selector: LabelSelector,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label; `None` selects none.
    pub namespace_selector: Option<LabelSelector>,
    pub topology_key: String,
}

#[derive(Clone, Debug)]
pub struct WeightedPodTerm {
    pub weight: i64,
    pub term: PodTerm,
}

/// One of pod affinity and pod anti-affinity.
#[derive(Clone, Debug, Default)]
pub struct PodAffinity {
    pub required: Vec<PodTerm>,
    pub preferred: Vec<WeightedPodTerm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}

#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    pub when: WhenUnsatisfiable,
    pub selector: LabelSelector,
    pub min_domains: i64,
    /// Count only nodes that match the pod's node affinity and selector (`nodeAffinityPolicy: Honor`).
    pub honor_affinity: bool,
    /// Count only nodes whose taints the pod tolerates (`nodeTaintsPolicy: Honor`).
    pub honor_taints: bool,
}

/// A pod as the engine sees it.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    pub priority: i32,
    /// The node it is bound to, or wants to be (`spec.nodeName`).
    pub node_name: Option<String>,
    pub scheduling_gates: Vec<String>,
    pub requests: Resources,
    /// Requests with the defaults that spreading assumes for containers without any.
    pub assumed: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_selector: Labels,
    pub node_affinity: Option<NodeSelector>,
    pub preferred_nodes: Vec<(i64, NodeSelectorTerm)>,
    pub tolerations: Vec<Toleration>,
    pub affinity: PodAffinity,
    pub anti_affinity: PodAffinity,
    pub spread: Vec<SpreadConstraint>,
    /// Image names as written in the spec.
    pub images: Vec<String>,
    /// UID of the controller that made it; pods of one controller are spread by default.
    pub controller: Option<String>,
    pub terminating: bool,
}

/// A node as the engine sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpec {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
    /// Image name → size in bytes.
    pub images: BTreeMap<String, i64>,
}

impl PodSpec {
    /// The pod's key.
    pub fn key(&self) -> PodKey {
        (self.namespace.clone(), self.name.clone())
    }

    /// True if one of the pod's tolerations covers this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }

    /// True if the pod wants to be near to, or away from, others.
    pub fn has_pod_affinity(&self) -> bool {
        !(self.affinity.required.is_empty()
            && self.affinity.preferred.is_empty()
            && self.anti_affinity.required.is_empty()
            && self.anti_affinity.preferred.is_empty())
    }
}

impl Toleration {
    /// True if this toleration covers the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() && self.exists || self.key == taint.key)
            && (self.exists || self.value == taint.value)
    }
}

impl Resources {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    /// Raises each amount to at least that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            let current = self.amount_mut(name);
            *current = (*current).max(*amount);
        }
    }

    /// The amount of an extended resource.
    pub fn other(&self, name: &str) -> i64 {
        match self.others.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(position) => self.others[position].1,
            Err(_) => 0,
        }
    }

    /// Sets the amount of the resource with this Kubernetes name; `cpu` in thousandths.
    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral_storage = amount,
            _ => *self.amount_mut(&Arc::from(name)) = amount,
        }
    }

    fn combine(&mut self, other: &Self, sign: i64) {
        self.cpu += sign * other.cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.others {
            *self.amount_mut(name) += sign * amount;
        }
    }

    fn amount_mut(&mut self, name: &Arc<str>) -> &mut i64 {
        let position = match self.others.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(position) => position,
            Err(position) => {
                self.others.insert(position, (name.clone(), 0));
                position
            }
        };
        &mut self.others[position].1
    }
}
