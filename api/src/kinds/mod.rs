//! The built-in kinds: their rows, and one file with the rules of each.
//!
//! To add a kind, add a file with `impl Kind` and a row to [`rows`]; nothing else. Group, version, kind, plural and
//! scope come from the type. Groups are listed in the order in which discovery prefers them.

mod admission_policy;
mod admission_rule;
mod amount;
mod api_service;
mod binding;
mod cells;
mod certificate_signing_request;
mod check;
mod cluster_role;
mod cluster_role_binding;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod device_class;
mod endpoint_slice;
mod endpoints;
mod event;
mod events_event;
mod eviction;
mod flow_schema;
mod format;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod local_subject_access_review;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
mod replica_set;
mod replication_controller;
mod resource_claim;
mod resource_claim_template;
mod resource_quota;
mod resource_slice;
mod role;
mod role_binding;
mod runtime_class;
mod scale;
mod secret;
mod self_subject_access_review;
mod self_subject_review;
mod self_subject_rules_review;
mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod subject_access_review;
mod template_meta;
mod token_request;
mod token_review;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod volume;
mod volume_attachment;
mod volume_attributes_class;
mod webhook;
mod workload;

pub(crate) use check::{kube_finalizer, list, text};
pub(crate) use pod::{containers::is_sidecar, qos::class as qos_class, resources::is_extended};
pub(crate) use volume::class_of;

use std::sync::Arc;

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{
        admissionregistration::v1::{
            MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        },
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        authentication::v1::{SelfSubjectReview, TokenReview},
        authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        },
        autoscaling,
        batch::v1::{CronJob, Job},
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::{
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
            PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota,
            Secret, Service, ServiceAccount,
        },
        discovery::v1::EndpointSlice,
        events::v1 as events,
        flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration},
        networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR},
        node::v1::RuntimeClass,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
        scheduling::v1::PriorityClass,
        storage::v1::{
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
        },
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use serde_json::{Map, Value};

use crate::{
    object::{Kind, Typed},
    resource::{
        Action, Answer, Backing, Conversion, GroupVersionKind, Observation, Resource, Scope, Subresource,
        Text, Verbs,
    },
    schema::TypeRef,
};

