//! The rules of flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, LimitResponse, LimitedPriorityLevelConfiguration,
    PriorityLevelConfiguration, PriorityLevelConfigurationSpec, PriorityLevelConfigurationStatus,
    QueuingConfiguration,
};
use serde_json::{Value, json};

use super::{
    cells::age,
    check::{generation, list, required_one_of, same, text},
    flow_schema::{condition_types, mandatory},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// The levels that every cluster begins with. Some of them must stay as they are.
const BOOTSTRAP: &str = include_str!("../../../manifests/bootstrap/priority-levels.json");
const MANDATORY: [&str; 2] = ["catch-all", "exempt"];
const MAX_QUEUES: i32 = 10_000_000;
/// So many bits of a hash may decide which queues a flow has.
const MAX_HASH_BITS: f64 = 60.0;
/// Left over from a version that could not tell zero from nothing; no object may have it.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

impl Kind for PriorityLevelConfiguration {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Type").about(
            "`type` indicates whether this priority level is subject to limitation on request execution.  A value of \
             `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never \
             queued) and do not detract from the capacity made available to other priority levels.  A value of \
             `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the \
             server's limited capacity is made available exclusively to this priority level. Required.",
        ),
        Column::text("NominalConcurrencyShares").about(
            "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) \
             of this level. This is the number of execution seats available at this priority level. This is used both \
             for requests dispatched from this priority level as well as requests dispatched from other priority levels \
             borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited \
             priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) \
             sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the \
             expense of every other priority level.\n\nIf not specified, this field defaults to a value of \
             30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is \
             used to hold some request(s)",
        ),
        Column::text("Queues").about(
            "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. \
             The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the \
             distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
        ),
        Column::text("HandSize").about(
            "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When \
             enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the \
             hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request \
             is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should \
             be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the \
             user-facing documentation for more extensive guidance on setting this field.  This field has a default \
             value of 8.",
        ),
        Column::text("QueueLengthLimit").about(
            "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this \
             priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it \
             will be defaulted to 50.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
        let spec = self.spec.get_or_insert_default();
        if spec.type_ == "Exempt" {
            spec.exempt.get_or_insert_default();
        }
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(30);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = &mut limited.limit_response.get_or_insert_default().queuing {
            for (field, default) in [
                (&mut queuing.hand_size, 8),
                (&mut queuing.queues, 64),
                (&mut queuing.queue_length_limit, 50),
            ] {
                if field.unwrap_or_default() == 0 {
                    *field = Some(default);
                }
            }
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(PriorityLevelConfigurationStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        crate::meta::keep_for_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        if self.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ZERO_SHARES))
        {
            let at = Path::new("metadata").child("annotations");
            errors.push(FieldError::forbidden(&at, format!("annotation '{ZERO_SHARES}' is forbidden")));
        }
        let empty = PriorityLevelConfigurationSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let name = text(&self.metadata.name);
        validate(&mut errors, spec, name);
        errors.extend(changed(spec, name));
        errors.extend(self.validate_status(self));
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let conditions = self.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
        let types: Vec<&str> = conditions.iter().map(|condition| text(&condition.type_)).collect();
        condition_types(&types)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let queuing = spec.limited.as_ref().and_then(|limited| limited.limit_response.clone()?.queuing);
        let number = |value: Option<i32>| value.map_or_else(|| "<none>".into(), Value::from);
        vec![
            name_cell(&self.metadata),
            spec.type_.into(),
            number(spec.limited.and_then(|limited| limited.nominal_concurrency_shares)),
            number(queuing.as_ref().and_then(|queuing| queuing.queues)),
            number(queuing.as_ref().and_then(|queuing| queuing.hand_size)),
            number(queuing.as_ref().and_then(|queuing| queuing.queue_length_limit)),
            age(&self.metadata, now),
        ]
    }
}

/// What is wrong about a level that must stay as it is. Of `exempt`, what it lends may change.
fn changed(spec: &PriorityLevelConfigurationSpec, name: &str) -> Option<FieldError> {
    let mut fixed = mandatory(BOOTSTRAP, &MANDATORY, name)?;
    let mut given = json!(spec);
    let mut besides = "";
    if name == "exempt" {
        besides = " except the 'spec.exempt' field";
        fixed["exempt"] = Value::Null;
        given["exempt"] = Value::Null;
    }
    if same(&given, &fixed) {
        return None;
    }
    let detail = format!("spec of '{name}'{besides} must equal the fixed value");
    Some(FieldError::invalid(&Path::new("spec"), BadValue::of(spec), detail))
}

