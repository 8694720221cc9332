//! Role based access control: who was granted which rules.
//!
//! The roles and bindings of the watch cache are kept resolved per subject, so that a decision looks at the grants of
//! one user and its groups only. The index follows the caches: the first question after a change brings it up to
//! date, reading again only what changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::rules;
use super::source::{Item, Kind, Objects};
use crate::{Attributes, UserInfo};

/// The kinds that the index is made of.
const KINDS: [Kind; 4] = [Kind::ClusterRole, Kind::Role, Kind::ClusterRoleBinding, Kind::RoleBinding];

type Rules = Arc<[PolicyRule]>;

/// The RBAC authorizer.
#[derive(Debug)]
pub struct Rbac {
    objects: Objects,
    index: Mutex<Arc<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    versions: [i64; 4],
    roles: HashMap<Key, (i64, Rules)>,
    bindings: HashMap<Key, (i64, Arc<Binding>)>,
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// Namespace (empty for cluster-scoped objects) and name.
type Key = (String, String);

#[derive(Debug)]
struct Binding {
    subjects: Vec<Subject>,
    role: RoleRef,
}

/// What one binding grants one subject.
#[derive(Debug)]
struct Grant {
    /// `None` holds everywhere.
    namespace: Option<String>,
    /// The rules, or why there are none.
    rules: Result<Rules, String>,
}

/// The rules that hold for somebody, and what went wrong while collecting them.
#[derive(Debug, Default)]
pub struct Held {
    pub rules: Vec<PolicyRule>,
    pub errors: Vec<String>,
}

impl Rbac {
    /// Decides by these objects.
    pub fn new(objects: Objects) -> Self {
        // No revision is negative: the first question builds the index.
        let index = Index { versions: [-1; 4], ..Index::default() };
        Self { objects, index: Mutex::new(Arc::new(index)) }
    }

    /// Allowed, or why it is not known to be: upstream's words for bindings to roles that are missing.
    pub fn authorize(&self, request: &Attributes) -> Result<(), String> {
        let index = self.index();
        let mut errors = BTreeSet::new();
        for grant in index.grants(&request.user) {
            if grant
                .namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != request.namespace || namespace.is_empty())
            {
                continue;
            }
            match &grant.rules {
                Ok(granted) if granted.iter().any(|rule| rules::allows(rule, request)) => return Ok(()),
                Ok(_) => {}
                Err(reason) => drop(errors.insert(reason.as_str())),
            }
        }
        Err(match aggregate(errors.into_iter()) {
            reason if reason.is_empty() => reason,
            reason => format!("RBAC: {reason}"),
        })
    }

    /// The first binding that allows it, in upstream's words.
    pub(super) fn why_allowed(&self, request: &Attributes) -> String {
        let index = self.index();
        let mut bindings: Vec<(&Key, &Binding)> =
            index.bindings.iter().map(|(key, (_, binding))| (key, &**binding)).collect();
        bindings.sort_by_key(|(key, _)| *key);
        let allows = |((namespace, name), binding): (&Key, &Binding)| {
            if !namespace.is_empty() && *namespace != request.namespace {
                return None;
            }
            let subject =
                binding.subjects.iter().find(|subject| is_subject(subject, &request.user, namespace))?;
            let rules = index.resolve(&binding.role, namespace).ok()?;
            rules.iter().find(|rule| rules::allows(rule, request))?;
            let (kind, whole) = match namespace.as_str() {
                "" => ("ClusterRoleBinding", name.clone()),
                namespace => ("RoleBinding", format!("{name}/{namespace}")),
            };
            let subject_name = match subject.kind.as_str() {
                "ServiceAccount" => format!("{}/{}", subject.name, account_namespace(subject, namespace)),
                _ => subject.name.clone(),
            };
            let quote = api::field::quote;
            Some(format!(
                "RBAC: allowed by {kind} {} of {} {} to {} {}",
                quote(&whole),
                binding.role.kind,
                quote(&binding.role.name),
                subject.kind,
                quote(&subject_name)
            ))
        };
        bindings.into_iter().find_map(allows).unwrap_or_default()
    }

