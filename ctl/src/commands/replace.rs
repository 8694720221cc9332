//! `skiff replace`: objects become exactly what files say.

use clap::Args;

use super::apply::{DryRun, Validation, with_last_applied};
use super::delete::remove;
use super::print;
use crate::Failure;
use crate::output::{OutputArgs, Printer};
use crate::resources::files::FileArgs;
use crate::resources::select::ended;
use crate::resources::{ApiError, Call, Mapping, Session, Target, text};

#[derive(Args, Debug)]
pub(crate) struct Replace {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    validation: Validation,
    /// Delete the object and create it anew
    #[arg(long)]
    force: bool,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    save_config: bool,
    /// If specified, replace the subresource of the requested object
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
}

/// An object to send, and where to.
struct Wanted<'a> {
    mapping: &'a Mapping,
    namespace: &'a str,
    name: &'a str,
    object: serde_json::Value,
}

impl Replace {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Err(Failure::new("error: must specify one of -f and -k"));
        }
        if self.force && self.dry_run != DryRun::None {
            return Err(Failure::new("error: --dry-run can not be used when --force is set"));
        }
        self.validation.field()?;
        let mut printer = self.output.printer()?;
        let mut errors = Vec::new();
        for manifest in self.files.read()? {
            let Target::One { mapping, namespace, name, manifest: Some(manifest) } =
                session.manifest_target(manifest).await?
            else {
                continue;
            };
            let object = if self.save_config { with_last_applied(&manifest.object) } else { manifest.object };
            let wanted = Wanted { mapping: &mapping, namespace: &namespace, name: &name, object };
            let sent = self.one(session, wanted, &mut printer).await;
            errors.extend(sent.err().map(|error| error.when("replacing", &manifest.source)));
        }
        ended(errors)
    }

    async fn one(
        &self,
        session: &Session,
        mut wanted: Wanted<'_>,
        printer: &mut Printer,
    ) -> Result<(), ApiError> {
        let Wanted { mapping, namespace, name, .. } = wanted;
        let said = |failure: Failure| ApiError::Broken(failure.to_string());
        if self.dry_run == DryRun::Client {
            let done = format!("replaced{}", self.dry_run.suffix());
            return printer.done(mapping, &wanted.object, &done).map_err(said);
        }
        let mut path = mapping.object(namespace, name);
        let call = if self.force {
            if session.find(Call::get(path.as_str())).await?.is_some() {
                remove(session, mapping, namespace, name).await?;
                let place =
                    if namespace.is_empty() { String::new() } else { format!(" from {namespace} namespace") };
                print(format!("{} {name:?} deleted{place}\n", mapping.short())).map_err(said)?;
            }
            if let Some(metadata) = wanted.object["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            Call::post(mapping.collection(Some(namespace)), &wanted.object)
        } else {
            // A file that names no version means the object as it is now.
            if text(&wanted.object, "metadata.resourceVersion").is_empty()
                && let Some(current) = session.find(Call::get(path.as_str())).await?
            {
                wanted.object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
            }
            if let Some(subresource) = &self.subresource {
                path = format!("{path}/{subresource}");
            }
            Call::put(path, &wanted.object)
        };
        let call = call
            .query("fieldManager", "kubectl-replace")
            .query("fieldValidation", self.validation.field().unwrap_or("Strict"))
            .dry_run(self.dry_run.server());
        let replaced = session.json(call).await?;
        printer.done(mapping, &replaced, &format!("replaced{}", self.dry_run.suffix())).map_err(said)
    }
}
