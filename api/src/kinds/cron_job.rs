//! The rules of batch/v1 CronJob.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, JobSpec, JobTemplateSpec};
use serde_json::Value;

use super::{
    cells::{age, containers, or_none, since},
    check::{generation, nonnegative, required_one_of, same, selector_text, text},
    job::{SELECTOR, spec},
    workload,
};
use crate::{
    cron,
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// What is left of the name of a job when its time has been added.
const LONGEST_NAME: usize = 52;

impl Kind for CronJob {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Schedule").about("The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
        Column::text("Timezone").about(
            "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. \
             If not specified, this will default to the time zone of the kube-controller-manager process. The set of \
             valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API \
             server during CronJob validation and the controller manager during execution. If no system-wide time zone \
             database can be found a bundled version of the database is used instead. If the time zone name becomes \
             invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop \
             creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can \
             be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
        ),
        Column::new("Suspend", "boolean").about(
            "This flag tells the controller to suspend subsequent executions, it does not apply to already started \
             executions.  Defaults to false.",
        ),
        Column::integer("Active").about("A list of pointers to currently running jobs."),
        Column::text("Last Schedule")
            .about("Information when was the last time the job was successfully scheduled."),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(SELECTOR),
    ];

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        if text(&spec.concurrency_policy).is_empty() {
            spec.concurrency_policy = Some("Allow".to_owned());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        spec.job_template.metadata.get_or_insert_default();
        spec::set_template_defaults(spec.job_template.spec.get_or_insert_default());
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(CronJobStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = validate_spec(&self.spec, None);
        let name = text(&self.metadata.name);
        if name.len() > LONGEST_NAME {
            let detail = "must be no more than 52 characters";
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate_spec(&self.spec, Some(&old.spec))
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let job = |cron: &Self| cron.spec.job_template.spec.clone().unwrap_or_default();
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(workload::name_warning(&self.metadata));
        }
        let at = Path::new("spec").child("jobTemplate").child("spec");
        out.extend(spec::warnings(&job(self), old.map(job).as_ref(), &at));
        if self.spec.schedule.contains("TZ") {
            // The path is upstream's.
            out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead".to_owned());
        }
        out
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let empty = CronJobStatus::default();
        let (spec, status) = (&self.spec, self.status.as_ref().unwrap_or(&empty));
        let job = spec.job_template.spec.as_ref();
        let [names, images] = containers(workload::pods(job.map(|job| &job.template)));
        let last = status.last_schedule_time.as_ref().map(|time| since(Some(time), now));
        vec![
            name_cell(&self.metadata),
            spec.schedule.as_str().into(),
            spec.time_zone.as_deref().unwrap_or("<none>").into(),
            spec.suspend.map_or("<unset>", |suspend| if suspend { "True" } else { "False" }).into(),
            status.active.as_ref().map_or(0, Vec::len).into(),
            last.as_deref().unwrap_or("<none>").into(),
            age(&self.metadata, now),
            names,
            images,
            or_none(&selector_text(job.and_then(|job| job.selector.as_ref()))),
        ]
    }
}

fn validate_spec(spec: &CronJobSpec, old: Option<&CronJobSpec>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    schedule(&mut errors, spec, old, &path.child("schedule"));
    nonnegative(&mut errors, &path.child("startingDeadlineSeconds"), spec.starting_deadline_seconds);
    if let Some(zone) = &spec.time_zone
        && old.is_none_or(|old| old.time_zone != spec.time_zone)
    {
        time_zone(&mut errors, zone, &path.child("timeZone"));
    }
    let policy = text(&spec.concurrency_policy);
    let policies = &["Allow", "Forbid", "Replace"];
    required_one_of(&mut errors, &path.child("concurrencyPolicy"), policy, policies);
    job_template(&mut errors, &spec.job_template, &path.child("jobTemplate").child("spec"));
    nonnegative(&mut errors, &path.child("successfulJobsHistoryLimit"), spec.successful_jobs_history_limit);
    nonnegative(&mut errors, &path.child("failedJobsHistoryLimit"), spec.failed_jobs_history_limit);
    errors
}

fn schedule(errors: &mut Errors, spec: &CronJobSpec, old: Option<&CronJobSpec>, path: &Path) {
    let schedule = &spec.schedule;
    if schedule.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if let Err(problem) = cron::parse(schedule) {
        errors.push(FieldError::invalid(path, schedule, problem));
    }
    if !schedule.contains("TZ") {
        return;
    }
    // Cron jobs that have a zone in their schedule may keep it.
    if !old.is_some_and(|old| old.schedule.contains("TZ")) {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path, schedule, detail));
    } else if spec.time_zone.is_some() {
        let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
        errors.push(FieldError::invalid(path, schedule, detail));
    }
}

