//! `skiff create`: objects from files, or made from flags.
//!
//! - [`generate`]: what is made from flags; [`data`]: the data of config maps and secrets

mod data;
mod generate;

use clap::Args;

use super::Global;
use super::apply::{DryRun, Validation, with_last_applied};
use crate::Failure;
use crate::output::{OutputArgs, Printer};
use crate::resources::files::FileArgs;
use crate::resources::select::ended;
use crate::resources::{Call, Mapping, Session, Target};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Create {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    making: Making,
    #[command(subcommand)]
    generator: Option<generate::Generator>,
}

/// How new objects are sent and shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct Making {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    validation: Validation,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub(crate) dry_run: DryRun,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    save_config: bool,
    /// Name of the manager used to track field ownership
    #[arg(long, value_name = "NAME", default_value = "kubectl-create")]
    field_manager: String,
}

impl Making {
    /// Whether the flags make sense.
    fn check(&self) -> Result<(), Failure> {
        self.validation.field().map(drop)
    }

    /// Creates an object and says so.
    pub(crate) async fn send(
        &self,
        session: &Session,
        mapping: &Mapping,
        namespace: &str,
        object: &serde_json::Value,
        printer: &mut Printer,
    ) -> Result<(), crate::resources::ApiError> {
        let dressed = if self.save_config { with_last_applied(object) } else { object.clone() };
        let made = if self.dry_run == DryRun::Client {
            dressed
        } else {
            let call = Call::post(mapping.collection(Some(namespace)), &dressed)
                .query("fieldManager", &self.field_manager)
                .query("fieldValidation", self.validation.field().unwrap_or("Strict"))
                .dry_run(self.dry_run.server());
            session.json(call).await?
        };
        let said = printer.done(mapping, &made, &format!("created{}", self.dry_run.suffix()));
        said.map_err(|failure| crate::resources::ApiError::Broken(failure.to_string()))
    }
}

impl Create {
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        if let Some(generator) = self.generator {
            return generator.run(global).await;
        }
        if self.files.is_empty() {
            return Err(Failure::new("error: must specify one of -f and -k"));
        }
        self.making.check()?;
        let session = Session::open(global).await?;
        let mut printer = self.making.output.printer()?;
        let mut errors = Vec::new();
        for manifest in self.files.read()? {
            let Target::One { mapping, namespace, manifest: Some(manifest), .. } =
                session.manifest_target(manifest).await?
            else {
                continue;
            };
            let sent = self.making.send(&session, &mapping, &namespace, &manifest.object, &mut printer).await;
            errors.extend(sent.err().map(|error| error.when("creating", &manifest.source)));
        }
        ended(errors)
    }
}
