//! What the FlowSchema and PriorityLevelConfiguration objects say, in the form that requests are judged by.

use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaCondition, PolicyRulesWithSubjects, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::counters::Counters;
use super::rules;
use crate::{RequestInfo, UserInfo};

/// The levels and schemas of a cluster's beginning. `exempt` and `catch-all` hold even if their objects are missing.
const LEVELS: &str = include_str!("../../../manifests/bootstrap/priority-levels.json");
const SCHEMAS: &str = include_str!("../../../manifests/bootstrap/flow-schemas.json");
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
/// The precedence of a schema that says nothing.
const PRECEDENCE: i32 = 1000;
/// One request holds at most this share of its level's seats.
const WIDEST: f64 = 0.15;

/// How requests are sorted.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order in which they are tried.
    pub(super) schemas: Vec<Arc<Schema>>,
    catch_all: Arc<Schema>,
}

/// A FlowSchema: which requests are of this sort, and which of them belong together.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: String,
    /// The name of its priority level.
    pub(super) level: String,
    /// Requests of an exempt level are counted and nothing else.
    pub(super) exempt: bool,
    /// The most seats that one request may hold.
    pub(super) widest: u32,
    pub(super) uid: HeaderValue,
    pub(super) level_uid: HeaderValue,
    pub(super) counters: Arc<Counters>,
    distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// A PriorityLevelConfiguration, with its part of the server's seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelPlan {
    pub(super) name: String,
    /// Its own part.
    pub(super) nominal: u32,
    /// What it keeps when others borrow.
    pub(super) lower: u32,
    /// What it can hold when it borrows.
    pub(super) upper: u32,
    /// The most that one request may hold.
    pub(super) widest: u32,
    /// What becomes of requests that find no seat; without it they are rejected.
    pub(super) queuing: Option<Queuing>,
}

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: usize,
    pub(super) hand: usize,
    pub(super) length: usize,
}

impl Plan {
    /// The schema of a request: the first one that it fits.
    pub(super) fn classify(&self, info: &RequestInfo, user: &UserInfo) -> &Arc<Schema> {
        let fits = |schema: &&Arc<Schema>| rules::matches(&schema.rules, info, user);
        self.schemas.iter().find(fits).unwrap_or(&self.catch_all)
    }
}

impl Schema {
    /// A number that is the same for all requests of one flow.
    pub(super) fn flow(&self, info: &RequestInfo, user: &UserInfo) -> u64 {
        let distinguisher = match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        };
        hash(&[&self.name, distinguisher])
    }
}

/// FNV-1a over the texts, mixed at the end so that every bit counts. Who knows it can find users that share a queue
/// with another one; each user still has a hand of several queues, and takes the emptiest.
fn hash(texts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    for (shift, factor) in [(33, 0xff51_afd7_ed55_8ccd_u64), (33, 0xc4ce_b9fe_1a85_ec53), (33, 1)] {
        hash = (hash ^ (hash >> shift)).wrapping_mul(factor);
    }
    hash
}