fn time_zone(errors: &mut Errors, zone: &str, path: &Path) {
    let mut refuse = |detail: String| errors.push(FieldError::invalid(path, zone, detail));
    if zone.is_empty() {
        return refuse("timeZone must be nil or non-empty string".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let sound = |part: &str| {
        (1..=14).contains(&part.len())
            && part.bytes().all(allowed)
            && !part.starts_with('-')
            && !matches!(part, "." | "..")
    };
    if !zone.split('/').all(sound) {
        return refuse(format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("Local") {
        refuse(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned(),
        );
    }
    if zone != "Local" && !cron::is_time_zone(zone) {
        refuse(format!("unknown time zone {zone}"));
    }
}

fn job_template(errors: &mut Errors, template: &JobTemplateSpec, path: &Path) {
    let empty = JobSpec::default();
    let job = template.spec.as_ref().unwrap_or(&empty);
    spec::validate(errors, job, path);
    // Each job gets its own when it is made.
    if let Some(selector) = &job.selector {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&path.child("selector"), BadValue::of(selector), detail));
    }
    if job.manual_selector == Some(true) {
        let supported = &["nil", "false"];
        errors.push(FieldError::not_supported(&path.child("manualSelector"), true, supported));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::aggregate;

    fn cron_job(spec: Value) -> CronJob {
        let mut whole = json!({
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]
            }}}}
        });
        for (field, value) in spec.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        let cron = json!({"metadata": {"name": "cj"}, "spec": whole});
        let mut cron: CronJob = serde_json::from_value(cron).unwrap_or_default();
        cron.set_defaults();
        cron
    }

    #[test]
    fn a_job_in_a_template_keeps_what_is_left_out() {
        let spec = cron_job(json!({})).spec;
        assert_eq!(text(&spec.concurrency_policy), "Allow");
        assert_eq!((spec.successful_jobs_history_limit, spec.failed_jobs_history_limit), (Some(3), Some(1)));
        let job = spec.job_template.spec.unwrap_or_default();
        assert_eq!((job.completions, job.backoff_limit, job.selector), (None, None, None));
    }

    #[test]
    fn schedules_and_zones_are_refused_in_upstreams_words() {
        for (spec, text) in [
            (json!({}), ""),
            (json!({"timeZone": "Europe/Rome"}), ""),
            (json!({"timeZone": "UTC", "schedule": "@daily"}), ""),
            (json!({"schedule": ""}), "spec.schedule: Required value"),
            (
                json!({"schedule": "x"}),
                r#"spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]"#,
            ),
            (
                json!({"schedule": "TZ=UTC 0 * * * *"}),
                r#"spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
            ),
            (
                json!({"timeZone": ""}),
                r#"spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string"#,
            ),
            (
                json!({"timeZone": "Europe/Nowhere"}),
                r#"spec.timeZone: Invalid value: "Europe/Nowhere": unknown time zone Europe/Nowhere"#,
            ),
            (
                json!({"timeZone": "Local"}),
                r#"spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"#,
            ),
            (json!({"timeZone": "../x"}), r#"spec.timeZone: Invalid value: "../x": unknown time zone ../x"#),
            (
                json!({"concurrencyPolicy": "x"}),
                r#"spec.concurrencyPolicy: Unsupported value: "x": supported values: "Allow", "Forbid", "Replace""#,
            ),
        ] {
            assert_eq!(aggregate(&Kind::validate(&cron_job(spec))), text);
        }
    }

    #[test]
    fn a_zone_that_is_in_the_schedule_may_stay_there() {
        let old = cron_job(json!({"schedule": "TZ=UTC 0 * * * *"}));
        assert_eq!(aggregate(&cron_job(json!({"schedule": "TZ=UTC 1 * * * *"})).validate_update(&old)), "");
        let both = cron_job(json!({"schedule": "TZ=UTC 1 * * * *", "timeZone": "UTC"}));
        assert_eq!(
            aggregate(&both.validate_update(&old)),
            "spec.schedule: Invalid value: \"TZ=UTC 1 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in \
             schedule"
        );
    }

    #[test]
    fn the_name_leaves_room_for_that_of_a_job() {
        let mut cron = cron_job(json!({}));
        cron.metadata.name = Some("x".repeat(53));
        let errors = aggregate(&Kind::validate(&cron));
        assert!(errors.ends_with("must be no more than 52 characters"), "{errors}");
        assert_eq!(aggregate(&cron.validate_update(&cron)), "");
    }
}
