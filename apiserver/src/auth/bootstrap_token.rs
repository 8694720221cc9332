//! Bootstrap tokens: Secrets of the type `bootstrap.kubernetes.io/token`, with which machines join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::source::{Kind, Objects};
use crate::UserInfo;
use crate::pki::join_token::{JoinToken, split_bearer};

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";
/// The group of everybody who comes with a bootstrap token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Whether a token has the form of a bootstrap token.
pub fn may_be(token: &str) -> bool {
    split_bearer(token).is_some()
}

/// Whom the token speaks for; `None` if it has not the form of a bootstrap token, or is unknown or expired.
pub fn verify(objects: &Objects, token: &str, now: Timestamp) -> Option<UserInfo> {
    let (id, secret) = split_bearer(token)?;
    let stored: Secret = objects.get(Kind::Secret, NAMESPACE, &format!("bootstrap-token-{id}"))?.read()?;
    let text = |key: &str| {
        let bytes = &stored.data.as_ref()?.get(key)?.0;
        std::str::from_utf8(bytes).ok()
    };
    let fits = stored.type_.as_deref() == Some(KIND)
        && stored.metadata.deletion_timestamp.is_none()
        && text("token-id") == Some(id)
        && text("token-secret").is_some_and(|held| same(held.as_bytes(), secret.as_bytes()))
        && text("usage-bootstrap-authentication") == Some("true");
    // A date that can't be read is over: nothing is accepted for longer than was meant.
    let over = text("expiration").is_some_and(|end| end.parse::<Timestamp>().map_or(true, |end| now >= end));
    if !fits || over {
        return None;
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    for group in text("auth-extra-groups")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
    {
        // Upstream's rule: no group beyond those of bootstrappers can be had this way.
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_owned());
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(UserInfo::new(format!("system:bootstrap:{id}"), &groups))
}

/// Compares in a time that does not tell how much fits.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The Secret that makes a join token valid until `expires`.
pub fn secret(token: &JoinToken, expires: Option<Timestamp>, description: &str) -> Value {
    let data = |text: &str| STANDARD.encode(text);
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": KIND,
        "metadata": {"namespace": NAMESPACE, "name": format!("bootstrap-token-{}", token.id)},
        "data": {
            "token-id": data(&token.id), "token-secret": data(token.secret()),
            "usage-bootstrap-authentication": data("true"), "usage-bootstrap-signing": data("true"),
            "auth-extra-groups": data("system:bootstrappers:skiff:join"),
        },
    });
    if let Some(expires) = expires {
        secret["data"]["expiration"] = data(&expires.to_string()).into();
    }
    if !description.is_empty() {
        secret["data"]["description"] = data(description).into();
    }
    secret
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::source::fixed::Fixed;

    #[test]
    fn a_token_is_good_as_long_as_its_secret_says() {
        let objects = Arc::new(Fixed::default());
        let shared: Objects = objects.clone();
        let token = JoinToken::generate("ab".repeat(32), &base::Random::seeded(3));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert!(verify(&shared, &token.bearer(), now).is_none());
        let stored = secret(&token, Some(later), "for tests");
        objects.put(Kind::Secret, stored.clone());
        let user = verify(&shared, &token.bearer(), now).unwrap();
        assert_eq!(user.name, format!("system:bootstrap:{}", token.id));
        assert_eq!(
            user.groups,
            ["system:bootstrappers", "system:bootstrappers:skiff:join", "system:authenticated"]
        );
        assert!(verify(&shared, &token.bearer(), later).is_none(), "expired");
        assert!(verify(&shared, &format!("{}.0123456789abcdef", token.id), now).is_none(), "wrong secret");
        assert!(verify(&shared, &format!("zzzzzz.{}", token.secret()), now).is_none(), "wrong id");
        for (key, value) in [
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "tomorrow"),
            ("auth-extra-groups", "system:masters"),
            ("token-id", "000000"),
        ] {
            let mut broken = stored.clone();
            broken["data"][key] = STANDARD.encode(value).into();
            objects.put(Kind::Secret, broken);
            assert!(verify(&shared, &token.bearer(), now).is_none(), "{key}={value}");
        }
        let mut opaque = stored.clone();
        opaque["type"] = "Opaque".into();
        objects.put(Kind::Secret, opaque);
        assert!(verify(&shared, &token.bearer(), now).is_none(), "of another type");
        objects.remove(Kind::Secret, "kube-system", &format!("bootstrap-token-{}", token.id));
        assert!(verify(&shared, &token.bearer(), now).is_none(), "deleted");
    }
}
