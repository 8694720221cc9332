//! Acting as another user (`kubectl --as`): allowed to whom the verb `impersonate` is.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::status::Status;
use http::HeaderMap;

use super::{Auth, Decision, forbidden};
use crate::request::percent_decode;
use crate::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes, UserInfo};

const EXTRA: &str = "impersonate-extra-";

impl Auth {
    /// The user that the request acts as: the one that asked, or the one whom the headers name.
    pub(crate) fn impersonate(
        &self,
        user: Arc<UserInfo>,
        headers: &HeaderMap,
    ) -> Result<Arc<UserInfo>, Status> {
        let all = |name: &str| -> Result<Vec<String>, Status> {
            headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect()
        };
        let single = |name: &str| Ok::<_, Status>(all(name)?.into_iter().next().unwrap_or_default());
        let (name, uid, groups) =
            (single("impersonate-user")?, single("impersonate-uid")?, all("impersonate-group")?);
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            if let Some(key) = header.as_str().strip_prefix(EXTRA) {
                extra.entry(percent_decode(key, false)).or_default().push(text(value.as_bytes())?);
            }
        }
        if name.is_empty() {
            if uid.is_empty() && groups.is_empty() && extra.is_empty() {
                return Ok(user);
            }
            return Err(Status::internal("requested impersonation without impersonating a user"));
        }
        let account = service_account(&name);
        match account {
            Some((namespace, account)) => self.may(&user, "", "serviceaccounts", "", namespace, account)?,
            None => self.may(&user, "", "users", "", "", &name)?,
        }
        for group in &groups {
            self.may(&user, "", "groups", "", "", group)?;
        }
        if !uid.is_empty() {
            self.may(&user, "authentication.k8s.io", "uids", "", "", &uid)?;
        }
        for (key, values) in &extra {
            for value in values {
                self.may(&user, "authentication.k8s.io", "userextras", key, "", value)?;
            }
        }
        let mut acting = match account {
            // Without groups of its own a service account is in those that it is always in.
            Some((namespace, account)) if groups.is_empty() => UserInfo::service_account(namespace, account),
            _ => UserInfo { name: name.clone(), groups, ..UserInfo::default() },
        };
        let known =
            acting.groups.iter().any(|group| group == ALL_AUTHENTICATED || group == ALL_UNAUTHENTICATED);
        if !known {
            let group = if name == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
            acting.groups.push(group.to_owned());
        }
        acting.uid = uid;
        acting.extra = extra;
        Ok(Arc::new(acting))
    }

    fn may(
        &self,
        user: &Arc<UserInfo>,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let request = Attributes {
            user: user.clone(),
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            version: if group.is_empty() { String::new() } else { "v1".to_owned() },
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            resource_request: true,
            ..Attributes::default()
        };
        match self.authorize(&request) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&request, &reason)),
        }
    }
}

fn text(value: &[u8]) -> Result<String, Status> {
    String::from_utf8(value.to_vec()).map_err(|_| Status::bad_request("an impersonation header is not UTF-8"))
}

/// Namespace and name, if the user name is that of a service account.
pub(super) fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
