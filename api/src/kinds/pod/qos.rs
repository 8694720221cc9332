//! The class of service of a pod, from what its containers ask for and may use.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;

use super::defaults::requests_and_limits;
use crate::kinds::amount::{Amount, Amounts};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (Sums::new(), Sums::new());
    let mut all_limited = true;
    let mut add = |wanted: Option<&Amounts>, limit: Option<&Amounts>| {
        sum(&mut requests, wanted);
        all_limited &= sum(&mut limits, limit) == 2;
    };
    let whole = spec.resources.as_ref().filter(|r| {
        let some = |amounts: &Option<Amounts>| amounts.as_ref().is_some_and(|a| !a.is_empty());
        some(&r.requests) || some(&r.limits)
    });
    match whole {
        Some(resources) => add(resources.requests.as_ref(), resources.limits.as_ref()),
        None => requests_and_limits(spec).for_each(|(wanted, limit)| add(wanted, limit)),
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

type Sums = BTreeMap<&'static str, Amount>;

/// Adds what counts, and says for how many resources there was some.
fn sum(sums: &mut Sums, amounts: Option<&Amounts>) -> usize {
    let mut found = 0;
    for resource in ["cpu", "memory"] {
        let amount = amounts.and_then(|a| a.get(resource)).and_then(Amount::of);
        if let Some(amount) = amount.filter(|a| a.sign() > 0) {
            found += 1;
            sums.entry(resource).and_modify(|sum| *sum = sum.plus(amount)).or_insert(amount);
        }
    }
    found
}
