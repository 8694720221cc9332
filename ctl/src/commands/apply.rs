//! `skiff apply`: objects become what files say. By default the client makes the patch from what it applied last,
//! what it applies now and what is there; with `--server-side` the server merges.

use api::apply::Managed;
use api::patch::{merge_three_way, strategic};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::delete::remove;
use super::print;
use crate::Failure;
use crate::output::{OutputArgs, Printer};
use crate::resources::files::{FileArgs, Manifest};
use crate::resources::{ApiError, Call, Mapping, Patch, Session, Target, name, text};

/// Where a client keeps what it applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of what the server merges, if no other is named. It is kubectl's, so that both can be used in turn.
const SERVER_SIDE: &str = "kubectl";
/// The manager of the annotation alone.
const ANNOTATION_KEEPER: &str = "kubectl-last-applied";
/// How often a patch that met another writer is made anew.
const TRIES: usize = 5;

/// Whether something is done, or only tried, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Do it
    #[default]
    None,
    /// Only print the object that would be sent, without sending it
    Client,
    /// Submit the request without persisting the resource
    Server,
}

impl DryRun {
    /// What messages add.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    pub(crate) fn server(self) -> bool {
        self == Self::Server
    }
}

/// How fields that the server doesn't know are taken.
#[derive(Args, Clone, Debug)]
pub(crate) struct Validation {
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(
        long = "validate", value_name = "MODE", num_args = 0..=1, require_equals = true,
        default_value = "strict", default_missing_value = "strict"
    )]
    mode: String,
}

impl Validation {
    /// The value of `fieldValidation`.
    pub(crate) fn field(&self) -> Result<&'static str, Failure> {
        match self.mode.as_str() {
            "true" | "strict" => Ok("Strict"),
            "warn" => Ok("Warn"),
            "false" | "ignore" => Ok("Ignore"),
            other => Err(Failure::usage(format!(
                "error: invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
            ))),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    validation: Validation,
    /// If true, apply runs in the server instead of the client
    #[arg(long)]
    server_side: bool,
    /// If true, server-side apply will force the changes against conflicts
    #[arg(long)]
    force_conflicts: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, value_name = "NAME")]
    field_manager: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Delete and create again what can't be changed in place
    #[arg(long)]
    force: bool,
    /// Automatically resolve conflicts between the modified and live configuration by using values from the modified
    /// configuration
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    overwrite: bool,
    #[command(subcommand)]
    more: Option<More>,
}

#[derive(Debug, clap::Subcommand)]
enum More {
    /// View the latest last-applied-configuration annotations by type/name or file
    ViewLastApplied(ViewLastApplied),
}

#[derive(Args, Debug)]
struct ViewLastApplied {
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Output format. Must be one of (yaml, json)
    #[arg(long, short = 'o', default_value = "yaml")]
    output: String,
}

impl Apply {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if let Some(More::ViewLastApplied(view)) = &self.more {
            return view.run(session).await;
        }
        if self.files.is_empty() {
            return Err(Failure::new("error: must specify one of -f and -k"));
        }
        if self.force_conflicts && !self.server_side {
            return Err(Failure::new("error: --force-conflicts only works with --server-side"));
        }
        let field = self.validation.field()?;
        let mut printer = self.output.printer()?.together();
        let mut failures: Vec<String> = Vec::new();
        // A kind is looked up when its turn comes: what comes before may have defined it.
        for manifest in self.files.read()? {
            let ended = match session.manifest_target(manifest).await {
                Ok(target) => self.one(session, target, field, &mut printer).await,
                Err(failure) => Err(failure.into()),
            };
            match ended {
                Ok(()) => {}
                Err(Ended::Api(error)) => failures.push(error.text()),
                Err(Ended::Failed(failure)) => failures.push(failure.to_string()),
            }
        }
        printer.finish()?;
        if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("\n"))) }
    }

    async fn one(
        &self,
        session: &Session,
        target: Target,
        field: &'static str,
        printer: &mut Printer,
    ) -> Result<(), Ended> {
        let Target::One { mapping, namespace, name: object_name, manifest: Some(manifest) } = target else {
            return Ok(());
        };
        if object_name.is_empty() {
            let generate = text(&manifest.object, "metadata.generateName");
            let why = if generate.is_empty() {
                format!(
                    "error when retrieving current configuration of {:?}: resource name may not be empty",
                    manifest.source
                )
            } else {
                format!("from {generate}: cannot use generate name with apply")
            };
            return Err(Failure::new(format!("error: {why}")).into());
        }
        let job = Job { session, mapping, namespace, name: object_name, manifest, field, apply: self };
        if self.server_side { job.on_server(printer).await } else { job.on_client(printer).await }
    }
}