/// Divides `total` seats by what the objects say. Schemas of levels that don't exist are left out. What was counted of
/// `earlier` schemas goes on.
pub(super) fn digest(
    levels: &[PriorityLevelConfiguration],
    schemas: &[FlowSchema],
    total: u32,
    earlier: &[Arc<Schema>],
) -> (Plan, Vec<LevelPlan>) {
    let (own_levels, own_schemas) = (bootstrap_levels(), bootstrap_schemas());
    let mut levels: Vec<&PriorityLevelConfiguration> = levels.iter().collect();
    let mut schemas: Vec<&FlowSchema> = schemas.iter().collect();
    for mandatory in [EXEMPT, CATCH_ALL] {
        if !levels.iter().any(|level| name(&level.metadata) == mandatory) {
            levels.extend(own_levels.iter().filter(|level| name(&level.metadata) == mandatory));
        }
        if !schemas.iter().any(|schema| name(&schema.metadata) == mandatory) {
            schemas.extend(own_schemas.iter().filter(|schema| name(&schema.metadata) == mandatory));
        }
    }
    levels.sort_by_key(|level| name(&level.metadata).to_owned());
    let empty = PriorityLevelConfigurationSpec::default();
    let spec = |level: &PriorityLevelConfiguration| level.spec.clone().unwrap_or_else(|| empty.clone());
    let shares: f64 = levels.iter().map(|level| f64::from(share(&spec(level)))).sum();
    let planned: Vec<LevelPlan> =
        levels.iter().map(|level| plan(name(&level.metadata), &spec(level), shares, total)).collect();
    schemas.sort_by_key(|schema| (precedence(schema), name(&schema.metadata).to_owned()));
    let known = |wanted: &str| levels.iter().find(|level| name(&level.metadata) == wanted);
    let sorted: Vec<Arc<Schema>> = schemas
        .iter()
        .filter_map(|schema| {
            let spec = schema.spec.clone().unwrap_or_default();
            let level = known(&spec.priority_level_configuration.name)?;
            let before = earlier.iter().find(|before| before.name == name(&schema.metadata));
            Some(Arc::new(Schema {
                name: name(&schema.metadata).to_owned(),
                level: name(&level.metadata).to_owned(),
                exempt: level.spec.as_ref().is_some_and(|spec| spec.type_ == "Exempt"),
                widest: planned.iter().find(|plan| plan.name == name(&level.metadata))?.widest,
                uid: uid(&schema.metadata),
                level_uid: uid(&level.metadata),
                counters: before.map_or_else(Arc::default, |before| before.counters.clone()),
                distinguisher: match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
                    Some("ByUser") => Distinguisher::User,
                    Some("ByNamespace") => Distinguisher::Namespace,
                    _ => Distinguisher::None,
                },
                rules: spec.rules.unwrap_or_default(),
            }))
        })
        .collect();
    // Added above if it was missing, and its level too.
    let catch_all = sorted.iter().find(|schema| schema.name == CATCH_ALL).or(sorted.last()).cloned();
    let catch_all = catch_all.unwrap_or_else(|| Arc::new(Schema::nothing()));
    (Plan { schemas: sorted, catch_all }, planned)
}

impl Schema {
    /// What a request belongs to if there is no schema at all.
    fn nothing() -> Self {
        Self {
            name: CATCH_ALL.to_owned(),
            level: CATCH_ALL.to_owned(),
            exempt: false,
            widest: 1,
            uid: HeaderValue::from_static(""),
            level_uid: HeaderValue::from_static(""),
            counters: Arc::default(),
            distinguisher: Distinguisher::None,
            rules: Vec::new(),
        }
    }
}

fn plan(name: &str, spec: &PriorityLevelConfigurationSpec, shares: f64, total: u32) -> LevelPlan {
    // What comes out is between 0 and twice the total, or is cut there.
    let part = |of: u32, percent: i32| (f64::from(of) * f64::from(percent.max(0)) / 100.0).round() as u32;
    let nominal = (f64::from(total) * f64::from(share(spec)) / shares.max(1.0)).ceil() as u32;
    let (lendable, borrowing) = match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => (limited.lendable_percent, limited.borrowing_limit_percent),
        (None, Some(exempt)) => (exempt.lendable_percent, None),
        (None, None) => (None, None),
    };
    let response = spec.limited.as_ref().and_then(|limited| limited.limit_response.as_ref());
    let queuing = response.filter(|response| response.type_ == "Queue");
    let queuing = queuing.and_then(|response| response.queuing.as_ref()).map(|queuing| {
        let positive = |n: Option<i32>| usize::try_from(n.unwrap_or(0)).unwrap_or(0).max(1);
        let queues = positive(queuing.queues);
        Queuing {
            queues,
            hand: positive(queuing.hand_size).min(queues),
            length: positive(queuing.queue_length_limit),
        }
    });
    LevelPlan {
        name: name.to_owned(),
        nominal,
        lower: nominal - part(nominal, lendable.unwrap_or(0)).min(nominal),
        upper: nominal.saturating_add(borrowing.map_or(total, |percent| part(nominal, percent))),
        widest: ((f64::from(nominal) * WIDEST).ceil() as u32).max(1),
        queuing,
    }
}

