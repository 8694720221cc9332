//! The tokens of service accounts, bound to their pods and renewed before they end.

use std::collections::HashMap;
use std::time::Duration;

use base::{Clock, Random};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;

use crate::pod::{name, namespace, spec, uid};

/// A token is renewed when this share of its life is over, or after a day.
const LIFE: f64 = 0.8;
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What a projection gets that asks for nothing else.
const DEFAULT_SECONDS: i64 = 3600;

/// The tokens of one pod, by audience and lifetime.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<(String, i64), Token>);

struct Token {
    value: String,
    renew_at: Timestamp,
    ends_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

impl Tokens {
    /// When the first of them is to be renewed.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.0.values().map(|token| token.renew_at).min()
    }

    /// The token for a projection: the one at hand, or a new one when that is about to end.
    pub(super) async fn get(
        &mut self,
        client: &kube::Client,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        clock: &Clock,
        random: &Random,
    ) -> Result<String, String> {
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (source.audience.clone().unwrap_or_default(), seconds);
        let now = clock.now();
        if let Some(token) = self.0.get(&key).filter(|token| now < token.renew_at) {
            return Ok(token.value.clone());
        }
        match request(client, pod, &key.0, seconds).await {
            Ok((value, ends_at)) => {
                let token = Token { renew_at: renewal(now, ends_at, random), ends_at, value: value.clone() };
                self.0.insert(key, token);
                Ok(value)
            }
            // One that is still good serves until the API answers again.
            Err(why) => match self.0.get_mut(&key).filter(|token| now < token.ends_at) {
                Some(token) => {
                    tracing::warn!(pod = %crate::pod::title(pod), %why, "the service account token was not renewed");
                    token.renew_at = now + random.jitter(Duration::from_secs(60), 0.5);
                    Ok(token.value.clone())
                }
                None => Err(format!("failed to fetch token: {why}")),
            },
        }
    }
}

fn renewal(now: Timestamp, ends_at: Timestamp, random: &Random) -> Timestamp {
    let life = Duration::try_from(ends_at.duration_since(now)).unwrap_or_default();
    // Not all pods of a node at the same moment, and never later than at the share.
    now + random.jitter(life.mul_f64(LIFE).min(LONGEST).mul_f64(0.95), 0.05)
}

async fn request(
    client: &kube::Client,
    pod: &Pod,
    audience: &str,
    seconds: i64,
) -> Result<(String, Timestamp), String> {
    let account = spec(pod).service_account_name.as_deref().filter(|name| !name.is_empty());
    let account = account.unwrap_or("default");
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name(pod).into()),
        uid: Some(uid(pod).into()),
    };
    let audiences = Some(audience).filter(|audience| !audience.is_empty());
    let wanted = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audiences.map(|audience| vec![audience.to_owned()]),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(seconds),
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace(pod));
    let answer = accounts.create_token_request(account, &PostParams::default(), &wanted).await;
    let status = answer.map_err(|error| api_words(&error))?.status;
    let token = status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0)));
    token.ok_or_else(|| format!("no token for service account {account}"))
}

/// The API's own words for an error.
pub(super) fn api_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_after_a_day() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (life, latest) in [(3600, 2880), (7 * 86_400, 86_400), (0, 0)] {
            let random = Random::seeded(1);
            let at = renewal(now, now + Duration::from_secs(life), &random).duration_since(now).as_secs();
            assert!(at <= latest && at * 100 >= latest * 94, "{life}: {at}");
        }
    }
}
