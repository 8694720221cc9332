//! The rules of apiregistration.k8s.io/v1 APIService.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};
use serde_json::Value;

use super::{
    cells::age,
    check::{dns_subdomain, list, one_of, problems, required, text},
};
use crate::{
    field::{Errors, FieldError, Path, quote},
    name::{self, NameRule},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for APIService {
    const NAME: Option<NameRule> = Some(name::path_segment_name);
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Service").about("The reference to the service that hosts this API endpoint."),
        Column::text("Available").about("Whether this service is available."),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.status.get_or_insert_default();
        if let Some(service) = &mut self.spec.get_or_insert_default().service {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_create(&mut self) {
        let is_local = self.spec.as_ref().is_none_or(|spec| spec.service.is_none());
        let available = APIServiceCondition {
            // The object is as old as its condition.
            last_transition_time: self.metadata.creation_timestamp.clone(),
            message: Some("Local APIServices are always available".to_owned()),
            reason: Some("Local".to_owned()),
            status: "True".to_owned(),
            type_: "Available".to_owned(),
        };
        self.status = Some(APIServiceStatus { conditions: is_local.then(|| vec![available]) });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        crate::meta::keep_for_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = APIServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let (group, version) = (text(&spec.group), text(&spec.version));
        let name = text(&self.metadata.name);
        let expected = format!("{version}.{group}");
        if !name.is_empty() && name::path_segment(name).is_empty() && name != expected {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {}", quote(&expected));
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        validate(&mut errors, spec, group, version);
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("status").child("conditions");
        for (i, condition) in conditions(self).iter().enumerate() {
            let at = path.index(i).child("status");
            one_of(&mut errors, &at, &condition.status, &["True", "False", "Unknown"]);
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let service = self.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let service = service.map(|service| format!("{}/{}", text(&service.namespace), text(&service.name)));
        let available = match conditions(self).iter().find(|condition| condition.type_ == "Available") {
            None => "Unknown".to_owned(),
            Some(condition) if condition.status == "True" || text(&condition.reason).is_empty() => {
                condition.status.clone()
            }
            Some(condition) => format!("{} ({})", condition.status, text(&condition.reason)),
        };
        vec![
            name_cell(&self.metadata),
            service.unwrap_or_else(|| "Local".to_owned()).into(),
            available.into(),
            age(&self.metadata, now),
        ]
    }
}

fn conditions(service: &APIService) -> &[APIServiceCondition] {
    service.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default()
}

fn validate(errors: &mut Errors, spec: &APIServiceSpec, group: &str, version: &str) {
    let path = Path::new("spec");
    let at = path.child("group");
    if !group.is_empty() {
        dns_subdomain(errors, &at, group);
    } else if version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(&at, detail));
    }
    problems(errors, &path.child("version"), version, name::dns1035_label(version));
    for (field, value, most) in [
        ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
        ("versionPriority", spec.version_priority, 1_000),
    ] {
        if !(1..=most).contains(&value) {
            let detail = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(&path.child(field), value, detail));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map(|bundle| bundle.0.len()).unwrap_or_default();
    let insecure = spec.insecure_skip_tls_verify.unwrap_or_default();
    let insecure_at = path.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&path.child("caBundle"), format!("{bundle} bytes"), detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&insecure_at, true, detail));
        }
        return;
    };
    let at = path.child("service");
    required(errors, &at.child("namespace"), text(&service.namespace));
    required(errors, &at.child("name"), text(&service.name));
    let port = service.port.unwrap_or_default();
    let wrong = name::port_number(port.into());
    if !wrong.is_empty() {
        let detail = format!("port is not valid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(&at.child("port"), port, detail));
    }
    if insecure && bundle > 0 {
        errors.push(FieldError::invalid(&insecure_at, true, "may not be true if caBundle is present"));
    }
}
