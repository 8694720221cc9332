//! Nobody grants what they don't have: writers of roles and bindings must hold every rule that they give away, unless
//! they were allowed the verb `escalate` (on roles) or `bind` (on the role that is bound).

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Admission, AdmissionContext, Operation};
use crate::auth::{Decision, rules};
use crate::{Attributes, MASTERS};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    if context.operation == Operation::Delete
        || context.resource.group != GROUP
        || context.user.in_group(MASTERS)
    {
        return Ok(());
    }
    let check = Check { admission, context };
    if let Some(role) = object.downcast_ref::<Role>() {
        let same = old.and_then(|old| old.downcast_ref::<Role>()).is_some_and(|old| old.rules == role.rules);
        return if same { Ok(()) } else { check.role("roles", role.rules.as_deref().unwrap_or_default()) };
    }
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        let old = old.and_then(|old| old.downcast_ref::<ClusterRole>());
        if old.is_some_and(|old| old.rules == role.rules && old.aggregation_rule == role.aggregation_rule) {
            return Ok(());
        }
        check.role("clusterroles", role.rules.as_deref().unwrap_or_default())?;
        return check.aggregation(role);
    }
    if let Some(binding) = object.downcast_ref::<RoleBinding>() {
        let old = old.and_then(|old| old.downcast_ref::<RoleBinding>());
        return check.binding(
            &binding.role_ref,
            &binding.subjects,
            old.map(|old| (&old.role_ref, &old.subjects)),
        );
    }
    if let Some(binding) = object.downcast_ref::<ClusterRoleBinding>() {
        let old = old.and_then(|old| old.downcast_ref::<ClusterRoleBinding>());
        return check.binding(
            &binding.role_ref,
            &binding.subjects,
            old.map(|old| (&old.role_ref, &old.subjects)),
        );
    }
    Ok(())
}

struct Check<'a> {
    admission: &'a Admission,
    context: &'a AdmissionContext<'a>,
}

impl Check<'_> {
    fn role(&self, resource: &str, wanted: &[PolicyRule]) -> Result<(), Status> {
        // The object's name, so that a rule may allow it for some roles only.
        if self.allowed("escalate", resource, &self.context.name) {
            return Ok(());
        }
        self.held(wanted)
    }

    /// An aggregated role takes the rules of whatever roles there will be.
    fn aggregation(&self, role: &ClusterRole) -> Result<(), Status> {
        if role.aggregation_rule.is_none() || self.allowed("escalate", "clusterroles", &self.context.name) {
            return Ok(());
        }
        let all = || Some(vec!["*".to_owned()]);
        let verbs = vec!["*".to_owned()];
        let everything = [
            PolicyRule { verbs: verbs.clone(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs, non_resource_urls: all(), ..PolicyRule::default() },
        ];
        self.held(&everything).map_err(|_| {
            self.context.forbidden("must have cluster-admin privileges to use the aggregationRule")
        })
    }

    fn binding(
        &self,
        role: &RoleRef,
        subjects: &Option<Vec<Subject>>,
        old: Option<(&RoleRef, &Option<Vec<Subject>>)>,
    ) -> Result<(), Status> {
        if old.is_some_and(|(old_role, old_subjects)| old_role == role && old_subjects == subjects) {
            return Ok(());
        }
        let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if self.allowed("bind", resource, &role.name) {
            return Ok(());
        }
        match self.admission.auth.rbac().role_rules(role, self.context.namespace) {
            Ok(wanted) => self.held(&wanted),
            Err(reason) => {
                let status = Status::failure(404, api::status::Reason::NotFound, reason);
                Err(status)
            }
        }
    }

    fn allowed(&self, verb: &str, resource: &str, name: &str) -> bool {
        let asked = Attributes {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            namespace: self.context.namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.context.may(self.admission, asked) == Decision::Allow
    }

    /// Refuses what the user does not hold itself, in upstream's words.
    fn held(&self, wanted: &[PolicyRule]) -> Result<(), Status> {
        let user = self.context.user;
        let held = self.admission.auth.rbac().rules_for(user, self.context.namespace);
        let missing = rules::missing(&held.rules, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let errors = match held.errors.as_slice() {
            [] => String::new(),
            errors => format!("; resolution errors: [{}]", errors.join(", ")),
        };
        Err(self.context.forbidden(format_args!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}{errors}",
            api::field::quote(&user.name),
            rules::quoted(&user.groups),
            rules::describe(&missing),
        )))
    }
}
