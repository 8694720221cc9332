//! The rules of core/v1 PodTemplate.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use super::{
    cells::{containers, labels},
    check::{generation, same},
    pod::{defaults, spec},
    workload,
};
use crate::{
    field::{Errors, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for PodTemplate {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Containers").about("Names of each container in the template."),
        Column::text("Images").about("Images referenced by each container in the template."),
        Column::text("Pod Labels").about("The labels for the pod template."),
    ];

    fn set_defaults(&mut self) {
        defaults::template(self.template.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.template, &old.template));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let template = self.template.clone().unwrap_or_default();
        spec::validate_template(&mut errors, &template, &Path::new("template"));
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = self.template.clone().unwrap_or_default();
        let old = old.map(|old| old.template.clone().unwrap_or_default());
        workload::template_warnings(&template, old.as_ref(), &Path::new("template"))
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let template = self.template.as_ref();
        let [names, images] = containers(workload::pods(template));
        vec![name_cell(&self.metadata), names, images, labels(template.and_then(workload::labels))]
    }
}
