//! The rules of core/v1 Event.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::Value;

use super::{
    cells::since,
    check::{dns_subdomain, qualified_name, required, text},
    role,
};
use crate::{
    field::{Errors, FieldError, Path},
    name::NameRule,
    object::{Kind, Null, name_cell},
    resource::Column,
};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen").about("The time at which the most recent occurrence of this event was recorded."),
    Column::text("Type").about("Type of this event (Normal, Warning), new types could be added in the future"),
    Column::text("Reason").about(
        "This should be a short, machine understandable string that gives the reason for the transition into the \
         object's current status.",
    ),
    Column::text("Object").about("The object that this event is about."),
    Column::text("Subobject").wide().about(
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go \
         field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to \
         a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to \
         the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" \
         (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a \
         part of an object.",
    ),
    Column::text("Source")
        .wide()
        .about("The component reporting this event. Should be a short machine understandable string."),
    Column::text("Message").about("A human-readable description of the status of this operation."),
    Column::text("First Seen")
        .wide()
        .about("The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)"),
    Column::text("Count").wide().about("The number of times this event has occurred."),
    Column::name().wide(),
];

impl Kind for Event {
    // Events of the core are checked as they always were: hardly. Their metadata is looked at in `validate`.
    const NAME: Option<NameRule> = Some(role::any_path_segment);
    const CREATE_ON_UPDATE: bool = true;
    const NULLS: &'static [Null<Self>] = &[
        ("eventTime", |it| it.event_time.is_none()),
        ("firstTimestamp", |it| it.first_timestamp.is_none()),
        ("lastTimestamp", |it| it.last_timestamp.is_none()),
    ];
    const COLUMNS: &'static [Column] = COLUMNS;
    const FIELDS: &'static [&'static str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
        // Events of the other group, which have the same fields under other names, lack this one.
        "source",
    ];

    fn set_defaults(&mut self) {
        self.source.get_or_insert_default();
        self.reporting_component.get_or_insert_default();
        self.reporting_instance.get_or_insert_default();
    }

    fn validate(&self) -> Errors {
        let view = View {
            namespace: text(&self.metadata.namespace),
            about: &self.involved_object,
            event_time: self.event_time.as_ref(),
            controller: text(&self.reporting_component),
            instance: text(&self.reporting_instance),
            action: text(&self.action),
            reason: text(&self.reason),
            message: text(&self.message),
        };
        view.validate()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let about = &self.involved_object;
        let source = self.source.as_ref().map(|s| text(&s.component)).filter(|s| !s.is_empty());
        let controller = text(&self.reporting_component);
        vec![
            ("involvedObject.kind", text(&about.kind).to_owned()),
            ("involvedObject.namespace", text(&about.namespace).to_owned()),
            ("involvedObject.name", text(&about.name).to_owned()),
            ("involvedObject.uid", text(&about.uid).to_owned()),
            ("involvedObject.apiVersion", text(&about.api_version).to_owned()),
            ("involvedObject.resourceVersion", text(&about.resource_version).to_owned()),
            ("involvedObject.fieldPath", text(&about.field_path).to_owned()),
            ("reason", text(&self.reason).to_owned()),
            ("reportingComponent", controller.to_owned()),
            ("source", source.unwrap_or(controller).to_owned()),
            ("type", text(&self.type_).to_owned()),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let source = self.source.as_ref();
        let source = (
            source.map(|s| text(&s.component)).unwrap_or_default(),
            source.map(|s| text(&s.host)).unwrap_or_default(),
        );
        let series = self.series.as_ref();
        Row {
            kind: text(&self.type_),
            reason: text(&self.reason),
            about: &self.involved_object,
            source: if source == ("", "") {
                (text(&self.reporting_component), text(&self.reporting_instance))
            } else {
                source
            },
            message: text(&self.message),
            first: self.first_timestamp.as_ref(),
            last: self.last_timestamp.as_ref(),
            event_time: self.event_time.as_ref(),
            series: series.map(|s| (s.count.unwrap_or_default(), s.last_observed_time.as_ref())),
            count: self.count.unwrap_or_default(),
            name: name_cell(&self.metadata),
        }
        .cells(now)
    }
}

/// What both kinds of events show.
pub(super) struct Row<'a> {
    pub(super) kind: &'a str,
    pub(super) reason: &'a str,
    pub(super) about: &'a ObjectReference,
    pub(super) source: (&'a str, &'a str),
    pub(super) message: &'a str,
    pub(super) first: Option<&'a Time>,
    pub(super) last: Option<&'a Time>,
    pub(super) event_time: Option<&'a MicroTime>,
    pub(super) series: Option<(i32, Option<&'a MicroTime>)>,
    pub(super) count: i32,
    pub(super) name: Value,
}

impl Row<'_> {
    pub(super) fn cells(self, now: Timestamp) -> Vec<Value> {
        let micro = |time: Option<&MicroTime>| since(time.map(|t| Time(t.0)).as_ref(), now);
        let first = if self.first.is_some() { since(self.first, now) } else { micro(self.event_time) };
        let (last, count) = match self.series {
            Some((count, observed)) => (micro(observed), count),
            None => {
                let last = if self.last.is_some() { since(self.last, now) } else { first.clone() };
                (last, if self.count == 0 { 1 } else { self.count })
            }
        };
        let kind = text(&self.about.kind).to_lowercase();
        let about = match text(&self.about.name) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let source = match self.source {
            (component, "") => component.to_owned(),
            ("", host) => host.to_owned(),
            (component, host) => format!("{component}, {host}"),
        };
        vec![
            last.into(),
            self.kind.into(),
            self.reason.into(),
            about.into(),
            text(&self.about.field_path).into(),
            source.into(),
            self.message.trim().into(),
            first.into(),
            count.into(),
            self.name,
        ]
    }
}

/// What both kinds of events are asked.
pub(super) struct View<'a> {
    pub(super) namespace: &'a str,
    pub(super) about: &'a ObjectReference,
    pub(super) event_time: Option<&'a MicroTime>,
    pub(super) controller: &'a str,
    pub(super) instance: &'a str,
    pub(super) action: &'a str,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

impl View<'_> {
    pub(super) fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let about = text(&self.about.namespace);
        let new = self.event_time.is_some();
        let matches = match about {
            "" if new => matches!(self.namespace, "default" | "kube-system"),
            "" => matches!(self.namespace, "" | "default"),
            _ if new => true,
            about => about == self.namespace,
        };
        if !matches {
            let at = Path::new("involvedObject").child("namespace");
            errors.push(FieldError::invalid(&at, about, "does not match event.namespace"));
        }
        if new {
            required(&mut errors, &Path::new("reportingController"), self.controller);
            qualified_name(&mut errors, &Path::new("reportingController"), self.controller);
            for (field, value, must, max) in [
                ("reportingInstance", self.instance, true, 128),
                ("action", self.action, true, 128),
                ("reason", self.reason, true, 128),
                ("message", self.message, false, 1024),
            ] {
                let at = Path::new(field);
                if must {
                    required(&mut errors, &at, value);
                }
                if value.len() > max {
                    errors.push(FieldError::invalid(&at, "", format!("can have at most {max} characters")));
                }
            }
        }
        dns_subdomain(&mut errors, &Path::new("namespace"), self.namespace);
        errors
    }
}
