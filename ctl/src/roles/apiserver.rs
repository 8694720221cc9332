//! `skiff apiserver`: the API alone, without scheduler and controllers. Objects are kept as they are written.

use std::process::ExitCode;
use std::time::Instant;

use apiserver::admission;
use base::{Clock, Random, Tasks};
use clap::Args;

use super::control_plane::ControlPlane;
use super::lock::Lock;
use super::server::ServerArgs;
use super::{facts, process};
use crate::{Failure, kubeconfig};

#[derive(Args, Debug)]
pub(crate) struct ApiServerRole {
    #[command(flatten)]
    args: ServerArgs,
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
        let started = Instant::now();
        let mut end = process::Signals::new()?;
        let data_dir = facts::data_dir(&self.args.data_dir)?;
        let _lock = Lock::take(&data_dir)?;
        let mut config = self.args.config(data_dir.clone())?;
        config.disabled_admission = self.disable_admission_plugins;
        let tasks = Tasks::new("apiserver");
        let api = ControlPlane::start_api(config, &tasks, &Clock::system(), &Random::system()).await?;
        kubeconfig::write(&data_dir.join("admin.kubeconfig"), &api.kubeconfig()?)?;
        println!(
            "skiff apiserver is ready at {} after {:.1} s: export KUBECONFIG={}",
            api.url(),
            started.elapsed().as_secs_f32(),
            data_dir.join("admin.kubeconfig").display(),
        );
        end.recv().await;
        api.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