/// One row per built-in kind.
pub(crate) fn rows() -> Vec<Resource> {
    vec![
        // core
        row::<Binding>().answered(Answer::Binding),
        row::<ComponentStatus>().short("cs").observed(Observation::Components),
        row::<ConfigMap>().short("cm"),
        row::<Endpoints>().short("ep").at("/registry/services/endpoints"),
        row::<Event>().short("ev"),
        row::<LimitRange>().short("limits"),
        row::<Namespace>().short("ns").without(Verbs::DELETE_COLLECTION).status().part(
            "finalize",
            None,
            Verbs::UPDATE,
            Action::Change,
        ),
        row::<Node>().short("no").at("/registry/minions").status().part(
            "proxy",
            core("NodeProxyOptions"),
            Verbs::PROXY,
            Action::Proxy,
        ),
        row::<PersistentVolumeClaim>().short("pvc").status(),
        row::<PersistentVolume>().short("pv").status(),
        row::<Pod>()
            .short("po")
            .category("all")
            .part("attach", core("PodAttachOptions"), CONNECT, Action::Attach)
            .part("binding", core("Binding"), Verbs::CREATE, Action::Binding)
            .part("ephemeralcontainers", None, Verbs::CHANGE, Action::Change)
            .part("eviction", gvk("policy", "v1", "Eviction"), Verbs::CREATE, Action::Eviction)
            .part("exec", core("PodExecOptions"), CONNECT, Action::Exec)
            .part("log", None, Verbs::GET, Action::Log)
            .part("portforward", core("PodPortForwardOptions"), CONNECT, Action::PortForward)
            .part("proxy", core("PodProxyOptions"), Verbs::PROXY, Action::Proxy)
            .part("resize", None, Verbs::CHANGE, Action::Change)
            .status(),
        row::<PodTemplate>(),
        row::<ReplicationController>()
            .short("rc")
            .category("all")
            .at("/registry/controllers")
            .scale()
            .status(),
        row::<ResourceQuota>().short("quota").status(),
        row::<Secret>().sealed(),
        row::<ServiceAccount>().short("sa").part(
            "token",
            gvk("authentication.k8s.io", "v1", "TokenRequest"),
            Verbs::CREATE,
            Action::Token,
        ),
        row::<Service>()
            .short("svc")
            .category("all")
            .at("/registry/services/specs")
            .part("proxy", core("ServiceProxyOptions"), Verbs::PROXY, Action::Proxy)
            .status(),
        // apiregistration.k8s.io
        row::<APIService>()
            .category("api-extensions")
            .at("/registry/apiregistration.k8s.io/apiservices")
            .status(),
        // apps
        row::<ControllerRevision>(),
        row::<DaemonSet>().short("ds").category("all").status(),
        row::<Deployment>().short("deploy").category("all").scale().status(),
        row::<ReplicaSet>().short("rs").category("all").scale().status(),
        row::<StatefulSet>().short("sts").category("all").scale().status(),
        // events.k8s.io: another view of the core's events
        row::<events::Event>().short("ev").view("/registry/events", core("Event"), EVENTS),
        // authentication.k8s.io
        row::<SelfSubjectReview>().answered(Answer::SelfSubjectReview),
        row::<TokenReview>().answered(Answer::TokenReview),
        // authorization.k8s.io
        row::<LocalSubjectAccessReview>().answered(Answer::LocalSubjectAccessReview),
        row::<SelfSubjectAccessReview>().answered(Answer::SelfSubjectAccessReview),
        row::<SelfSubjectRulesReview>().answered(Answer::SelfSubjectRulesReview),
        row::<SubjectAccessReview>().answered(Answer::SubjectAccessReview),
        // autoscaling: v1 is another view of v2
        row::<autoscaling::v2::HorizontalPodAutoscaler>().short("hpa").category("all").status(),
        row::<autoscaling::v1::HorizontalPodAutoscaler>()
            .short("hpa")
            .category("all")
            .view(
                "/registry/horizontalpodautoscalers",
                gvk("autoscaling", "v2", "HorizontalPodAutoscaler"),
                horizontal_pod_autoscaler::conversion::HPA,
            )
            .status(),
        // batch
        row::<CronJob>().short("cj").category("all").status(),
        row::<Job>().category("all").status(),
        // certificates.k8s.io
        row::<CertificateSigningRequest>()
            .short("csr")
            .part("approval", None, Verbs::CHANGE, Action::Change)
            .status(),
        // networking.k8s.io
        row::<IngressClass>(),
        row::<Ingress>().short("ing").at("/registry/ingress").reported("extensions").status(),
        row::<IPAddress>().short("ip"),
        row::<NetworkPolicy>().short("netpol").reported("extensions"),
        row::<ServiceCIDR>().status(),
        // policy
        row::<PodDisruptionBudget>().short("pdb").status(),
        // rbac.authorization.k8s.io
        row::<ClusterRoleBinding>(),
        row::<ClusterRole>(),
        row::<RoleBinding>(),
        row::<Role>(),
        // storage.k8s.io
        row::<CSIDriver>(),
        row::<CSINode>(),
        row::<CSIStorageCapacity>(),
        row::<StorageClass>().short("sc"),
        row::<VolumeAttachment>().status(),
        row::<VolumeAttributesClass>().short("vac"),
        // admissionregistration.k8s.io
        row::<MutatingAdmissionPolicy>().category("api-extensions"),
        row::<MutatingAdmissionPolicyBinding>().category("api-extensions"),
        row::<MutatingWebhookConfiguration>().category("api-extensions"),
        row::<ValidatingAdmissionPolicy>().category("api-extensions").status(),
        row::<ValidatingAdmissionPolicyBinding>().category("api-extensions"),
        row::<ValidatingWebhookConfiguration>().category("api-extensions"),
        // apiextensions.k8s.io
        row::<CustomResourceDefinition>()
            .short("crd")
            .short("crds")
            .category("api-extensions")
            .at("/registry/apiextensions.k8s.io/customresourcedefinitions")
            .status(),
        // scheduling.k8s.io
        row::<PriorityClass>().short("pc"),
        // coordination.k8s.io
        row::<Lease>(),
        // node.k8s.io
        row::<RuntimeClass>(),
        // discovery.k8s.io
        row::<EndpointSlice>(),
        // flowcontrol.apiserver.k8s.io
        row::<FlowSchema>().status(),
        row::<PriorityLevelConfiguration>().status(),
        // resource.k8s.io
        row::<DeviceClass>(),
        row::<ResourceClaim>().status(),
        row::<ResourceClaimTemplate>(),
        row::<ResourceSlice>(),
    ]
}