    /// All rules that hold for a user in a namespace; those of the cluster alone if it is empty.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Held {
        let index = self.index();
        let mut held = Held::default();
        for grant in index.grants(user) {
            if grant.namespace.as_ref().is_some_and(|own| own != namespace || own.is_empty()) {
                continue;
            }
            match &grant.rules {
                Ok(rules) => held.rules.extend(rules.iter().cloned()),
                Err(reason) => held.errors.push(reason.clone()),
            }
        }
        held
    }

    /// The rules of a role that a binding in `namespace` (empty for a cluster role binding) names.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Rules, String> {
        self.index().resolve(role, namespace)
    }

    fn index(&self) -> Arc<Index> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the objects: a change in between is found by the next question.
        let versions = KINDS.map(|kind| self.objects.version(kind));
        if index.versions != versions {
            *index = Arc::new(index.next(versions, &self.objects));
        }
        index.clone()
    }
}

/// Errors as upstream joins them.
fn aggregate<'a>(errors: impl Iterator<Item = &'a str>) -> String {
    let errors: Vec<&str> = errors.collect();
    match errors.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        all => format!("[{}]", all.join(", ")),
    }
}

impl Index {
    /// The index of the present, taking over what this one has read already.
    fn next(&self, versions: [i64; 4], objects: &Objects) -> Self {
        let mut next = Self { versions, ..Self::default() };
        for kind in [Kind::ClusterRole, Kind::Role] {
            for item in objects.list(kind) {
                let key = key(&item);
                let rules = match self.roles.get(&key).filter(|(revision, _)| *revision == item.revision) {
                    Some((_, rules)) => rules.clone(),
                    None => match kind {
                        Kind::ClusterRole => item.read::<ClusterRole>().and_then(|role| role.rules),
                        _ => item.read::<Role>().and_then(|role| role.rules),
                    }
                    .unwrap_or_default()
                    .into(),
                };
                next.roles.insert(key, (item.revision, rules));
            }
        }
        for kind in [Kind::ClusterRoleBinding, Kind::RoleBinding] {
            for item in objects.list(kind) {
                let key = key(&item);
                let binding = match self.bindings.get(&key).filter(|(revision, _)| *revision == item.revision)
                {
                    Some((_, binding)) => Some(binding.clone()),
                    None => read_binding(kind, &item).map(Arc::new),
                };
                if let Some(binding) = binding {
                    next.bindings.insert(key, (item.revision, binding));
                }
            }
        }
        let bindings: Vec<(String, Arc<Binding>)> = next
            .bindings
            .iter()
            .map(|((namespace, _), (_, binding))| (namespace.clone(), binding.clone()))
            .collect();
        for (namespace, binding) in bindings {
            let rules = next.resolve(&binding.role, &namespace);
            for subject in &binding.subjects {
                let grant = Grant {
                    namespace: (!namespace.is_empty()).then(|| namespace.clone()),
                    rules: rules.clone(),
                };
                match subject.kind.as_str() {
                    "User" => next.users.entry(subject.name.clone()).or_default().push(grant),
                    "Group" => next.groups.entry(subject.name.clone()).or_default().push(grant),
                    "ServiceAccount" => {
                        let of = account_namespace(subject, &namespace);
                        // Without a namespace on either side there is nobody of that name.
                        if !of.is_empty() {
                            let user = format!("system:serviceaccount:{of}:{}", subject.name);
                            next.users.entry(user).or_default().push(grant);
                        }
                    }
                    _ => {}
                }
            }
        }
        next
    }

    fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<Rules, String> {
        let (of, word) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" if !namespace.is_empty() => (namespace, "role"),
            kind => return Err(format!("unsupported role reference kind: {}", api::field::quote(kind))),
        };
        match self.roles.get(&(of.to_owned(), role.name.clone())) {
            Some((_, rules)) => Ok(rules.clone()),
            None => {
                Err(format!("{word}.rbac.authorization.k8s.io {} not found", api::field::quote(&role.name)))
            }
        }
    }

    fn grants<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter().flatten();
        own.chain(user.groups.iter().filter_map(|group| self.groups.get(group)).flatten())
    }
}

/// The namespace of a service account that a binding in `namespace` names.
fn account_namespace<'a>(subject: &'a Subject, namespace: &'a str) -> &'a str {
    subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace)
}

fn is_subject(subject: &Subject, user: &UserInfo, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => {
            let own = user.name.strip_prefix("system:serviceaccount:").and_then(|own| own.split_once(':'));
            own == Some((account_namespace(subject, namespace), subject.name.as_str()))
        }
        _ => false,
    }
}

fn key(item: &Item) -> Key {
    (item.namespace.clone(), item.name.clone())
}

