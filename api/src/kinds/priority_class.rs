//! The rules of scheduling.k8s.io/v1 PriorityClass.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::{
    cells::age,
    check::{immutable, required_one_of, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

const HIGHEST: i32 = 1_000_000_000;
const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2 * HIGHEST + 1000), ("system-cluster-critical", 2 * HIGHEST)];

impl Kind for PriorityClass {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Value").about(
            "value represents the integer value of this priority class. This is the actual priority that pods receive \
             when they have the name of this class in their pod spec.",
        ),
        Column::new("Global-Default", "boolean").about(
            "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods \
             that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if \
             more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of \
             such global default PriorityClasses will be used as the default priority.",
        ),
        Column::age(),
        Column::text("PreemptionPolicy").about(
            "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. \
             Defaults to PreemptLowerPriority if unset.",
        ),
    ];

    fn set_defaults(&mut self) {
        self.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
        self.value.get_or_insert(0);
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.metadata.generation = old.metadata.generation.or(Some(1));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let (name, value) = (text(&self.metadata.name), self.value.unwrap_or_default());
        if name.starts_with("system-") {
            if let Err(error) = self.is_system(name, value) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {error}"
                );
                errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), detail));
            }
        } else if value > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(FieldError::forbidden(&Path::new("value"), detail));
        }
        if let Some(policy) = &self.preemption_policy {
            let at = Path::new("preemptionPolicy");
            required_one_of(&mut errors, &at, policy, &["PreemptLowerPriority", "Never"]);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        if self.value.unwrap_or_default() != old.value.unwrap_or_default() {
            errors.push(FieldError::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let at = Path::new("preemptionPolicy");
        immutable(&mut errors, &at, &self.preemption_policy, &old.preemption_policy);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name_cell(&self.metadata),
            self.value.unwrap_or_default().into(),
            self.global_default.unwrap_or_default().into(),
            age(&self.metadata, now),
            text(&self.preemption_policy).into(),
        ]
    }
}

trait System {
    fn is_system(&self, name: &str, value: i32) -> Result<(), String>;
}

impl System for PriorityClass {
    fn is_system(&self, name: &str, value: i32) -> Result<(), String> {
        match SYSTEM.iter().find(|(known, _)| *known == name) {
            None => Err(format!("{name} is not a known system priority class")),
            Some((_, wanted)) if *wanted != value => {
                Err(format!("value of {name} PriorityClass must be {wanted}"))
            }
            Some(_) if self.global_default == Some(true) => {
                Err(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => Ok(()),
        }
    }
}
