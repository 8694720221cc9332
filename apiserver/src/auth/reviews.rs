//! Reviews: questions about tokens and permissions that are asked by creating an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::field::{FieldError, Path};
use api::object::Object;
use api::resource::Answer;
use api::status::Status;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SubjectAccessReviewStatus,
};

use super::{Auth, Decision, node};
use crate::{Attributes, MASTERS, UserInfo};

const GROUP: &str = "authorization.k8s.io";

impl Auth {
    /// Answers a review: the object with its status filled in. `namespace` is that of the request's path.
    pub async fn review(
        &self,
        user: &Arc<UserInfo>,
        namespace: &str,
        answer: Answer,
        mut object: Box<dyn Object>,
    ) -> Result<Box<dyn Object>, Status> {
        match answer {
            Answer::TokenReview => self.token_review(of(&mut object)?).await?,
            Answer::SelfSubjectReview => {
                let review: &mut authentication::SelfSubjectReview = of(&mut object)?;
                review.status =
                    Some(authentication::SelfSubjectReviewStatus { user_info: Some(user_info(user)) });
            }
            Answer::SubjectAccessReview => {
                let review: &mut authorization::SubjectAccessReview = of(&mut object)?;
                review.status = Some(self.access(&review.spec, "SubjectAccessReview")?);
            }
            Answer::LocalSubjectAccessReview => {
                let review: &mut authorization::LocalSubjectAccessReview = of(&mut object)?;
                local(&review.spec, namespace)?;
                review.status = Some(self.access(&review.spec, "LocalSubjectAccessReview")?);
            }
            Answer::SelfSubjectAccessReview => {
                let review: &mut authorization::SelfSubjectAccessReview = of(&mut object)?;
                let (resource, path) =
                    (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
                one_of(resource, path, "SelfSubjectAccessReview")?;
                review.status = Some(self.decide(user.clone(), resource.as_ref(), path.as_ref()));
            }
            Answer::SelfSubjectRulesReview => {
                let review: &mut authorization::SelfSubjectRulesReview = of(&mut object)?;
                let namespace = review.spec.namespace.clone().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                review.status = Some(self.rules(user, &namespace));
            }
            Answer::Binding => return Err(Status::internal("a binding is no review")),
        }
        Ok(object)
    }

    async fn token_review(&self, review: &mut authentication::TokenReview) -> Result<(), Status> {
        let token = review.spec.token.clone();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = review.spec.audiences.clone().unwrap_or_default();
        let audiences = if asked.is_empty() { vec![self.tokens.issuer().to_owned()] } else { asked.clone() };
        let mut status = authentication::TokenReviewStatus::default();
        match self.token(&token, &audiences).await {
            Ok((user, meant)) => {
                status.authenticated = Some(true);
                status.user = Some(user_info(&user));
                status.audiences = (!meant.is_empty()).then_some(meant);
            }
            Err(reason) => {
                status.user = Some(authentication::UserInfo::default());
                status.error = Some(format!("[invalid bearer token, {reason}]"));
            }
        }
        review.status = Some(status);
        Ok(())
    }

    fn access(
        &self,
        spec: &authorization::SubjectAccessReviewSpec,
        kind: &str,
    ) -> Result<SubjectAccessReviewStatus, Status> {
        one_of(&spec.resource_attributes, &spec.non_resource_attributes, kind)?;
        let groups = spec.groups.clone().unwrap_or_default();
        let user = spec.user.clone().unwrap_or_default();
        if user.is_empty() && groups.is_empty() {
            let path = Path::new("spec").child("user");
            return Err(invalid(
                kind,
                FieldError::invalid(&path, "", "at least one of user or group must be specified"),
            ));
        }
        let user = UserInfo {
            name: user,
            uid: spec.uid.clone().unwrap_or_default(),
            groups,
            extra: spec.extra.clone().unwrap_or_default().into_iter().collect(),
        };
        Ok(self.decide(
            Arc::new(user),
            spec.resource_attributes.as_ref(),
            spec.non_resource_attributes.as_ref(),
        ))
    }

    fn decide(
        &self,
        user: Arc<UserInfo>,
        resource: Option<&ResourceAttributes>,
        path: Option<&NonResourceAttributes>,
    ) -> SubjectAccessReviewStatus {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let request = match (resource, path) {
            (Some(of), _) => Attributes {
                user,
                verb: text(&of.verb),
                group: text(&of.group),
                version: text(&of.version),
                resource: text(&of.resource),
                subresource: text(&of.subresource),
                namespace: text(&of.namespace),
                name: text(&of.name),
                resource_request: true,
                field_selector: of.field_selector.as_ref().map(selector).unwrap_or_default(),
                ..Attributes::default()
            },
            (None, of) => Attributes {
                user,
                verb: of.map(|of| text(&of.verb)).unwrap_or_default(),
                path: of.map(|of| text(&of.path)).unwrap_or_default(),
                ..Attributes::default()
            },
        };
        let (allowed, denied, reason) = match self.authorize(&request) {
            Decision::Allow => (true, None, String::new()),
            Decision::Deny(reason) => (false, Some(true), reason),
            Decision::NoOpinion(reason) => (false, None, reason),
        };
        SubjectAccessReviewStatus {
            allowed,
            denied,
            reason: (!reason.is_empty()).then_some(reason),
            evaluation_error: None,
        }
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> authorization::SubjectRulesReviewStatus {
        let mut status = authorization::SubjectRulesReviewStatus::default();
        if user.in_group(MASTERS) {
            let all = || Some(vec!["*".to_owned()]);
            status.resource_rules.push(ResourceRule {
                verbs: vec!["*".to_owned()],
                api_groups: all(),
                resources: all(),
                resource_names: None,
            });
            status
                .non_resource_rules
                .push(NonResourceRule { verbs: vec!["*".to_owned()], non_resource_urls: all() });
        }
        let held = self.rbac.rules_for(user, namespace);
        for rule in held.rules {
            if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
                status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
                status
                    .non_resource_rules
                    .push(NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls });
            }
        }
        let mut errors = held.errors;
        if node::node_name(user).is_some() {
            errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        status.incomplete = !errors.is_empty();
        status.evaluation_error = (!errors.is_empty()).then(|| errors.join(", "));
        status
    }
}

/// The typed review in the object. The table says which type answers which row.
fn of<T: Object>(object: &mut Box<dyn Object>) -> Result<&mut T, Status> {
    object
        .downcast_mut::<T>()
        .ok_or_else(|| Status::internal("a review is not of the type that its row names"))
}

fn invalid(kind: &str, error: FieldError) -> Status {
    Status::invalid(GROUP, kind, "", &[error])
}

/// Exactly one of the two must be asked for.
fn one_of(
    resource: &Option<ResourceAttributes>,
    path: &Option<NonResourceAttributes>,
    kind: &str,
) -> Result<(), Status> {
    let spec = Path::new("spec");
    match (resource, path) {
        (Some(_), Some(_)) => Err(invalid(
            kind,
            FieldError::invalid(
                &spec.child("nonResourceAttributes"),
                "",
                "cannot be specified in combination with resourceAttributes",
            ),
        )),
        (None, None) => Err(invalid(
            kind,
            FieldError::invalid(
                &spec.child("resourceAttributes"),
                "",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
        )),
        _ => Ok(()),
    }
}

/// A local review asks about its own namespace.
fn local(spec: &authorization::SubjectAccessReviewSpec, namespace: &str) -> Result<(), Status> {
    let asked = spec.resource_attributes.as_ref().and_then(|of| of.namespace.as_deref()).unwrap_or_default();
    if asked == namespace {
        return Ok(());
    }
    Err(Status::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {namespace}")))
}

fn selector(of: &authorization::FieldSelectorAttributes) -> String {
    match (&of.raw_selector, &of.requirements) {
        (Some(raw), _) => raw.clone(),
        (None, Some(requirements)) => requirements
            .iter()
            .filter(|term| term.operator == "In")
            .filter_map(|term| match term.values.as_deref() {
                Some([value]) => Some(format!("{}={value}", term.key)),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join(","),
        (None, None) => String::new(),
    }
}

fn user_info(user: &UserInfo) -> authentication::UserInfo {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let extra: BTreeMap<String, Vec<String>> = user.extra.clone();
    authentication::UserInfo {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!extra.is_empty()).then_some(extra),
    }
}