fn read_binding(kind: Kind, item: &Item) -> Option<Binding> {
    match kind {
        Kind::ClusterRoleBinding => item.read::<ClusterRoleBinding>().map(|binding| Binding {
            subjects: binding.subjects.unwrap_or_default(),
            role: binding.role_ref,
        }),
        _ => item.read::<RoleBinding>().map(|binding| Binding {
            subjects: binding.subjects.unwrap_or_default(),
            role: binding.role_ref,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::source::fixed::Fixed;

    fn rules(verbs: &[&str]) -> Value {
        json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}])
    }

    fn request(user: &UserInfo, namespace: &str) -> Attributes {
        Attributes {
            user: Arc::new(user.clone()),
            verb: "list".into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            resource_request: true,
            ..Attributes::default()
        }
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": [subject]})
    }

    #[test]
    fn a_binding_grants_where_it_is_and_ends_when_it_goes() {
        let objects = Arc::new(Fixed::default());
        let rbac = Rbac::new(objects.clone());
        let anna = UserInfo::new("anna", &["team"]);
        let ok = |namespace: &str| rbac.authorize(&request(&anna, namespace)).is_ok();
        assert!(!ok("a"));
        objects.put(Kind::ClusterRole, json!({"metadata": {"name": "reader"}, "rules": rules(&["list"])}));
        objects.put(
            Kind::RoleBinding,
            binding("a", "b", ("ClusterRole", "reader"), json!({"kind": "User", "name": "anna"})),
        );
        assert_eq!((ok("a"), ok("b"), ok("")), (true, false, false));
        objects.put(
            Kind::ClusterRoleBinding,
            binding("", "b", ("ClusterRole", "reader"), json!({"kind": "Group", "name": "team"})),
        );
        assert_eq!((ok("a"), ok("b"), ok("")), (true, true, true));
        objects.remove(Kind::ClusterRoleBinding, "", "b");
        assert_eq!((ok("a"), ok("b"), ok("")), (true, false, false));
        objects.put(Kind::ClusterRole, json!({"metadata": {"name": "reader"}, "rules": rules(&["get"])}));
        assert!(!ok("a"));
    }

    #[test]
    fn service_accounts_are_named_by_namespace_and_name() {
        let objects = Arc::new(Fixed::default());
        let rbac = Rbac::new(objects.clone());
        objects.put(
            Kind::Role,
            json!({"metadata": {"namespace": "a", "name": "reader"}, "rules": rules(&["*"])}),
        );
        let subject = json!({"kind": "ServiceAccount", "name": "robot"});
        objects.put(Kind::RoleBinding, binding("a", "own", ("Role", "reader"), subject));
        let subject = json!({"kind": "ServiceAccount", "name": "guest", "namespace": "b"});
        objects.put(Kind::RoleBinding, binding("a", "other", ("Role", "reader"), subject));
        let ok = |namespace: &str, name: &str| {
            rbac.authorize(&request(&UserInfo::service_account(namespace, name), "a")).is_ok()
        };
        assert!(ok("a", "robot") && ok("b", "guest"));
        assert!(!ok("b", "robot") && !ok("a", "guest"));
    }

    #[test]
    fn a_binding_to_a_missing_role_says_so() {
        let objects = Arc::new(Fixed::default());
        let rbac = Rbac::new(objects.clone());
        objects.put(
            Kind::RoleBinding,
            binding("a", "x", ("ClusterRole", "gone"), json!({"kind": "User", "name": "anna"})),
        );
        let anna = UserInfo::new("anna", &[]);
        let reason = rbac.authorize(&request(&anna, "a")).unwrap_err();
        assert_eq!(reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#);
        objects.put(
            Kind::RoleBinding,
            binding("a", "y", ("Role", "gone"), json!({"kind": "User", "name": "anna"})),
        );
        let reason = rbac.authorize(&request(&anna, "a")).unwrap_err();
        assert_eq!(
            reason,
            r#"RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "gone" not found]"#
        );
        assert_eq!(rbac.authorize(&request(&anna, "b")).unwrap_err(), "");
    }

    #[test]
    fn a_role_of_the_same_name_elsewhere_is_another_role() {
        let objects = Arc::new(Fixed::default());
        let rbac = Rbac::new(objects.clone());
        objects.put(
            Kind::Role,
            json!({"metadata": {"namespace": "b", "name": "reader"}, "rules": rules(&["*"])}),
        );
        objects.put(
            Kind::RoleBinding,
            binding("a", "x", ("Role", "reader"), json!({"kind": "User", "name": "anna"})),
        );
        let anna = UserInfo::new("anna", &[]);
        assert!(rbac.authorize(&request(&anna, "a")).is_err());
        assert!(rbac.authorize(&request(&anna, "b")).is_err());
    }
}
