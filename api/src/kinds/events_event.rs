//! The rules of events.k8s.io/v1 Event: the core's events, under other names, and checked more strictly.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use serde_json::Value;

use super::{
    check::{immutable, immutable_struct, same, text},
    event::{COLUMNS, Row, View},
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, Null, name_cell},
    resource::Column,
};

impl Kind for Event {
    const CREATE_ON_UPDATE: bool = true;
    const NULLS: &'static [Null<Self>] = &[
        ("eventTime", |it| it.event_time.is_none()),
        ("deprecatedFirstTimestamp", |it| it.deprecated_first_timestamp.is_none()),
        ("deprecatedLastTimestamp", |it| it.deprecated_last_timestamp.is_none()),
    ];
    const COLUMNS: &'static [Column] = COLUMNS;
    const FIELDS: &'static [&'static str] = &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ];

    fn set_defaults(&mut self) {
        self.regarding.get_or_insert_default();
        self.deprecated_source.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let mut errors = self.common();
        self.series(&mut errors);
        if self.event_time.is_none() {
            errors.push(FieldError::required(&Path::new("eventTime"), ""));
        }
        let kind = text(&self.type_);
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
        }
        let source = self.deprecated_source.as_ref();
        for (field, set) in [
            ("firstTimestamp", self.deprecated_first_timestamp.is_some()),
            ("lastTimestamp", self.deprecated_last_timestamp.is_some()),
            ("count", self.deprecated_count.unwrap_or_default() != 0),
            ("source", source.is_some_and(|s| !text(&s.component).is_empty() || !text(&s.host).is_empty())),
        ] {
            if set {
                errors.push(FieldError::invalid(&Path::new(field), "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.common();
        if !same(&self.series, &old.series) {
            self.series(&mut errors);
        }
        let e = &mut errors;
        let reference = "api/core/v1.ObjectReference";
        immutable_struct(e, &Path::new("involvedObject"), &self.regarding, &old.regarding, reference);
        immutable(e, &Path::new("reason"), &self.reason, &old.reason);
        immutable(e, &Path::new("message"), &self.note, &old.note);
        let (new, before) = (&self.deprecated_source, &old.deprecated_source);
        immutable_struct(e, &Path::new("source"), new, before, "api/core/v1.EventSource");
        let (new, before) = (&self.deprecated_first_timestamp, &old.deprecated_first_timestamp);
        immutable(e, &Path::new("firstTimestamp"), new, before);
        let (new, before) = (&self.deprecated_last_timestamp, &old.deprecated_last_timestamp);
        immutable(e, &Path::new("lastTimestamp"), new, before);
        immutable(e, &Path::new("count"), &self.deprecated_count, &old.deprecated_count);
        immutable(e, &Path::new("reason"), &self.reason, &old.reason);
        immutable(e, &Path::new("type"), &self.type_, &old.type_);
        immutable(e, &Path::new("eventTime"), &self.event_time, &old.event_time);
        immutable(e, &Path::new("action"), &self.action, &old.action);
        immutable_struct(e, &Path::new("related"), &self.related, &old.related, reference);
        immutable(
            e,
            &Path::new("reportingController"),
            &text(&self.reporting_controller),
            &text(&old.reporting_controller),
        );
        // Stored objects have an empty text where this form has nothing.
        let instances = (text(&self.reporting_instance), text(&old.reporting_instance));
        immutable(e, &Path::new("reportingInstance"), &instances.0, &instances.1);
        errors
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let about = self.regarding.clone().unwrap_or_default();
        vec![
            ("regarding.kind", about.kind.unwrap_or_default()),
            ("regarding.namespace", about.namespace.unwrap_or_default()),
            ("regarding.name", about.name.unwrap_or_default()),
            ("regarding.uid", about.uid.unwrap_or_default()),
            ("regarding.apiVersion", about.api_version.unwrap_or_default()),
            ("regarding.resourceVersion", about.resource_version.unwrap_or_default()),
            ("regarding.fieldPath", about.field_path.unwrap_or_default()),
            ("reason", text(&self.reason).to_owned()),
            ("reportingController", text(&self.reporting_controller).to_owned()),
            ("type", text(&self.type_).to_owned()),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let about = self.regarding.clone().unwrap_or_default();
        let source = self.deprecated_source.clone().unwrap_or_default();
        let source = (text(&source.component), text(&source.host));
        Row {
            kind: text(&self.type_),
            reason: text(&self.reason),
            about: &about,
            source: if source == ("", "") {
                (text(&self.reporting_controller), text(&self.reporting_instance))
            } else {
                source
            },
            message: text(&self.note),
            first: self.deprecated_first_timestamp.as_ref(),
            last: self.deprecated_last_timestamp.as_ref(),
            event_time: self.event_time.as_ref(),
            series: self.series.as_ref().map(|s| (s.count, Some(&s.last_observed_time))),
            count: self.deprecated_count.unwrap_or_default(),
            name: name_cell(&self.metadata),
        }
        .cells(now)
    }
}

trait Checks {
    fn common(&self) -> Errors;
    fn series(&self, errors: &mut Errors);
}

impl Checks for Event {
    fn common(&self) -> Errors {
        let about = self.regarding.clone().unwrap_or_default();
        let view = View {
            namespace: text(&self.metadata.namespace),
            about: &about,
            event_time: self.event_time.as_ref(),
            controller: text(&self.reporting_controller),
            instance: text(&self.reporting_instance),
            action: text(&self.action),
            reason: text(&self.reason),
            message: text(&self.note),
        };
        view.validate()
    }

    fn series(&self, errors: &mut Errors) {
        if self.series.as_ref().is_some_and(|s| s.count < 2) {
            errors.push(FieldError::invalid(&Path::new("series.count"), "", "should be at least 2"));
        }
    }
}
