//! What an annotation of autoscaling/v1 says of the speed of scaling, field by field in upstream's order.

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::{Deserialize, Serialize};

/// How fast to scale. Upstream's type for it has no names for JSON, so they are those of Go, which reads them in upper
/// and lower case.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Behavior {
    #[serde(alias = "scaleUp")]
    scale_up: Option<Rules>,
    #[serde(alias = "scaleDown")]
    scale_down: Option<Rules>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Rules {
    #[serde(alias = "stabilizationWindowSeconds")]
    stabilization_window_seconds: Option<i32>,
    #[serde(alias = "selectPolicy")]
    select_policy: Option<String>,
    #[serde(alias = "policies")]
    policies: Option<Vec<Policy>>,
    #[serde(alias = "tolerance")]
    tolerance: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Policy {
    #[serde(rename = "Type", alias = "type")]
    type_: String,
    #[serde(alias = "value")]
    value: i32,
    #[serde(alias = "periodSeconds")]
    period_seconds: i32,
}

impl From<Behavior> for HorizontalPodAutoscalerBehavior {
    fn from(it: Behavior) -> Self {
        Self { scale_up: it.scale_up.map(Into::into), scale_down: it.scale_down.map(Into::into) }
    }
}

impl From<HorizontalPodAutoscalerBehavior> for Behavior {
    fn from(it: HorizontalPodAutoscalerBehavior) -> Self {
        Self { scale_up: it.scale_up.map(Into::into), scale_down: it.scale_down.map(Into::into) }
    }
}

impl From<Rules> for HPAScalingRules {
    fn from(it: Rules) -> Self {
        let policy = |it: Policy| HPAScalingPolicy {
            type_: it.type_,
            value: it.value,
            period_seconds: it.period_seconds,
        };
        Self {
            stabilization_window_seconds: it.stabilization_window_seconds,
            select_policy: it.select_policy,
            policies: it.policies.map(|policies| policies.into_iter().map(policy).collect()),
            tolerance: it.tolerance,
        }
    }
}

impl From<HPAScalingRules> for Rules {
    fn from(it: HPAScalingRules) -> Self {
        let policy = |it: HPAScalingPolicy| Policy {
            type_: it.type_,
            value: it.value,
            period_seconds: it.period_seconds,
        };
        Self {
            stabilization_window_seconds: it.stabilization_window_seconds,
            select_policy: it.select_policy,
            policies: it.policies.map(|policies| policies.into_iter().map(policy).collect()),
            tolerance: it.tolerance,
        }
    }
}
