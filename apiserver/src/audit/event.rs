//! One line of the audit log: an Event of `audit.k8s.io/v1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::USER_AGENT;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{RequestInfo, UserInfo};

/// A longer name of a client is cut.
const LONGEST_AGENT: usize = 1024;

/// An event, in upstream's order of fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) level: &'static str,
    #[serde(rename = "auditID")]
    pub(super) audit_id: &'a str,
    pub(super) stage: &'static str,
    #[serde(rename = "requestURI")]
    pub(super) request_uri: &'a str,
    pub(super) verb: &'static str,
    pub(super) user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    pub(super) source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<&'a Value>,
    pub(super) request_received_timestamp: String,
    pub(super) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: &'a BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

/// What a request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subresource: String,
}

impl<'a> User<'a> {
    pub(super) fn of(user: &'a UserInfo) -> Self {
        Self { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra }
    }
}

impl ObjectRef {
    /// What the path says; nothing for what is no resource.
    pub(super) fn of(info: &RequestInfo) -> Option<Self> {
        info.resource_request.then(|| Self {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..Self::default()
        })
    }

    /// What the path does not say, the object may.
    pub(super) fn complete(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        for (field, name) in [
            (&mut self.namespace, "namespace"),
            (&mut self.name, "name"),
            (&mut self.uid, "uid"),
            (&mut self.resource_version, "resourceVersion"),
        ] {
            if field.is_empty() {
                metadata[name].as_str().unwrap_or_default().clone_into(field);
            }
        }
    }
}

/// A time as events have it.
pub(super) fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Where a request comes from: what proxies say, and then who is connected. All but the last can be invented.
pub(super) fn source_ips(headers: &HeaderMap, remote: Option<IpAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut ips: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    let real: Option<IpAddr> = text("x-real-ip").trim().parse().ok();
    ips.extend(real.filter(|real| !ips.contains(real)));
    let remote = remote.map(|remote| remote.to_canonical());
    ips.extend(remote.filter(|remote| ips.last() != Some(remote)));
    ips
}

/// The name of the client.
pub(super) fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut agent = agent.unwrap_or_default();
    if agent.len() > LONGEST_AGENT {
        agent.truncate(agent.floor_char_boundary(LONGEST_AGENT));
        agent.push_str("...TRUNCATED");
    }
    agent
}

/// Takes the managed fields out of an object, a list or a Table.
pub(super) fn without_managed_fields(object: &mut Value) {
    let forget = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    forget(object);
    let of = |object: &mut Value, field: &str, f: &dyn Fn(&mut Value)| {
        object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().for_each(f);
    };
    of(object, "items", &forget);
    of(object, "rows", &|row| {
        if let Some(object) = row.get_mut("object") {
            forget(object);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_a_request_are_listed_in_their_order() {
        let mut headers = HeaderMap::new();
        let remote = Some("10.0.0.9".parse().unwrap());
        let shown = |headers: &HeaderMap| {
            source_ips(headers, remote).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&headers), "10.0.0.9");
        headers.insert("x-forwarded-for", "1.2.3.4, nonsense,10.0.0.8".parse().unwrap());
        headers.insert("x-real-ip", "1.2.3.4".parse().unwrap());
        assert_eq!(shown(&headers), "1.2.3.4 10.0.0.8 10.0.0.9");
        headers.insert("x-forwarded-for", "10.0.0.9".parse().unwrap());
        headers.insert("x-real-ip", "10.0.0.9".parse().unwrap());
        assert_eq!(shown(&headers), "10.0.0.9");
    }
}