/// How applying an object can end.
enum Ended {
    Api(ApiError),
    Failed(Failure),
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One object to apply.
struct Job<'a> {
    session: &'a Session,
    mapping: Mapping,
    namespace: String,
    name: String,
    manifest: Manifest,
    field: &'static str,
    apply: &'a Apply,
}

impl Job<'_> {
    fn path(&self) -> String {
        self.mapping.object(&self.namespace, &self.name)
    }

    fn dress(&self, call: Call, manager: &str) -> Call {
        let manager = self.apply.field_manager.as_deref().unwrap_or(manager);
        call.query("fieldManager", manager)
            .query("fieldValidation", self.field)
            .dry_run(self.apply.dry_run.server())
    }

    fn done(&self, printer: &mut Printer, object: &Value, done: &str) -> Result<(), Ended> {
        Ok(printer.done(&self.mapping, object, &format!("{done}{}", self.apply.dry_run.suffix()))?)
    }

    /// Sends the object for the server to merge.
    async fn send(&self) -> Result<Value, ApiError> {
        let call = self.dress(Call::patch(self.path(), Patch::Apply, &self.manifest.object), SERVER_SIDE);
        self.session.json(if self.apply.force_conflicts { call.query("force", "true") } else { call }).await
    }

    /// What this client owns by its own apply becomes what it applies on the server, so that it can let go of it.
    async fn take_over(&self, mut object: Value) -> Result<Value, ApiError> {
        let manager = self.apply.field_manager.as_deref().unwrap_or(SERVER_SIDE);
        for _ in 0..TRIES {
            let entries = serde_json::from_value(object["metadata"]["managedFields"].clone());
            let mut managed = Managed::stored(entries.unwrap_or_default());
            if !managed.hand_over(&["metadata", "annotations", LAST_APPLIED], manager) {
                return Ok(object);
            }
            if manager == SERVER_SIDE {
                self.keep_annotation(&object).await?;
                object = self.session.json(Call::get(self.path())).await?;
                let entries = serde_json::from_value(object["metadata"]["managedFields"].clone());
                managed = Managed::stored(entries.unwrap_or_default());
                managed.hand_over(&["metadata", "annotations", LAST_APPLIED], manager);
            }
            let patch = json!([
                {"op": "replace", "path": "/metadata/managedFields", "value": managed.into_entries()},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]}
            ]);
            match self.session.json(Call::patch(self.path(), Patch::Json, &patch)).await {
                Ok(_) => return self.send().await,
                Err(error) if error.is_conflict() => {
                    object = self.session.json(Call::get(self.path())).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(object)
    }

    /// Gives the annotation an owner of its own, so that it stays: who goes back finds it.
    async fn keep_annotation(&self, object: &Value) -> Result<(), ApiError> {
        let annotation = &object["metadata"]["annotations"][LAST_APPLIED];
        let config = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"],
            "metadata": {"name": object["metadata"]["name"], "annotations": {LAST_APPLIED: annotation}}
        });
        let call = Call::patch(self.path(), Patch::Apply, &config).query("fieldManager", ANNOTATION_KEEPER);
        self.session.json(call).await.map(drop)
    }

    async fn on_server(&self, printer: &mut Printer) -> Result<(), Ended> {
        if self.apply.dry_run == DryRun::Client {
            return Err(Failure::new("error: --dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)").into());
        }
        let sent = match self.send().await {
            Ok(object) if self.apply.dry_run == DryRun::None => self.take_over(object).await,
            sent => sent,
        };
        match sent {
            Ok(object) => self.done(printer, &object, "serverside-applied"),
            Err(ApiError::Refused(refusal)) if refusal.reason == "Conflict" => Err(Failure::new(format!(
                "error: {}\nPlease review the fields above--they currently have other managers. Here\nare the ways you \
                 can resolve this warning:\n* If you intend to manage all of these fields, please re-run the apply\n  \
                 command with the `--force-conflicts` flag.\n* If you do not intend to manage all of the fields, please \
                 edit your\n  manifest to remove references to the fields that should keep their\n  current managers.\n* \
                 You may co-own fields by updating your manifest to match the existing\n  value; in this case, you'll \
                 become the manager if the other manager(s)\n  stop managing the field (remove it from their \
                 configuration).\nSee https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts",
                refusal.message
            ))
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn on_client(&self, printer: &mut Printer) -> Result<(), Ended> {
        let modified = with_last_applied(&self.manifest.object);
        let source = &self.manifest.source;
        let retrieving =
            format!("retrieving current configuration of:\n{}\nfrom server for:", self.subject());
        let found = self
            .session
            .find(Call::get(self.path()))
            .await
            .map_err(|error| error.when(&retrieving, source))?;
        let Some(current) = found else {
            if self.apply.dry_run == DryRun::Client {
                return self.done(printer, &modified, "created");
            }
            let call = Call::post(self.mapping.collection(Some(&self.namespace)), &modified);
            let call = self.dress(call, "kubectl-client-side-apply");
            let object = self.session.json(call).await.map_err(|error| error.when("creating", source))?;
            return self.done(printer, &object, "created");
        };
        if current["metadata"]["annotations"][LAST_APPLIED].is_null() {
            eprintln!(
                "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by skiff apply. \
                 skiff apply should only be used on resources created declaratively by either skiff create \
                 --save-config or skiff apply. The missing annotation will be patched automatically.",
                self.mapping.plural, self.name
            );
        }
        self.patch(modified, current, printer).await
    }

    async fn patch(&self, modified: Value, mut current: Value, printer: &mut Printer) -> Result<(), Ended> {
        let source = &self.manifest.source;
        let mut tries = 1;
        loop {
            let (kind, patch) = difference(&self.mapping, &modified, &current, self.apply.overwrite)?;
            if patch.is_empty() {
                return self.done(printer, &current, "unchanged");
            }
            if self.apply.dry_run == DryRun::Client {
                return self.done(printer, &modified, "configured");
            }
            let call = Call::patch(self.path(), kind, &Value::Object(patch.clone()));
            let call = self.dress(call, "kubectl-client-side-apply");
            let error = match self.session.json(call).await {
                Ok(object) => return self.done(printer, &object, "configured"),
                Err(error) => error,
            };
            let refused = matches!(error.reason(), "Conflict" | "Invalid");
            if error.is_conflict() && tries < TRIES {
                tries += 1;
                current = self.session.json(Call::get(self.path())).await?;
                continue;
            }
            if self.apply.force && refused {
                remove(self.session, &self.mapping, &self.namespace, &self.name).await?;
                let call = Call::post(self.mapping.collection(Some(&self.namespace)), &modified);
                let call = self.dress(call, "kubectl-client-side-apply");
                let object = self.session.json(call).await.map_err(|error| error.when("creating", source))?;
                return self.done(printer, &object, "configured");
            }
            let what = format!("applying patch:\n{}\nto:\n{}\nfor:", Value::Object(patch), self.subject());
            return Err(error.when(&what, source).into());
        }
    }

    fn subject(&self) -> String {
        format!(
            "Resource: \"{}\", GroupVersionKind: \"{}, Kind={}\"\nName: {:?}, Namespace: {:?}",
            self.mapping.resource(),
            self.mapping.api_version(),
            self.mapping.kind,
            self.name,
            self.namespace
        )
    }
}

/// The patch that makes the current object what the file says.
pub(super) fn difference(
    mapping: &Mapping,
    modified: &Value,
    current: &Value,
    overwrite: bool,
) -> Result<(Patch, Map<String, Value>), Failure> {
    let about = || mapping.named(name(current));
    let annotation = current["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let original: Value = serde_json::from_str(annotation).unwrap_or_else(|_| json!({}));
    let (Some(original), Some(modified), Some(current)) =
        (original.as_object(), modified.as_object(), current.as_object())
    else {
        return Err(Failure::new(format!("error: {}: not an object", about())));
    };
    let Some(ty) = mapping.strategic() else {
        return Ok((Patch::Merge, merge_three_way(original, modified, current)));
    };
    let patch = strategic::three_way(ty, original, modified, current, overwrite)
        .map_err(|error| Failure::new(format!("error: {}: {error}", about())))?;
    Ok((Patch::Strategic, patch))
}

/// The object with itself in the annotation, in the form that kubectl writes.
pub(crate) fn with_last_applied(object: &Value) -> Value {
    let mut object = object.clone();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let mut config = object.to_string();
    // Go's encoder writes these three so.
    for (plain, escaped) in [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")] {
        config = config.replace(plain, escaped);
    }
    config.push('\n');
    object["metadata"]["annotations"][LAST_APPLIED] = config.into();
    object
}

impl ViewLastApplied {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let targets = session.targets(&self.resources, &self.files).await?;
        for object in session.fetch_all(targets, &Default::default()).await? {
            let annotation =
                object.value["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
            let Ok(config) = serde_json::from_str::<Value>(annotation) else {
                return Err(Failure::new(format!(
                    "error: no last-applied-configuration annotation found on resource: {}",
                    name(&object.value)
                )));
            };
            match self.output.as_str() {
                "yaml" => print(crate::output::yaml::to_string(&config))?,
                "json" => print(crate::output::json::pretty(&config))?,
                other => {
                    return Err(Failure::usage(format!(
                        "error: Unexpected -o output mode: {other}, the flag 'output' must be one of yaml|json"
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_what_kubectl_writes() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"},
            "data": {"k": "a<b"}});
        let dressed = with_last_applied(&object);
        let config = "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"a\\u003cb\"},\"kind\":\"ConfigMap\",\"metadata\":\
            {\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n";
        assert_eq!(dressed["metadata"]["annotations"][LAST_APPLIED], config);
        assert_eq!(with_last_applied(&dressed), dressed, "applied again, it is the same");
    }
}
