//! Deletes bootstrap tokens that have expired.

use client::{Cache, CacheConfig, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let tokens = context.caches.own::<Secret>(CacheConfig {
        namespace: Some(NAMESPACE.to_owned()),
        fields: Some(format!("type={TYPE}")),
        // The tokens themselves are nobody's business here.
        trim: Some(|secret| {
            secret.metadata.managed_fields = None;
            secret.data.iter_mut().for_each(|data| data.retain(|name, _| name == EXPIRATION));
        }),
        ..CacheConfig::default()
    });
    let mut worker = Worker::new(context, "token_cleaner", 1);
    worker.watches(&tokens, |secret| vec![Key::of(secret)]);
    harness::start(context, worker, TokenCleaner { tokens, clock: context.clock.clone() });
}

struct TokenCleaner {
    tokens: Cache<Secret>,
    clock: base::Clock,
}

impl Reconciler for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let token = self.tokens.get_key(key);
        Ok(token.map_or_else(Plan::nothing, |token| plan(&token, self.clock.now())))
    }
}

/// Deletes the token when its time has come. One without an expiration stays; one whose expiration can't be read
/// goes, because nobody can tell how long it was meant to live.
fn plan(token: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(expiration) = token.data.as_ref().and_then(|data| data.get(EXPIRATION)) else { return plan };
    let expiration = std::str::from_utf8(&expiration.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    match expiration.filter(|expiration| *expiration > now) {
        Some(expiration) => plan.look_again(expiration.duration_since(now).unsigned_abs()),
        None => plan.then(Write::delete(token)),
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_goes_when_its_time_has_come() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (expiration, deleted, again) in [
            (None, false, None),
            (Some("2026-01-01T00:00:30Z"), false, Some(Duration::from_secs(30))),
            (Some("2026-01-01T01:00:30+01:00"), false, Some(Duration::from_secs(30))),
            (Some("2026-01-01T00:00:00Z"), true, None),
            (Some("2025-12-31T23:59:59Z"), true, None),
            (Some("soon"), true, None),
        ] {
            let data =
                expiration.map(|text| [(EXPIRATION.to_owned(), ByteString(text.as_bytes().to_vec()))].into());
            let token = Secret { data, ..Secret::default() };
            let plan = plan(&token, now);
            assert_eq!((!plan.is_empty(), plan.again), (deleted, again), "{expiration:?}");
        }
    }
}