fn share(spec: &PriorityLevelConfigurationSpec) -> i32 {
    let share = match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(30),
        (None, Some(exempt)) => exempt.nominal_concurrency_shares.unwrap_or(0),
        (None, None) => 0,
    };
    share.max(0)
}

fn precedence(schema: &FlowSchema) -> i32 {
    schema.spec.as_ref().and_then(|spec| spec.matching_precedence).unwrap_or(PRECEDENCE)
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn uid(metadata: &ObjectMeta) -> HeaderValue {
    let uid = metadata.uid.as_deref().unwrap_or_default();
    HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The condition that a schema should show, if it shows another one.
pub(super) fn dangling(
    schema: &FlowSchema,
    levels: &[PriorityLevelConfiguration],
    now: jiff::Timestamp,
) -> Option<FlowSchemaCondition> {
    let level = schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.as_str());
    let level = level.unwrap_or_default();
    let (status, reason, rest) = match levels.iter().any(|found| name(&found.metadata) == level) {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {} {rest}",
        api::field::quote(level)
    );
    let wanted = FlowSchemaCondition {
        type_: Some("Dangling".to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    };
    let shown = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same = |shown: &FlowSchemaCondition| {
        FlowSchemaCondition { last_transition_time: None, ..shown.clone() } == wanted
    };
    let is_shown = shown.into_iter().any(same);
    (!is_shown).then_some(FlowSchemaCondition { last_transition_time: Some(Time(now)), ..wanted })
}

/// The levels of a cluster's beginning. The files are part of the binary, and tests read them.
pub(super) fn bootstrap_levels() -> Vec<PriorityLevelConfiguration> {
    serde_json::from_str(LEVELS).unwrap_or_default()
}

/// The schemas of a cluster's beginning.
pub(super) fn bootstrap_schemas() -> Vec<FlowSchema> {
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_divided_by_shares() {
        let (_, levels) = digest(&bootstrap_levels(), &bootstrap_schemas(), 600, &[]);
        let shown: Vec<String> = levels
            .iter()
            .map(|l| format!("{} {} {} {} {}", l.name, l.nominal, l.lower, l.upper, l.widest))
            .collect();
        // Upstream's figures for 600 seats.
        assert_eq!(
            shown,
            [
                "catch-all 13 13 613 2",
                "exempt 0 0 600 1",
                "global-default 49 24 649 8",
                "leader-election 25 25 625 4",
                "node-high 98 73 698 15",
                "system 74 50 674 12",
                "workload-high 98 49 698 15",
                "workload-low 245 24 845 37",
            ]
        );
    }

    #[test]
    fn without_objects_the_mandatory_ones_hold() {
        let (plan, levels) = digest(&[], &[], 10, &[]);
        let names: Vec<&str> = plan.schemas.iter().map(|schema| schema.name.as_str()).collect();
        assert_eq!(names, ["exempt", "catch-all"]);
        assert_eq!(levels.iter().map(|level| level.nominal).collect::<Vec<_>>(), [10, 0]);
    }

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let (levels, mut schema) = (bootstrap_levels(), bootstrap_schemas().remove(0));
        let found = dangling(&schema, &levels, now).unwrap();
        let message = "This FlowSchema references the PriorityLevelConfiguration object named \"catch-all\" and it exists";
        assert_eq!((found.status.as_deref(), found.message.as_deref()), (Some("False"), Some(message)));
        schema.status.get_or_insert_default().conditions = Some(vec![found]);
        assert_eq!(dangling(&schema, &levels, now), None);
        let missing = dangling(&schema, &[], now).unwrap();
        assert_eq!((missing.status.as_deref(), missing.reason.as_deref()), (Some("True"), Some("NotFound")));
    }
}