fn validate(errors: &mut Errors, spec: &PriorityLevelConfigurationSpec, name: &str) {
    let path = Path::new("spec");
    let (limited_at, exempt_at) = (path.child("limited"), path.child("exempt"));
    if (name == "exempt") != (spec.type_ == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(&path.child("type"), &spec.type_, detail));
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                let detail = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(&limited_at, detail));
            }
            if let Some(exempt) = &spec.exempt {
                self::exempt(errors, &exempt_at, exempt);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(FieldError::forbidden(&exempt_at, "must be nil if the type is Limited"));
            }
            match &spec.limited {
                Some(limited) => self::limited(errors, &limited_at, limited),
                None => {
                    errors.push(FieldError::required(&limited_at, "must not be empty when type is Limited"));
                }
            }
        }
        other => required_one_of(errors, &path.child("type"), other, &["Exempt", "Limited"]),
    }
}

/// What exempt and limited levels have alike.
fn shares(errors: &mut Errors, path: &Path, shares: Option<i32>) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let at = path.child("nominalConcurrencyShares");
        errors.push(FieldError::invalid(&at, shares, "must be a non-negative integer"));
    }
}

fn lendable(errors: &mut Errors, path: &Path, percent: Option<i32>) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        let at = path.child("lendablePercent");
        errors.push(FieldError::invalid(&at, percent, "must be between 0 and 100, inclusive"));
    }
}

fn exempt(errors: &mut Errors, path: &Path, level: &ExemptPriorityLevelConfiguration) {
    shares(errors, path, level.nominal_concurrency_shares);
    lendable(errors, path, level.lendable_percent);
}

fn limited(errors: &mut Errors, path: &Path, level: &LimitedPriorityLevelConfiguration) {
    shares(errors, path, level.nominal_concurrency_shares);
    let empty = LimitResponse::default();
    response(errors, &path.child("limitResponse"), level.limit_response.as_ref().unwrap_or(&empty));
    lendable(errors, path, level.lendable_percent);
    if let Some(percent) = level.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let at = path.child("borrowingLimitPercent");
        errors.push(FieldError::invalid(&at, percent, "if specified, must be a non-negative integer"));
    }
}

fn response(errors: &mut Errors, path: &Path, response: &LimitResponse) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&at, detail));
        }
        ("Queue", None) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&at, detail));
        }
        ("Queue", Some(queuing)) => self::queuing(errors, &at, queuing),
        ("Reject", None) => {}
        (other, _) => required_one_of(errors, &path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(errors: &mut Errors, path: &Path, queuing: &QueuingConfiguration) {
    const POSITIVE: &str = "must be positive";
    let limit = queuing.queue_length_limit.unwrap_or_default();
    if limit <= 0 {
        errors.push(FieldError::invalid(&path.child("queueLengthLimit"), limit, POSITIVE));
    }
    let queues = queuing.queues.unwrap_or_default();
    let at = path.child("queues");
    if queues <= 0 {
        errors.push(FieldError::invalid(&at, queues, POSITIVE));
    } else if queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.push(FieldError::invalid(&at, queues, detail));
    }
    let hand = queuing.hand_size.unwrap_or_default();
    let at = path.child("handSize");
    let bits = (f64::from(queues.max(1)).log2() * f64::from(hand)).ceil();
    if hand <= 0 {
        errors.push(FieldError::invalid(&at, hand, POSITIVE));
    } else if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(&at, hand, detail));
    } else if bits > MAX_HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.push(FieldError::invalid(&at, hand, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(name: &str) -> PriorityLevelConfiguration {
        let levels: Vec<PriorityLevelConfiguration> = serde_json::from_str(BOOTSTRAP).unwrap();
        levels.into_iter().find(|level| level.metadata.name.as_deref() == Some(name)).unwrap()
    }

    fn said(level: &PriorityLevelConfiguration) -> Vec<String> {
        level.validate().into_iter().map(|error| error.detail).collect()
    }

    #[test]
    fn the_levels_of_a_clusters_beginning_are_sound() {
        let levels: Vec<PriorityLevelConfiguration> = serde_json::from_str(BOOTSTRAP).unwrap();
        assert_eq!(levels.len(), 8);
        for level in levels {
            assert_eq!(level.validate(), Errors::new(), "{:?}", level.metadata.name);
        }
    }

    #[test]
    fn exempt_may_lend_and_catch_all_stays_as_it_is() {
        let mut exempt = bootstrap("exempt");
        exempt.spec.as_mut().unwrap().exempt.as_mut().unwrap().lendable_percent = Some(50);
        assert_eq!(said(&exempt), [""; 0]);
        let mut catch_all = bootstrap("catch-all");
        let limited = catch_all.spec.as_mut().unwrap().limited.as_mut().unwrap();
        limited.nominal_concurrency_shares = Some(6);
        assert_eq!(said(&catch_all), ["spec of 'catch-all' must equal the fixed value"]);
    }

    #[test]
    fn a_hand_is_dealt_from_enough_bits() {
        let mut level = bootstrap("system");
        let response =
            level.spec.as_mut().unwrap().limited.as_mut().unwrap().limit_response.as_mut().unwrap();
        let queuing = response.queuing.as_mut().unwrap();
        (queuing.queues, queuing.hand_size) = (Some(1024), Some(7));
        let detail = "required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60";
        assert_eq!(said(&level), [detail]);
    }
}