/// What a subresource that opens a connection can do.
const CONNECT: Verbs = Verbs::CREATE.and(Verbs::GET);

/// The core's name for each field of an event that events.k8s.io names otherwise.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

const EVENTS: Conversion = Conversion {
    to_storage: |event| {
        for (here, there) in EVENT_NAMES {
            rename(event, here, there);
        }
        // The core requires it.
        event.entry("involvedObject").or_insert_with(|| Value::Object(Map::new()));
    },
    from_storage: |event| {
        for (here, there) in EVENT_NAMES {
            rename(event, there, here);
        }
    },
};

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

fn gvk(group: &'static str, version: &'static str, kind: &'static str) -> Option<GroupVersionKind> {
    Some(GroupVersionKind::fixed(group, version, kind))
}

fn core(kind: &'static str) -> Option<GroupVersionKind> {
    gvk("", "v1", kind)
}

/// The scope of a type, from its type parameter.
trait InScope {
    const SCOPE: Scope;
}
impl InScope for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}
impl InScope for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

/// The row of a typed kind, as an ordinary stored kind has it; the methods below change what differs.
fn row<T: Kind>() -> Resource
where
    T::Scope: InScope,
{
    let plural = T::URL_PATH_SEGMENT;
    Resource {
        group: T::GROUP.into(),
        reported_group: T::GROUP.into(),
        version: T::VERSION.into(),
        kind: T::KIND.into(),
        list_kind: format!("{}List", T::KIND).into(),
        plural: plural.into(),
        singular: T::KIND.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: T::Scope::SCOPE,
        verbs: Verbs::ALL,
        subresources: Vec::new(),
        backing: Backing::Stored { prefix: format!("/registry/{plural}").into() },
        sealed: false,
        schema: TypeRef::builtin(T::GROUP, T::VERSION, T::KIND).unwrap_or_else(TypeRef::unknown),
        rules: Arc::new(Typed::<T>::new(T::Scope::SCOPE == Scope::Namespaced)),
    }
}

impl Resource {
    fn short(mut self, name: &'static str) -> Self {
        self.short_names.push(name.into());
        self
    }

    fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    fn category(mut self, name: &'static str) -> Self {
        self.categories.push(name.into());
        self
    }

    fn without(mut self, verbs: Verbs) -> Self {
        self.verbs = self.verbs.without(verbs);
        self
    }

    /// The place in the store, where upstream's is not the plural name.
    fn at(mut self, prefix: &'static str) -> Self {
        self.backing = Backing::Stored { prefix: prefix.into() };
        self
    }

    /// The group under which upstream reports what is invalid, where it is that of an older form of the kind.
    fn reported(mut self, group: &'static str) -> Self {
        self.reported_group = group.into();
        self
    }

    fn view(
        mut self,
        prefix: &'static str,
        storage: Option<GroupVersionKind>,
        conversion: Conversion,
    ) -> Self {
        if let Some(storage) = storage {
            self.backing = Backing::View { prefix: prefix.into(), storage, conversion };
        }
        self
    }

    fn answered(mut self, answer: Answer) -> Self {
        self.verbs = Verbs::CREATE;
        self.backing = Backing::Answered(answer);
        self
    }

    fn observed(mut self, observation: Observation) -> Self {
        self.verbs = Verbs::READ;
        self.backing = Backing::Observed(observation);
        self
    }

    /// A subresource; without a kind it speaks that of the row.
    fn part(
        mut self,
        name: &'static str,
        kind: Option<GroupVersionKind>,
        verbs: Verbs,
        action: Action,
    ) -> Self {
        let kind = kind.unwrap_or_else(|| self.gvk());
        self.subresources.push(Subresource { name: Text::Borrowed(name), kind, verbs, action });
        self.subresources.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    fn status(self) -> Self {
        self.part("status", None, Verbs::CHANGE, Action::Status)
    }

    fn scale(self) -> Self {
        self.part("scale", gvk("autoscaling", "v1", "Scale"), Verbs::CHANGE, Action::Scale)
    }
}
