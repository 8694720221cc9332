//! Admission: rules about a write that need more than the object itself: who writes, and what else there is.
//!
//! Plugins run in the order of [`ORDER`], which is upstream's. `admit` may change the object and runs before
//! validation; `validate` sees the final object (none on delete) and may only refuse.

mod certificates;
mod escalation;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
pub(crate) mod node_restriction;
mod owner_references;
mod pod_defaults;
mod pod_security;
mod priority;
mod references;
mod runtime_class;
mod service_account;
mod storage;

use std::sync::Arc;

use api::object::Object;
use api::resource::Resource;
use api::status::Status;
use base::Random;

use crate::auth::source::Objects;
use crate::auth::{Auth, Decision};
use crate::context::Warnings;
use crate::registry::quota;
use crate::{Attributes, UserInfo};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// The write that is to be admitted.
#[derive(Debug)]
pub struct AdmissionContext<'a> {
    pub user: &'a Arc<UserInfo>,
    pub operation: Operation,
    pub resource: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: String,
    pub dry_run: bool,
    pub warnings: &'a Warnings,
}

impl AdmissionContext<'_> {
    /// True for the object itself (not a subresource) of this resource.
    fn is(&self, group: &str, plural: &str) -> bool {
        self.is_part(group, plural, "")
    }

    fn is_part(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource == subresource
    }

    /// Whether the writer may do something else, too. What is asked for is about the writer and a resource.
    fn may(&self, admission: &Admission, asked: Attributes) -> Decision {
        let asked = Attributes { user: Arc::clone(self.user), resource_request: true, ..asked };
        admission.auth.authorize(&asked)
    }

    /// 403: `pods "x" is forbidden: why`
    fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.resource.group_resource(), &self.name, why)
    }
}

type Admit =
    fn(&Admission, &AdmissionContext<'_>, &mut dyn Object, Option<&dyn Object>) -> Result<(), Status>;
type Validate =
    fn(&Admission, &AdmissionContext<'_>, Option<&dyn Object>, Option<&dyn Object>) -> Result<(), Status>;

struct Plugin {
    name: &'static str,
    admit: Option<Admit>,
    validate: Option<Validate>,
}

const fn admit(name: &'static str, admit: Admit) -> Plugin {
    Plugin { name, admit: Some(admit), validate: None }
}

const fn validate(name: &'static str, validate: Validate) -> Plugin {
    Plugin { name, admit: None, validate: Some(validate) }
}

const fn both(name: &'static str, admit: Admit, validate: Validate) -> Plugin {
    Plugin { name, admit: Some(admit), validate: Some(validate) }
}

/// Every plugin, in upstream's order. Those of upstream's defaults that are not here yet belong where they are named.
static ORDER: &[Plugin] = &[
    both("NamespaceLifecycle", namespace_lifecycle::admit, namespace_lifecycle::validate),
    both("LimitRanger", limit_ranger::admit, limit_ranger::validate),
    both("ServiceAccount", service_account::admit, service_account::validate),
    both("NodeRestriction", node_restriction::admit, node_restriction::validate),
    admit("TaintNodesByCondition", pod_defaults::taint_new_node),
    validate("PodSecurity", pod_security::validate),
    both("Priority", priority::admit, priority::validate),
    admit("DefaultTolerationSeconds", pod_defaults::tolerate),
    admit("DefaultStorageClass", storage::default_class),
    admit("StorageObjectInUseProtection", storage::protect),
    validate("OwnerReferencesPermissionEnforcement", owner_references::validate),
    validate("PersistentVolumeClaimResize", storage::resize),
    both("RuntimeClass", runtime_class::admit, runtime_class::validate),
    validate("CertificateApproval", certificates::approval),
    validate("CertificateSigning", certificates::signing),
    validate("CertificateSubjectRestriction", certificates::subject),
    admit("DefaultIngressClass", ingress_class::admit),
    // MutatingAdmissionPolicy, MutatingAdmissionWebhook, ValidatingAdmissionPolicy, ValidatingAdmissionWebhook
    validate("RoleEscalation", escalation::validate),
    // Done where the object is stored, with it.
    Plugin { name: quota::PLUGIN, admit: None, validate: None },
];

/// Plugins that upstream has, but does not ask unless it is told to.
const OFF: [&str; 1] = ["OwnerReferencesPermissionEnforcement"];

/// The names of all plugins, in their order.
pub fn plugins() -> impl Iterator<Item = &'static str> {
    ORDER.iter().map(|plugin| plugin.name)
}

/// Admission of one API server.
#[derive(Clone, Debug)]
pub struct Admission {
    auth: Auth,
    objects: Objects,
    random: Random,
    /// Plugins that are not asked.
    disabled: Vec<String>,
}

impl Admission {
    /// Decides by what authorization decides by.
    pub fn new(auth: &Auth, random: Random) -> Self {
        let disabled = OFF.map(str::to_owned).into();
        Self { auth: auth.clone(), objects: auth.objects().clone(), random, disabled }
    }

    /// Asks these plugins even if they are off by default.
    pub fn with(mut self, plugins: &[String]) -> Self {
        self.disabled.retain(|off| !plugins.contains(off));
        self
    }

    /// Leaves these plugins out.
    pub fn without(mut self, plugins: &[String]) -> Self {
        self.disabled.extend_from_slice(plugins);
        self
    }

    /// Whether the plugin of this name is asked.
    pub(crate) fn has(&self, plugin: &str) -> bool {
        !self.disabled.iter().any(|off| off == plugin)
    }

    /// Completes the object, or refuses it.
    pub fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        self.run(context, ORDER.iter().filter_map(|plugin| Some((plugin.name, plugin.admit?))), |admit| {
            admit(self, context, object, old)
        })
    }

    /// Refuses what must not be, by the final object.
    pub fn validate(
        &self,
        context: &AdmissionContext<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        self.run(
            context,
            ORDER.iter().filter_map(|plugin| Some((plugin.name, plugin.validate?))),
            |validate| validate(self, context, object, old),
        )
    }

    fn run<P>(
        &self,
        context: &AdmissionContext<'_>,
        plugins: impl Iterator<Item = (&'static str, P)>,
        mut ask: impl FnMut(P) -> Result<(), Status>,
    ) -> Result<(), Status> {
        for (plugin, function) in plugins.filter(|(name, _)| self.has(name)) {
            ask(function).inspect_err(|status| {
                let (resource, namespace, name) =
                    (&context.resource.plural, context.namespace, &context.name);
                tracing::debug!(plugin, %resource, namespace, %name, reason = %status.message, "refused");
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
