//! `skiff apiserver`: the API alone, without scheduler and controllers. Objects are kept as they are written.

use std::path::Path;
use std::process::ExitCode;

use apiserver::admission;
use base::{Clock, Random, Tasks};
use clap::Args;

use super::control_plane::{ControlPlane, ControlPlaneConfig};
use super::process;
use super::server::ServerArgs;
use crate::Failure;

#[derive(Args, Debug)]
pub(crate) struct ApiServerRole {
    #[command(flatten)]
    args: ServerArgs,
    /// Admission plugins to ask though they are off by default, separated by commas.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "SKIFF_ENABLE_ADMISSION_PLUGINS",
        value_parser = clap::builder::PossibleValuesParser::new(admission::plugins())
    )]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to leave out, separated by commas.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "SKIFF_DISABLE_ADMISSION_PLUGINS",
        value_parser = clap::builder::PossibleValuesParser::new(admission::plugins())
    )]
    disable_admission_plugins: Vec<String>,
}

impl ApiServerRole {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.args.check()?;
        process::run(self.serve())
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let start = async |mut config: ControlPlaneConfig, tasks: &Tasks| {
            config.enabled_admission = self.enable_admission_plugins;
            config.disabled_admission = self.disable_admission_plugins;
            ControlPlane::start_api(config, tasks, &Clock::system(), &Random::system()).await
        };
        let next = |_: &ControlPlane, admin: &Path| format!("export KUBECONFIG={}", admin.display());
        self.args.serve("apiserver", start, next).await
    }
}
